"""The benchmark of the service runs a real one, and counts honestly."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from qsm_ai.benchmark.load import Load, Record, run
from qsm_ai.benchmark.service import ServiceTiming, memory_of, rows, time_service
from qsm_ai.inference.ports import any_free


@pytest.fixture(scope="module")
def timing() -> ServiceTiming:
    return time_service(3, 0.0, 0.1, 24, "tkd", 1, lambda _: None)


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
    """A server that gives every upload the answer it is told to."""
    servers = []

    def start(status: int, headers: dict[str, str]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

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
    load = Load(2, 0.0, 0.1, {"phase": scan}, {})
    record = asyncio.run(run(answering(status, headers), [], load))
    assert bool(record.failures) == failed
    assert record.refused == (2 if status in (429, 503) else 0)


def test_memory_of_a_process_counts_what_it_holds() -> None:
    before = memory_of(os.getpid())
    held = bytearray(os.urandom(64 << 20))
    assert memory_of(os.getpid()) - before > 48 << 20
    del held
