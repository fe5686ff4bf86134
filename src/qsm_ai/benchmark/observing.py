"""What logs, metrics and traces cost a job: the same job with and without them, turn by turn."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from qsm_ai.api.metrics import Metrics
from qsm_ai.benchmark.speed import simulate_scan
from qsm_ai.inference.openvino import OpenVinoNetwork
from qsm_ai.jobs.records import State
from qsm_ai.jobs.store import JobStore
from qsm_ai.observe import logs, tracing
from qsm_ai.observe.steps import Steps
from qsm_ai.observe.tracing import SpanKind, span
from qsm_ai.reconstruction.options import Method, Options
from qsm_ai.reconstruction.pipeline import Progress, planned_stages, reconstruct
from qsm_ai.scan import Scan

BUDGET = 0.02
"""Share of a job that observing may cost."""


@dataclass(frozen=True)
class Overhead:
    """The same job, observed and not.

    Attributes
    ----------
    method : str
    voxels : (X, Y, Z)
    plain, observed : seconds of processor time of each run, in pairs
    plain_wall, observed_wall : seconds from start to end
    own : float
        Seconds that one job spends in spans, log lines and metrics, measured by themselves.
    spans : int
        Of one job.
    """

    method: str
    voxels: tuple[int, ...]
    plain: tuple[float, ...]
    observed: tuple[float, ...]
    plain_wall: tuple[float, ...]
    observed_wall: tuple[float, ...]
    own: float
    spans: int

    @property
    def share(self) -> float:
        """What a job spends on being observed, over its processor time; the steadier of the two numbers."""
        return self.own / statistics.median(self.plain)

    @property
    def difference(self) -> float:
        """Median over the pairs of what the observed run took longer, as a share."""
        return statistics.median(b / a - 1 for a, b in zip(self.plain, self.observed, strict=True))

    def as_dict(self) -> dict[str, object]:
        """By name, for JSON."""
        return {**asdict(self), "share": self.share, "difference": self.difference, "budget": BUDGET}


def measure(edge: int, method: Method, repeat: int) -> Overhead:
    """Reconstruct a simulated head again and again in two processes, of which one is observed.

    Parameters
    ----------
    edge : voxels
    method : str
    repeat : int
        Pairs of runs, after one of each that does not count.

    Returns
    -------
    Overhead
    """
    context = get_context("spawn")
    with _sink() as address, ProcessPoolExecutor(1, context) as off, ProcessPoolExecutor(1, context) as on:
        voxels = off.submit(_prepare, edge, method, None).result()
        on.submit(_prepare, edge, method, address).result()
        pairs = []
        for number in range(repeat):
            # Whoever comes second finds a warmer machine: take turns.
            order = (off, on) if number % 2 else (on, off)
            taken = {process: process.submit(_run).result() for process in order}
            pairs.append((taken[off], taken[on]))
        own, spans = on.submit(_cost).result()
    return Overhead(
        method,
        voxels,
        plain=tuple(a[0] for a, _ in pairs),
        observed=tuple(b[0] for _, b in pairs),
        plain_wall=tuple(a[1] for a, _ in pairs),
        observed_wall=tuple(b[1] for _, b in pairs),
        own=own,
        spans=spans,
    )


class _sink:  # noqa: N801 - used like a function
    """A collector that takes everything and keeps nothing."""

    def __enter__(self) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Network:
    """The network in process, with a span around each patch, as the client of Triton has."""

    def __init__(self) -> None:
        self._network = OpenVinoNetwork()
        self.patches = 0

    @property
    def name(self) -> str:
        return self._network.name

    def predict(
        self, patches: NDArray[np.float32], on_patch: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        answers = []
        for number in range(len(patches)):
            with span("triton.infer", kind=SpanKind.CLIENT, model="qsm_vit"):
                tracing.carry()
                answers.append(self._network.predict(patches[number : number + 1]))
            self.patches += 1
            if on_patch:
                on_patch(number + 1)
        return np.concatenate(answers)


class _Subject:
    """What one of the two processes does again and again; ``metrics`` is None in the one not observed."""

    def __init__(self, scan: Scan, method: Method, metrics: Metrics | None) -> None:
        self.scan = scan
        self._method = method
        self._metrics = metrics
        self._network = _Network() if method == "qsm-vit" else None
        self._log = structlog.get_logger("qsm_ai")

    def run(self) -> tuple[float, float]:
        """Processor time and wall time of one job."""
        work, began = time.process_time(), time.perf_counter()
        if self._network is not None:
            self._network.patches = 0
        if self._metrics is None:
            reconstruct(self.scan, Options(method=self._method), self._network, lambda _: None)
        else:
            self._observed()
        return time.process_time() - work, time.perf_counter() - began

    def cost(self, times: int = 50) -> tuple[float, int]:
        """Processor time of spans, lines and metrics of a job that does nothing; how many spans it has."""
        stages = [stage.name for stage in planned_stages(self.scan, Options(method=self._method))]
        patches = self._network.patches if self._network else 0
        began = time.process_time()
        for _ in range(times):
            with span("request"), span("job"), span("compute.reconstruct"), Steps("stage") as steps:
                self._log.info("job.started", waited_s=0.0)
                for stage in stages:
                    steps.at(stage)
                    for _ in range(patches if stage == "network" else 0):
                        with span("triton.infer", kind=SpanKind.CLIENT, model="qsm_vit"):
                            tracing.carry()
            self._tell(dict.fromkeys(stages, 1.0), {"residual": 0.1}, patches)
            tracing.flush()
        return (time.process_time() - began) / times, 3 + len(stages) + patches

    def _observed(self) -> None:
        with span("request"), span("job"), span("compute.reconstruct"), Steps("stage") as steps:
            self._log.info("job.started", waited_s=0.0)

            def on_progress(progress: Progress) -> None:
                steps.at(progress.stage)

            result = reconstruct(self.scan, Options(method=self._method), self._network, on_progress)
        self._tell(result.timings, result.scores, self._network.patches if self._network else 0)
        tracing.flush()

    def _tell(self, timings: Mapping[str, float], scores: Mapping[str, float], patches: int) -> None:
        """What a worker and a request tell of one job."""
        if self._metrics is None:
            return
        self._metrics.job_began(self._method, 0.1)
        for stage, seconds in timings.items():
            self._metrics.stage_done(stage, self._method, seconds)
        for name, value in scores.items():
            self._metrics.score(name, value)
        for _ in range(patches):
            self._metrics.triton_called("ok", 0.5)
        self._metrics.job_ended(State.DONE, self._method, 1.0, None, 1.1)
        for event in ("request", "job.ended"):
            self._log.info(event, method="POST", route="/api/v1/reconstruct", status=202, seconds=0.1)


# What follows runs in the two processes.
_subject: list[_Subject] = []


def _prepare(edge: int, method: Method, address: str | None) -> tuple[int, ...]:
    metrics = None
    if address is not None:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = address
        tracing.configure("benchmark", "0")
        logs.configure("benchmark", "debug", Path(os.devnull).open("w"))  # noqa: SIM115 - for good
        metrics = Metrics(JobStore("sqlite://"))
    _subject.append(_Subject(simulate_scan(edge), method, metrics))
    _run()
    return _subject[0].scan.grid.shape


def _run() -> tuple[float, float]:
    return _subject[0].run()


def _cost() -> tuple[float, int]:
    return _subject[0].cost()
