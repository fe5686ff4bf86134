"""Whatever the OpenAPI document allows, and much that it does not, is answered as it says, never with 5xx."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
UNENDING = ("follow_job",)
"""A stream of events has no body to check; tests/api/test_jobs.py reads it."""

HONESTLY_503 = ("readiness",)
"""Without an inference server this one has to say so; tests/api/test_operation.py reads it."""

FINAL = ("delete_job", "retry_job")
"""Would end, or start again, the job that all other requests are about."""

BROKEN_PARSER = "AST constructor recursion depth mismatch"
"""What Python 3.11's parser may answer to hypothesis, by a fault of its own."""


@pytest.fixture(scope="module")
def fuzzed(start_backend: Any, files: Any) -> Iterator[tuple[Any, str]]:
    """A backend, and a finished job on it."""
    with start_backend(QSM_MAX_UPLOAD_MB="4") as backend, backend.client() as client:
        answer = client.submit(
            {"phase": files.phase, "magnitude": files.magnitude, "mask": files.mask},
            expect=None, te_ms="4 8 12", b0="3", method="tkd",
        )  # fmt: skip
        job = client.until(answer.json()["id"], "done", within=120)
        yield backend, job["id"]


def fuzz(backend: Any, folder: Path, *options: str, job: str | None = None) -> None:
    """Run schemathesis in a process of its own; its report is the failure's message."""
    if job is not None:
        (folder / "schemathesis.toml").write_text(f'[parameters]\n"path.job_id" = {json.dumps(job)}\n')
    done = _run(backend, folder, options)
    if f"Runtime Error: {done.stdout.count(BROKEN_PARSER)}\n" not in done.stdout or "FAILURES" in done.stdout:
        assert done.returncode == 0, done.stdout + done.stderr
    assert "request.error" not in backend.log.read_text()


def _run(backend: Any, folder: Path, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "run",
            f"{backend.url}/openapi.json",
            *("--checks", ",".join(CHECKS), "--warnings", "off", "--request-timeout", "60"),
            *options,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )


def excluded(*operations: str) -> list[str]:
    return [word for operation in operations for word in ("--exclude-operation-id", operation)]


def test_every_answer_is_as_documented(fuzzed: tuple[Any, str], tmp_path: Path) -> None:
    backend, job = fuzzed
    fuzz(
        backend,
        tmp_path,
        *("--phases", "examples,coverage,fuzzing", "--max-time", "20", "--workers", "1"),
        *excluded(*UNENDING, *HONESTLY_503, *FINAL),
        job=job,
    )
    found = [json.loads(line) for line in backend.log.read_text().splitlines()]
    shown = {e.get("status") for e in found if e.get("route") == "/api/v1/jobs/{job_id}"}
    assert 200 in shown, "no request was about a job that is there"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_answer_is_as_documented_for_longer_and_in_sequences(
    start_backend: Any, tmp_path: Path
) -> None:
    with start_backend(QSM_MAX_UPLOAD_MB="4") as backend:
        fuzz(
            backend,
            tmp_path,
            *("--phases", "examples,coverage,fuzzing,stateful", "--max-time", "180"),
            *excluded(*UNENDING, *HONESTLY_503),
        )
