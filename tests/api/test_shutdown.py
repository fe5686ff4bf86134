"""A backend that is told to end lets go of who waits, and ends what others have begun."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

FORM = {"te_ms": "4 8 12", "b0": "3", "method": "tkd"}
PATIENCE = 60
"""Seconds that the backend gives to what is under way: more than a test waits."""

Start = Callable[..., AbstractContextManager[Any]]


def told_to_end(backend: Any) -> float:
    """Send the signal; when that was."""
    backend.process.send_signal(signal.SIGTERM)
    return time.monotonic()


def test_event_streams_end_well_and_at_once(start_backend: Start, files: Any) -> None:
    """With a broken end, or none, clients would take it for a failure, or use up the time of the others."""
    with start_backend(QSM_WORKERS="0", QSM_SHUTDOWN_S=str(PATIENCE)) as backend, backend.client() as client:
        job = client.submit({"phase": files.phase}, **FORM).json()
        events = client.events(job["id"])  # an end without the last chunk would raise here
        assert next(events)["data"]["state"] == "queued"
        began = told_to_end(backend)
        assert list(events) == []
        backend.process.wait(PATIENCE)
        assert time.monotonic() - began < PATIENCE / 2


def test_a_stream_goes_on_at_the_next_backend_where_it_ended(start_backend: Start, files: Any) -> None:
    with start_backend(QSM_WORKERS="0", QSM_SHUTDOWN_S=str(PATIENCE)) as backend, backend.client() as client:
        job = client.submit({"phase": files.phase}, **FORM).json()
        events = client.events(job["id"])
        last = next(events)["id"]
        told_to_end(backend)
        assert list(events) == []
        backend.process.wait(PATIENCE)
        backend.environment["QSM_WORKERS"] = "1"
        backend.start()
        states = [e["data"]["state"] for e in client.events(job["id"], last) if e["event"] == "state"]
        assert states[-1] == "done"
        assert "queued" not in states


def test_who_waits_for_a_job_is_told_how_it_stands(start_backend: Start, files: Any) -> None:
    with start_backend(QSM_WORKERS="0", QSM_SHUTDOWN_S=str(PATIENCE)) as backend, backend.client() as client:
        job = client.submit({"phase": files.phase}, **FORM).json()
        with ThreadPoolExecutor(1) as waiting:
            address = f"{backend.url}/api/v1/jobs/{job['id']}"
            asked = waiting.submit(httpx.get, address, params={"wait": "50"}, timeout=PATIENCE)
            time.sleep(1)
            began = told_to_end(backend)
            answer = asked.result()
        assert answer.status_code == 200
        assert answer.json()["state"] == "queued"
        assert time.monotonic() - began < PATIENCE / 2


def test_who_sent_a_scan_and_waits_for_its_map_is_told_where_to_ask(start_backend: Start, files: Any) -> None:
    with start_backend(QSM_WORKERS="0", QSM_SHUTDOWN_S=str(PATIENCE)) as backend, backend.client() as client:
        with ThreadPoolExecutor(1) as waiting:
            form = {**FORM, "wait": "50"}
            asked = waiting.submit(client.submit, {"phase": files.phase}, **form)
            while not httpx.get(f"{backend.url}/api/v1/jobs").json()["jobs"]:
                time.sleep(0.1)
            time.sleep(0.5)
            began = told_to_end(backend)
            answer = asked.result()
        assert answer.status_code == 202
        assert answer.json()["state"] == "queued"
        assert answer.headers["location"].endswith(answer.json()["id"])
        assert time.monotonic() - began < PATIENCE / 2


@pytest.mark.parametrize(("patience", "arrives"), [(PATIENCE, True), (1, False)])
def test_an_upload_ends_within_the_time_that_is_set(
    start_backend: Start, files: Any, patience: int, arrives: bool
) -> None:
    """Those that take longer are cut off, as all were after three seconds before there was a setting."""
    with start_backend(QSM_WORKERS="0", QSM_SHUTDOWN_S=str(patience)) as backend:
        content, under_way = files.phase.read_bytes(), threading.Event()
        form = httpx.Request("POST", backend.url, files={"phase": (files.phase.name, content)}, data=FORM)
        body = form.read()

        def slowly() -> Iterator[bytes]:
            yield body[: len(body) // 2]
            under_way.set()
            time.sleep(6)
            yield body[len(body) // 2 :]

        headers = {"Content-Type": form.headers["content-type"], "Content-Length": str(len(body))}
        with ThreadPoolExecutor(1) as sending:
            address = f"{backend.url}/api/v1/reconstruct"
            sent = sending.submit(httpx.post, address, content=slowly(), headers=headers, timeout=PATIENCE)
            assert under_way.wait(PATIENCE)
            time.sleep(1)
            told_to_end(backend)
            if arrives:
                answer = sent.result()
                assert answer.status_code == 202, answer.text
                assert json.loads(answer.text)["state"] == "queued"
            else:
                with pytest.raises(httpx.HTTPError):
                    sent.result().raise_for_status()
