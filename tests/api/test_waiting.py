"""Whoever waits for a job asks once."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest


@pytest.fixture(scope="module")
def idle(start_backend: Any) -> Any:
    """Takes jobs in and computes none."""
    with start_backend(QSM_WORKERS="0", QSM_MAX_WAIT_S="2") as running:
        yield running


@pytest.fixture
def waiting(idle: Any, files: Any) -> Any:
    """A client, and a job of which nothing comes."""
    with idle.client() as client:
        job = client.submit({"local_field": files.local_field, "mask": files.mask}, method="tkd").json()
        yield client, job["id"]
        client.delete(f"/api/v1/jobs/{job['id']}")


def test_the_answer_comes_when_the_job_has_ended(waiting: Any) -> None:
    client, job = waiting
    cancelling = threading.Timer(0.5, client.post, (f"/api/v1/jobs/{job}/cancel",))
    cancelling.start()
    began = time.monotonic()
    assert client.get(f"/api/v1/jobs/{job}", params={"wait": 2}).json()["state"] == "cancelled"
    assert 0.4 < time.monotonic() - began < 1.9
    cancelling.join()


def test_the_answer_comes_when_the_time_is_over_and_no_later_than_the_service_allows(waiting: Any) -> None:
    client, job = waiting
    for wanted, least in ((0.7, 0.7), (500, 2.0)):
        began = time.monotonic()
        assert client.get(f"/api/v1/jobs/{job}", params={"wait": wanted}).json()["state"] == "queued"
        assert least <= time.monotonic() - began < least + 10


def test_a_job_that_is_deleted_meanwhile_is_not_there(waiting: Any) -> None:
    client, job = waiting
    deleting = threading.Timer(0.5, client.delete, (f"/api/v1/jobs/{job}",))
    deleting.start()
    # It may be seen as cancelled before it is gone.
    answer = client.get(f"/api/v1/jobs/{job}", params={"wait": 2})
    assert answer.status_code == 404 or answer.json()["state"] == "cancelled"
    deleting.join()


@pytest.mark.parametrize("wait", ["-1", "soon"])
def test_a_wait_that_cannot_be_is_refused(waiting: Any, wait: str) -> None:
    client, job = waiting
    assert client.get(f"/api/v1/jobs/{job}", params={"wait": wait}).status_code == 422
