"""Jobs can be followed, stopped, repeated and deleted, and what they made can be fetched in parts."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

# The other deployment's turn is in test_durability.py, and here with the slow tests.
pytestmark = pytest.mark.parametrize(
    "deployment",
    ["sqlite-folder", pytest.param("postgres-s3", marks=pytest.mark.slow)],
    indirect=True,
    scope="session",
)

FORM = {"te_ms": "4 8 12", "b0": "3", "method": "tkd"}


@pytest.fixture
def done(client: Any, files: Any) -> dict[str, Any]:
    """A finished job."""
    given = {"phase": files.phase, "magnitude": files.magnitude, "mask": files.mask}
    job: dict[str, Any] = client.submit(given, expect=200, wait="60", **FORM).json()
    assert job["state"] == "done"
    return job


@pytest.fixture
def running(client: Any, large: dict[str, Any]) -> dict[str, Any]:
    """A job that computes for longer than the test lasts."""
    job = client.submit(large, method="tv").json()
    client.until(job["id"], "running")
    deadline = time.monotonic() + 30
    while client.job(job["id"])["stage"] != "inversion":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found: dict[str, Any] = client.job(job["id"])
    return found


def test_events_tell_the_whole_story_and_end_with_the_job(client: Any, files: Any) -> None:
    job = client.submit({"phase": files.phase, "mask": files.mask}, **FORM).json()
    told = list(client.events(job["id"]))
    states = [event["data"]["state"] for event in told if event["event"] == "state"]
    assert states == ["queued", "running", "done"]
    fractions = [event["data"]["fraction"] for event in told if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert fractions
    stages = {event["data"]["stage"] for event in told if event["event"] == "progress"}
    assert stages >= {"field_mapping", "background"}


def test_a_running_job_says_where_it_is(client: Any, running: dict[str, Any]) -> None:
    assert running["state"] == "running"
    assert running["title"] == "Inverting with classical methods"
    assert 0 < running["fraction"] < 1
    assert running["queue_position"] is None


def places_become(client: Any, jobs: list[dict[str, Any]], wanted: list[int | None]) -> bool:
    """Whether the places in the queue are these, soon: while much happens a look is told for a while."""
    deadline = time.monotonic() + 20
    while (found := [client.job(job["id"])["queue_position"] for job in jobs]) != wanted:
        if time.monotonic() > deadline:
            raise AssertionError(found)
        time.sleep(0.2)
    return True


def test_waiting_jobs_know_their_place_and_a_cancelled_one_gives_it_up(
    client: Any, running: dict[str, Any], files: Any
) -> None:
    waiting = [client.submit({"phase": files.phase}, **FORM).json() for _ in range(3)]
    assert places_become(client, waiting, [1, 2, 3])
    assert client.post(waiting[0]["links"]["cancel"]).json()["state"] == "cancelled"
    assert places_become(client, waiting, [None, 1, 2])


def test_others_pass_a_job_of_low_priority(client: Any, running: dict[str, Any], files: Any) -> None:
    low = client.submit({"phase": files.phase}, priority="low", **FORM).json()
    normal = client.submit({"phase": files.phase}, **FORM).json()
    high = client.submit({"phase": files.phase}, priority="high", **FORM).json()
    assert places_become(client, [high, normal, low], [1, 2, 3])


def test_a_job_is_given_up_when_its_deadline_passes_in_the_queue(
    client: Any, running: dict[str, Any], files: Any
) -> None:
    job = client.submit({"phase": files.phase}, deadline="0.5", **FORM).json()
    late = client.until(job["id"])
    assert late["state"] == "failed"
    assert late["problem"]["code"] == "deadline-exceeded"
    assert client.get(late["links"]["result"]).status_code == 504
    assert client.job(running["id"])["state"] in {"running", "done"}


def test_an_estimate_is_given_once_something_is_known(
    client: Any, done: dict[str, Any], large: Any, files: Any
) -> None:
    first = client.submit(large, method="tkd").json()
    second = client.submit({"phase": files.phase}, **FORM).json()
    estimate = client.job(second["id"])["seconds_left"]
    assert estimate is None or estimate > 0
    left = client.job(first["id"])["seconds_left"]
    assert left is not None
    assert 0 <= left < 600


def test_cancelling_a_running_job_stops_it_within_a_second(
    client: Any, running: dict[str, Any], backend: Any
) -> None:
    began = time.monotonic()
    client.post(running["links"]["cancel"]).raise_for_status()
    job = client.until(running["id"], within=5)
    assert time.monotonic() - began < 1.5
    assert job["state"] == "cancelled"
    assert client.get(running["links"]["result"]).json()["code"] == "no-result"
    assert list((backend.folder / "data/scratch").iterdir()) == []


def test_a_cancelled_job_can_be_retried_from_the_same_upload(
    client: Any, files: Any, running: dict[str, Any]
) -> None:
    job = client.submit({"phase": files.phase}, **FORM).json()
    client.post(job["links"]["cancel"])
    client.post(running["links"]["cancel"])
    assert client.post(job["links"]["retry"]).status_code == 202
    assert client.until(job["id"])["state"] == "done"
    assert client.post(job["links"]["retry"]).json()["code"] == "wrong-state"


def test_a_deleted_job_leaves_no_byte(backend: Any, client: Any, done: dict[str, Any]) -> None:
    assert backend.in_database(done["id"])
    assert len(backend.files) > 5
    client.get(done["artefacts"][0]["slices"]).raise_for_status()
    assert client.delete(done["links"]["self"]).status_code == 204
    assert backend.files == []
    for path in (done["links"]["self"], done["links"]["result"], done["artefacts"][0]["href"]):
        assert client.get(path).status_code == 404
    assert client.get(done["artefacts"][0]["slices"]).status_code == 404
    assert not backend.in_database(done["id"])
    assert not backend.in_database(done["files"][0]["name"])


def test_a_running_job_is_deleted_with_everything(backend: Any, client: Any, running: dict[str, Any]) -> None:
    assert client.delete(running["links"]["self"]).status_code == 204
    assert client.get(running["links"]["self"]).status_code == 404
    assert backend.files == []


def test_the_list_runs_in_pages_and_by_state(client: Any, done: dict[str, Any], files: Any) -> None:
    others = [
        client.submit({"phase": files.phase}, expect=200, wait="60", **FORM).json()["id"] for _ in range(2)
    ]
    first = client.get("/api/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in first["jobs"]] == others[::-1]
    second = client.get(first["next"]).json()
    assert [job["id"] for job in second["jobs"]] == [done["id"]]
    assert second["next"] is None
    assert client.get("/api/v1/jobs", params={"state": "failed"}).json()["jobs"] == []


def test_the_server_answers_at_once_while_it_validates_computes_and_renders(
    backend: Any, client: Any, large: dict[str, Any], running: dict[str, Any]
) -> None:
    """The event loop is never blocked."""
    stop = threading.Event()

    def upload() -> None:
        with backend.client() as other:
            while not stop.is_set():
                job = other.submit(large, method="tv", expect=None).json()
                other.delete(f"/api/v1/jobs/{job['id']}")

    thread = threading.Thread(target=upload)
    thread.start()
    try:
        slowest = 0.0
        until = time.monotonic() + 4
        while time.monotonic() < until:
            began = time.monotonic()
            client.get("/healthz").raise_for_status()
            slowest = max(slowest, time.monotonic() - began)
    finally:
        stop.set()
        thread.join()
    assert slowest < 1.0
