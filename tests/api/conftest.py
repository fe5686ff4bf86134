"""A real backend process per test session, and clients of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
from backend_process import BackendProcess

from qsm_ai.storage import Storage


class Client(httpx.Client):
    """httpx, and what every test does with it."""

    def submit(
        self,
        files: dict[str, Path | Sequence[Path]],
        *,
        expect: int | None = 202,
        headers: dict[str, str] | None = None,
        **fields: str,
    ) -> httpx.Response:
        """Send files by role and form fields."""
        parts = [
            (role, (path.name, path.read_bytes(), "application/octet-stream"))
            for role, given in files.items()
            for path in ([given] if isinstance(given, Path) else given)
        ]
        answer = self.post("/api/v1/reconstruct", files=parts, data=fields, headers=headers)
        if expect is not None:
            assert answer.status_code == expect, answer.text
        return answer

    def job(self, job_id: str) -> dict[str, Any]:
        """How a job stands."""
        found: dict[str, Any] = self.get(f"/api/v1/jobs/{job_id}").raise_for_status().json()
        return found

    def until(self, job_id: str, *states: str, within: float = 60) -> dict[str, Any]:
        """The job, once it is in one of these states (default: ended)."""
        wanted = states or ("done", "failed", "cancelled")
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            job = self.job(job_id)
            if job["state"] in wanted:
                return job
            time.sleep(0.05)
        raise AssertionError(f"the job is still {job['state']}")

    def events(self, job_id: str, last: str | None = None) -> Iterator[dict[str, Any]]:
        """Server-sent events until the stream ends."""
        headers = {"Last-Event-ID": last} if last else {}
        with self.stream("GET", f"/api/v1/jobs/{job_id}/events", headers=headers) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert stream.headers["x-accel-buffering"] == "no"
            event: dict[str, Any] = {}
            for line in stream.iter_lines():
                if not line and event:
                    yield event
                    event = {}
                elif ": " in line and not line.startswith(":"):
                    key, _, value = line.partition(": ")
                    event[key] = json.loads(value) if key == "data" else value


class Backend(BackendProcess):
    """A backend with a database and a store of its own."""

    def __init__(self, folder: Path, settings: dict[str, str], deployment: Any) -> None:
        super().__init__(folder, {"QSM_TRITON_PATIENCE_S": "1", **deployment.settings(), **settings})
        self.deployment = deployment

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise

    def client(self) -> Client:
        return Client(base_url=self.url, timeout=60)

    @property
    def files(self) -> list[Path]:
        """Everything of a user's that lies in the data folder or in the store."""
        data = self.folder / "data"
        ours = ("jobs.db", "log-user.key")
        # os.walk, unlike Path.rglob, bears folders that vanish while it looks.
        lying = (Path(folder, name) for folder, _, names in os.walk(data) for name in names)
        found = [p for p in lying if p.is_file() and not p.name.startswith(ours)]
        if self.deployment.s3 is not None:
            stored = self.deployment.s3.files(self.environment["QSM_STORAGE_URL"])
            found += [path for path in stored if path.parent.name != "checks"]
        return found

    def in_database(self, text: str) -> bool:
        """Whether a text is anywhere in the database, in what was deleted from it included."""
        if self.deployment.postgres is not None:
            return bool(self.deployment.postgres.holds(self.environment["QSM_DATABASE_URL"], text))
        files = (self.folder / "data").glob("jobs.db*")
        return text.encode() in b"".join(path.read_bytes() for path in files)

    def stored(self, prefix: str) -> list[str]:
        """Keys of all objects below a folder of the store."""
        url = self.environment.get("QSM_STORAGE_URL", str(self.folder / "data/objects"))
        return [info.key for info in asyncio.run(Storage.from_url(url).entries(prefix))]


@pytest.fixture(scope="session")
def make_backend(tmp_path_factory: pytest.TempPathFactory, deployment: Any) -> Callable[..., Backend]:
    """A backend that is not started yet."""

    def make(**settings: str) -> Backend:
        return Backend(tmp_path_factory.mktemp("backend"), settings, deployment)

    return make


@pytest.fixture(scope="session")
def start_backend(make_backend: Callable[..., Backend]) -> Callable[..., AbstractContextManager[Backend]]:
    @contextmanager
    def start(**settings: str) -> Iterator[Backend]:
        backend = make_backend(**settings)
        backend.start()
        try:
            yield backend
        finally:
            backend.stop()

    return start


@pytest.fixture(scope="session")
def backend(start_backend: Callable[..., AbstractContextManager[Backend]]) -> Iterator[Backend]:
    """One for all tests that leave it as they found it."""
    with start_backend(
        QSM_MAX_UPLOAD_MB="40",
        QSM_MAX_UNPACKED_MB="64",
        QSM_CORS_ORIGINS="http://page.example,https://other.example",
    ) as running:
        yield running


@pytest.fixture
def client(backend: Backend) -> Iterator[Client]:
    with backend.client() as client:
        yield client
        for job in client.get("/api/v1/jobs").json()["jobs"]:
            client.delete(f"/api/v1/jobs/{job['id']}")


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A field so large that total variation works on it for longer than any test waits."""
    folder = tmp_path_factory.mktemp("large")
    shape = (128, 128, 128)
    field = np.random.default_rng(3).normal(0, 0.02, shape).astype(np.float32)
    mask = np.zeros(shape, np.uint8)
    mask[8:-8, 8:-8, 8:-8] = 1
    paths = {"local_field": folder / "local.nii", "mask": folder / "mask.nii"}
    for path, volume in zip(paths.values(), (field, mask), strict=True):
        nib.save(nib.Nifti1Image(volume, np.eye(4)), path)
    return paths
