"""What Prometheus sees of the backend; names, units and labels are those of ``observe/catalogue.py``."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from qsm_ai import __version__
from qsm_ai.jobs.records import State
from qsm_ai.jobs.store import JobStore
from qsm_ai.observe import catalogue
from qsm_ai.observe.tracing import trace_id
from qsm_ai.reconstruction.options import METHODS
from qsm_ai.reconstruction.stages import STAGES

log = structlog.get_logger("qsm_ai.api")

BACKEND = catalogue.of("backend")

disable_created_metrics()  # type: ignore[no-untyped-call]


def family(name: str, value: float | None = None) -> GaugeMetricFamily:
    """A gauge of the table, for collectors that ask when Prometheus asks."""
    metric = BACKEND[name]
    return GaugeMetricFamily(name, metric.help, value=value, labels=metric.labels if value is None else None)


class JobsCollector(Collector):
    """Asks the database when Prometheus asks, so that every backend process tells the same."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Jobs by state and the age of the oldest queued one; nothing while the database is away.

        All else is told all the same, the database's errors above all.
        """
        try:
            counts, queued_at = self._store.counts(), self._store.oldest_queued()
            now = self._store.now()
        except SQLAlchemyError as error:
            log.warning("metrics.trouble", error=type(error).__name__)
            return
        jobs = family("qsm_jobs")
        for state, count in counts.items():
            jobs.add_metric([state.value], count)
        yield jobs
        age = 0.0 if queued_at is None else max(0.0, now - queued_at)
        yield family("qsm_queue_oldest_seconds", age)
        yield family("qsm_queue_depth", counts[State.QUEUED])

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: the database need not be there when the collector is registered."""
        return iter(())


class DiskCollector(Collector):
    """Room in the data folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Free and whole size; nothing when the folder is gone, which readiness tells."""
        try:
            usage = shutil.disk_usage(self._folder)
        except OSError:
            return
        yield family("qsm_data_free_bytes", usage.free)
        yield family("qsm_data_size_bytes", usage.total)


class Metrics:
    """The metrics of one application; the worker reports to it as its ``Observer``.

    Parameters
    ----------
    store : JobStore
        Asked whenever Prometheus asks.
    data_dir : Path
        Whose free space is told; nothing is told of it when None.
    """

    def __init__(self, store: JobStore, data_dir: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(JobsCollector(store))
        if data_dir is not None:
            self.registry.register(DiskCollector(data_dir))
        self.requests = self._make("http_requests_total")
        self.request_duration = self._make("http_request_duration_seconds")
        self.answered_problems = self._make("qsm_problems_total")
        self.refusals = self._make("qsm_input_refusals_total")
        self.denials = self._make("qsm_access_denials_total")
        self.rate_limit_alone = self._make("qsm_rate_limit_alone")
        self.uploads = self._make("qsm_upload_bytes_total")
        self.waits = self._make("qsm_job_wait_seconds")
        self.jobs = self._make("qsm_job_duration_seconds")
        self.end_to_end = self._make("qsm_job_end_to_end_seconds")
        self.problems = self._make("qsm_job_problems_total")
        self.stages = self._make("qsm_stage_duration_seconds")
        self.scores = self._make("qsm_physics_score")
        self.storage_duration = self._make("qsm_storage_duration_seconds")
        self.storage_errors = self._make("qsm_storage_errors_total")
        self.database_duration = self._make("qsm_database_duration_seconds")
        self.database_errors = self._make("qsm_database_errors_total")
        self.triton_requests = self._make("qsm_triton_requests_total")
        self.triton_duration = self._make("qsm_triton_request_duration_seconds")
        self.triton_up = self._make("qsm_triton_up")
        self.circuit_open = self._make("qsm_circuit_open")
        self.slots = self._make("qsm_worker_slots")
        self.busy = self._make("qsm_worker_busy")
        self.heartbeat = self._make("qsm_worker_heartbeat_timestamp_seconds")
        self.swept_at = self._make("qsm_retention_sweep_success_timestamp_seconds")
        self.sweep_errors = self._make("qsm_retention_sweep_errors_total")
        self.removed = self._make("qsm_retention_removed_total")
        self._make("qsm_build_info").labels(__version__).set(1)
        self.swept_at.set(time.time())
        # Known labels exist from the start: a rate over a series that appears with its first event misses it.
        for method in METHODS:
            self.waits.labels(method)
            self.end_to_end.labels(method)
            for state in (State.DONE, State.FAILED, State.CANCELLED):
                self.jobs.labels(method, state.value)
            for stage in STAGES:
                self.stages.labels(stage.name, method)

    def _make(self, name: str) -> Any:
        return catalogue.make(BACKEND[name], self.registry)

    # ------------------------------------------------------------------ what others tell

    def request_done(self, method: str, handler: str, status: int, seconds: float) -> None:
        """A request was answered; an event stream lasts as long as its listener and has no duration."""
        self.requests.labels(method, handler, f"{status // 100}xx").inc()
        if not handler.endswith("/events"):
            self.request_duration.labels(method, handler).observe(seconds, exemplar())

    def problem_answered(self, code: str, status: int) -> None:
        """A request was answered with a problem document."""
        self.answered_problems.labels(code, str(status)).inc()

    def worker_looked(self, slots: int, busy: int, *, held_back: bool) -> None:
        """This process's worker looked at its queue; ``held_back``: the network's jobs wait for Triton."""
        self.heartbeat.set(time.time())
        self.slots.set(slots)
        self.busy.set(busy)
        self.circuit_open.set(held_back)

    def job_began(self, method: str, waited: float) -> None:
        """A job was taken from the queue, for the first time or again."""
        self.waits.labels(method).observe(max(0.0, waited))

    def stage_done(self, stage: str, method: str, seconds: float) -> None:
        """A stage of a finished job took this long."""
        self.stages.labels(stage, method).observe(seconds, exemplar())

    def job_ended(
        self,
        state: State,
        method: str,
        seconds: float,
        problem: str | None,
        since_queued: float | None = None,
    ) -> None:
        """A job ended, so many seconds after its start and after it was queued."""
        self.jobs.labels(method, state.value).observe(seconds, exemplar())
        if state is State.DONE and since_queued is not None:
            self.end_to_end.labels(method).observe(max(0.0, since_queued), exemplar())
        if problem is not None:
            self.problems.labels(problem).inc()

    def score(self, name: str, value: float) -> None:
        """A score of a finished job."""
        self.scores.labels(name).observe(value)

    def storage_called(self, operation: str, seconds: float, error: str | None) -> None:
        """A call to the object store ended; a ``timing.Watch``."""
        self.storage_duration.labels(operation).observe(seconds)
        if error is not None:
            self.storage_errors.labels(operation).inc()

    def database_called(self, operation: str, seconds: float, error: str | None) -> None:
        """A statement on the database ended; a ``timing.Watch``."""
        self.database_duration.labels(operation).observe(seconds)
        if error is not None:
            self.database_errors.labels(operation).inc()

    def triton_called(self, outcome: str, seconds: float) -> None:
        """Triton answered a request for one patch, or did not."""
        self.triton_requests.labels(outcome).inc()
        self.triton_duration.observe(seconds, exemplar())

    def swept(self, *, whole: bool) -> None:
        """Old files were swept; ``whole``: all of them could be removed."""
        if whole:
            self.swept_at.set(time.time())
        else:
            self.sweep_errors.inc()

    # ------------------------------------------------------------------ what Prometheus asks

    def answer(self, accept: str) -> tuple[bytes, str]:
        """What Prometheus scrapes, with exemplars where it understands them.

        Parameters
        ----------
        accept : str
            The request's ``Accept``.

        Returns
        -------
        bytes
        str
            Its media type.
        """
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type


def exemplar() -> dict[str, str] | None:
    """The current trace, to be found from a bucket of a histogram."""
    found = trace_id()
    return {"trace_id": found} if found else None
