"""All tiers as real processes, and a collector that takes in what they export."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from known_network import write_known_repository
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from qsm_ai.inference.ports import any_free
from qsm_ai.inference.server import TritonServer

CLI = ["-c", "from qsm_ai.cli import app; app()"]
QUIET = ("QSM_", "OTEL_")


@dataclass(frozen=True)
class Span:
    """What a tier exported."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str


class Collector:
    """Takes OTLP over HTTP, as a collector in production does."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._spans: list[Span] = []
        self._lock = threading.Lock()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(self.path, self.headers["Content-Type"], body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", any_free()), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, path: str, kind: str, body: bytes) -> None:
        assert path == "/v1/traces"
        groups = _from_json(body) if kind == "application/json" else _from_protobuf(body)
        with self._lock:
            self.bodies.append(body)
            for service, spans in groups:
                self._spans += [Span(service, *span) for span in spans]

    def spans(self, trace_id: str | None = None) -> list[Span]:
        """What came so far, of one trace or of all."""
        with self._lock:
            return [span for span in self._spans if trace_id in (None, span.trace_id)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


Group = tuple[str, list[tuple[str, str, str, str]]]


def _from_protobuf(body: bytes) -> list[Group]:
    return [
        (
            {a.key: a.value.string_value for a in group.resource.attributes}["service.name"],
            [
                (span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                for scope in group.scope_spans
                for span in scope.spans
            ],
        )
        for group in ExportTraceServiceRequest.FromString(body).resource_spans
    ]


def _from_json(body: bytes) -> list[Group]:
    """As Triton sends it."""
    return [
        (
            {a["key"]: a["value"]["stringValue"] for a in group["resource"]["attributes"]}["service.name"],
            [
                (span["name"], span["traceId"], span["spanId"], span.get("parentSpanId", ""))
                for scope in group["scopeSpans"]
                for span in scope["spans"]
            ],
        )
        for group in json.loads(body)["resourceSpans"]
    ]


class Tier:
    """One process and all that it wrote."""

    def __init__(self, log: Path, command: list[str], environment: dict[str, str]) -> None:
        self.log = log
        clean = {key: value for key, value in os.environ.items() if not key.startswith(QUIET)}
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env={**clean, "PYTHONUNBUFFERED": "1", **environment},
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
            )

    def wait_for(self, url: str, within: float = 120) -> None:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if httpx.get(url, timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def events(self) -> list[dict[str, Any]]:
        """Every line that it wrote, each of which must be an event."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise


@dataclass
class Service:
    """Backend, worker, page and Triton, with the collector that they export to."""

    collector: Collector
    triton: TritonServer
    backend: Tier
    worker: Tier
    page: Tier
    api: str
    page_url: str
    page_metrics: str
    worker_metrics: str

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.api, timeout=300)

    def submit(self, files: dict[str, Path], headers: dict[str, str] | None = None) -> httpx.Response:
        """Send a scan and wait for its map."""
        parts = [(role, (path.name, path.read_bytes())) for role, path in files.items()]
        fields = {"te_ms": "4 8 12", "b0": "3", "wait": "240"}
        with self.client() as client:
            return client.post("/api/v1/reconstruct", files=parts, data=fields, headers=headers)


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


@pytest.fixture(scope="session")
def service(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """All tiers as in production: the gateway computes nothing, a worker in a process of its own does."""
    folder = tmp_path_factory.mktemp("service")
    repository = write_known_repository(folder / "repository")
    export = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "QSM_LOG_LEVEL": "debug",
        "QSM_LOG_USER_KEY": "the key of these tests",
    }
    port, worker_port, page_port, page_metrics = (any_free() for _ in range(4))
    with (
        TritonServer(repository, precision="f32", variables=export, log=folder / "triton.log") as triton,
        running(folder) as start,
    ):
        shared = {
            **export,
            "QSM_DATA_DIR": str(folder / "data"),
            "QSM_TRITON_URL": triton.grpc_url,
        }
        backend = start(
            "backend", ["-m", "qsm_ai.api"], {**shared, "QSM_PORT": str(port), "QSM_WORKERS": "0"}
        )
        backend.wait_for(f"http://127.0.0.1:{port}/healthz")
        worker = start("worker", [*CLI, "worker", "--slots", "1", "--port", str(worker_port)], shared)
        page = start(
            "page",
            ["-m", "qsm_ai.ui", "--server.address=127.0.0.1", f"--server.port={page_port}"],
            {
                **export,
                "QSM_API_URL": f"http://127.0.0.1:{port}",
                "QSM_UI_METRICS_PORT": str(page_metrics),
            },
        )
        page.wait_for(f"http://127.0.0.1:{page_port}/_stcore/health")
        worker.wait_for(f"http://127.0.0.1:{worker_port}/readyz")
        yield Service(
            collector,
            triton,
            backend,
            worker,
            page,
            api=f"http://127.0.0.1:{port}",
            page_url=f"http://127.0.0.1:{page_port}",
            page_metrics=f"http://127.0.0.1:{page_metrics}/metrics",
            worker_metrics=f"http://127.0.0.1:{worker_port}/metrics",
        )


@contextmanager
def running(folder: Path) -> Iterator[Callable[[str, list[str], dict[str, str]], Tier]]:
    """Starts processes that end with the context."""
    started: list[Tier] = []

    def start(name: str, command: list[str], environment: dict[str, str]) -> Tier:
        tier = Tier(folder / f"{name}.log", command, environment)
        started.append(tier)
        return tier

    try:
        yield start
    finally:
        for tier in reversed(started):
            tier.stop()


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], Any]], Any]:
    """Wait for something to become true; its value."""

    def wait(found: Callable[[], Any], within: float = 60) -> Any:
        deadline = time.monotonic() + within
        while not (value := found()):
            assert time.monotonic() < deadline, "it never came"
            time.sleep(0.1)
        return value

    return wait
