"""Answers that take their time end with the key that asked for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import pytest

from qsm_ai.access.key_ring import BELIEVED_FOR
from qsm_ai.access.keys import KeyStore
from qsm_ai.jobs.database import Database
from qsm_ai.jobs.service import LOOK_AGAIN

if TYPE_CHECKING:
    from tests.access.conftest import Backend, StartBackend
    from tests.conftest import Files

WITHIN = BELIEVED_FOR + LOOK_AGAIN + 5.0
"""Seconds, with what a busy machine takes."""


@pytest.fixture(scope="module")
def backend(start_backend: StartBackend) -> Iterator[Backend]:
    """Takes jobs in and computes none: what waits for them waits."""
    with start_backend(QSM_ACCESS="keys", QSM_WORKERS="0") as running:
        yield running


def revoke(backend: Backend, key: str) -> None:
    """As another process does."""
    database = Database(f"sqlite:///{backend.folder / 'data' / 'jobs.db'}")
    try:
        KeyStore(database).revoke(key)
    finally:
        database.close()


def queued(client: httpx.Client, files: Files) -> str:
    sent = [(role, (f"{role}.nii.gz", path.read_bytes())) for role, path in
            (("local_field", files.local_field), ("mask", files.mask))]  # fmt: skip
    answer = client.post("/api/v1/reconstruct", files=sent, data={"method": "tkd", "b0": "3"})
    return str(answer.raise_for_status().json()["id"])


def test_an_event_stream_ends_soon_after_its_key_was_revoked(backend: Backend, files: Files) -> None:
    key = backend.key("alice")
    with backend.client(key) as client:
        job = queued(client, files)
        with client.stream("GET", f"/api/v1/jobs/{job}/events") as stream:
            lines = stream.iter_lines()
            assert next(lines)
            began = time.monotonic()
            revoke(backend, key)
            for _ in lines:
                pass
        assert time.monotonic() - began < WITHIN
        assert client.get(f"/api/v1/jobs/{job}/events").status_code == 401


def test_an_event_stream_of_a_key_that_is_good_goes_on(backend: Backend, files: Files) -> None:
    with backend.client(backend.key("bob")) as client:
        job = queued(client, files)
        threading.Timer(2 * LOOK_AGAIN, client.post, (f"/api/v1/jobs/{job}/cancel",)).start()
        with client.stream("GET", f"/api/v1/jobs/{job}/events") as stream:
            assert "cancelled" in "".join(stream.iter_lines())


def test_who_waits_for_a_job_is_refused_soon_after_the_key_was_revoked(
    backend: Backend, files: Files
) -> None:
    key = backend.key("carol")
    with backend.client(key) as client:
        job = queued(client, files)
        revoking = threading.Timer(0.5, revoke, (backend, key))
        revoking.start()
        began = time.monotonic()
        assert client.get(f"/api/v1/jobs/{job}", params={"wait": 50}).status_code == 401
        assert time.monotonic() - began < WITHIN
        revoking.join()
