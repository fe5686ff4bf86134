"""The benchmark of the service runs a real one, and counts honestly."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from qsm_ai.benchmark.backends import memory_of, processor_seconds
from qsm_ai.benchmark.load import GIVEN_UP, Load, Record, run
from qsm_ai.benchmark.service import ServiceTiming, Setting, rows, time_service
from qsm_ai.inference.ports import any_free


@pytest.fixture(
    scope="module",
    params=[pytest.param(1, id="one backend"), pytest.param(2, id="two backends", marks=pytest.mark.slow)],
)
def timing(request: pytest.FixtureRequest) -> ServiceTiming:
    setting = Setting(3, 0.0, 120.0, 0.1, 24, "tkd", workers=1, backends=request.param)
    return time_service(setting, lambda _: None)


def test_every_user_gets_a_map_and_nothing_fails(timing: ServiceTiming) -> None:
    assert timing.record.ended == {"done": 3}
    assert timing.record.failures == {}
    assert len(timing.record.seconds["upload"]) == 3
    assert len(timing.record.seconds["download"]) == 3
    assert len(timing.record.seconds["status"]) >= 3


def test_a_job_through_the_service_takes_longer_than_the_pipeline_alone(timing: ServiceTiming) -> None:
    assert 0 < timing.bare < timing.alone < float("inf")


def test_memory_is_that_of_the_backend_with_its_processes(timing: ServiceTiming) -> None:
    assert 50 << 20 < timing.resting_memory <= timing.peak_memory


def test_the_cost_of_a_look_is_that_of_the_backend_alone(timing: ServiceTiming) -> None:
    assert 0.0001 < timing.status_cost < 0.1
    assert timing.status_cost < timing.request_cost


def test_the_record_is_json_and_the_table_names_every_number(timing: ServiceTiming) -> None:
    told = json.loads(json.dumps(timing.as_dict()))
    assert told["latency"]["status"]["p50"] <= told["latency"]["status"]["p99"]
    assert told["jobs"] == {"done": 3}
    names = [name for name, _ in rows(timing)]
    assert "status: P50 / P95 / P99" in names
    assert len(names) == len(set(names))


def test_percentiles_are_those_of_all_requests() -> None:
    record = Record(seconds={"status": [0.001 * n for n in range(1, 101)]})
    assert record.percentiles("status") == pytest.approx((0.0505, 0.09505, 0.09901))


@pytest.fixture
def answering() -> Iterator[Any]:
    """A server that gives every request the answer it is told to."""
    servers = []

    def start(status: int, headers: dict[str, str], body: bytes = b"") -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(status)

            def do_GET(self) -> None:
                self.answer(200)

            def do_DELETE(self) -> None:
                self.answer(200)

            def answer(self, status: int) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", any_free()), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "headers", "failed"),
    [
        (429, {"Retry-After": "0"}, False),
        (503, {"Retry-After": "0"}, False),
        (503, {}, True),
        (500, {}, True),
    ],
)
def test_a_refusal_that_says_when_to_come_again_is_no_failure(
    answering: Any, tmp_path: Path, status: int, headers: dict[str, str], failed: bool
) -> None:
    scan = tmp_path / "scan.nii"
    scan.write_bytes(b"x")
    load = Load(2, 0.0, 60.0, 0.1, {"phase": scan}, {})
    record = asyncio.run(run([answering(status, headers)], [], load))
    assert bool(record.failures) == failed
    assert record.refused == (2 if status in (429, 503) else 0)


def test_memory_of_a_process_counts_what_it_holds() -> None:
    before = memory_of(os.getpid())
    held = bytearray(os.urandom(64 << 20))
    assert memory_of(os.getpid()) - before > 48 << 20
    del held


def test_everybody_goes_home_when_the_time_is_over(answering: Any, tmp_path: Path) -> None:
    scan = tmp_path / "scan.nii"
    scan.write_bytes(b"x")
    load = Load(2, 0.0, 1.0, 0.1, {"phase": scan}, {})
    record = asyncio.run(run([answering(202, {}, b'{"id": "1", "state": "queued"}')], [], load))
    assert record.ended == {GIVEN_UP: 2}
    assert record.elapsed < 10


def test_processor_time_is_that_of_the_process_itself() -> None:
    before, began = processor_seconds(os.getpid()), time.process_time()
    while time.process_time() - began < 0.3:
        pass
    assert processor_seconds(os.getpid()) - before == pytest.approx(time.process_time() - began, abs=0.05)
