"""A backend killed in the middle of its work loses nothing and leaves nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

# The other deployment's turn is in test_jobs.py, and here with the slow tests.
pytestmark = pytest.mark.parametrize(
    "deployment",
    [pytest.param("sqlite-folder", marks=pytest.mark.slow), "postgres-s3"],
    indirect=True,
    scope="session",
)

FORM = {"te_ms": "4 8 12", "b0": "3", "method": "tkd"}


def computing(backend: Any) -> list[int]:
    """Living processes that compute for this backend."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"qsm_ai.jobs.compute" in (entry / "cmdline").read_bytes():
                environment = (entry / "environ").read_bytes()
                if f"QSM_DATA_DIR={backend.folder}/".encode() in environment:
                    found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def test_killed_jobs_are_finished_after_a_restart_exactly_as_undisturbed(
    start_backend: Any, files: Any
) -> None:
    given = {"phase": files.phase, "magnitude": files.magnitude, "mask": files.mask}
    with start_backend() as backend, backend.client() as client:
        undisturbed = client.submit(given, expect=200, wait="60", **FORM).json()
        expected = client.get(undisturbed["artefacts"][0]["href"]).content
        ids = [client.submit(given, **FORM).json()["id"] for _ in range(4)]
        for kills in range(3):
            deadline = time.monotonic() + 20
            while not any(client.job(i)["state"] == "running" for i in ids):
                if all(client.job(i)["state"] == "done" for i in ids):
                    break
                assert time.monotonic() < deadline
            time.sleep(0.1 * kills)
            backend.kill()
            backend.start()
        for job_id in ids:
            done = client.until(job_id)
            assert done["state"] == "done", done["problem"]
            assert client.get(done["artefacts"][0]["href"]).content == expected
            attempts = {key.split("/")[3] for key in backend.stored(f"jobs/{job_id}/results")}
            assert len(attempts) == 1, "results of a lost attempt stayed"
        for job_id in [*ids, undisturbed["id"]]:
            client.delete(f"/api/v1/jobs/{job_id}")
        assert backend.files == []


def test_a_killed_backends_computation_ends_with_it(start_backend: Any, large: Any) -> None:
    with start_backend() as backend:
        with backend.client() as client:
            job = client.submit(large, method="tv").json()
            client.until(job["id"], "running")
        backend.kill()
        deadline = time.monotonic() + 10
        while computing(backend):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_killed_computation_fails_with_a_plain_reason_and_can_be_retried(
    start_backend: Any, large: Any
) -> None:
    import os

    with start_backend() as backend, backend.client() as client:
        job = client.submit(large, method="tv").json()
        deadline = time.monotonic() + 30
        while client.job(job["id"])["stage"] != "inversion":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for pid in computing(backend):
            os.kill(pid, 9)
        failed = client.until(job["id"])
        assert failed["problem"]["code"] == "worker-lost"
        assert client.get(failed["links"]["result"]).status_code == 500
        assert client.post(failed["links"]["retry"]).status_code == 202
        client.until(job["id"], "running")
        assert client.delete(failed["links"]["self"]).status_code == 204
        assert backend.files == []


def test_a_stopped_backend_hands_its_jobs_back(start_backend: Any, large: Any) -> None:
    with start_backend() as backend:
        with backend.client() as client:
            job = client.submit(large, method="tv").json()
            client.until(job["id"], "running")
        backend.stop()
        assert computing(backend) == []
        backend.environment["QSM_WORKERS"] = "0"
        backend.start()
        with backend.client() as client:
            assert client.job(job["id"])["state"] == "queued"
