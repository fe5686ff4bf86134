"""What Prometheus sees: requests, jobs by state, stages, refusals, scores."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from qsm_ai.jobs.records import State
from qsm_ai.jobs.store import JobStore
from qsm_ai.reconstruction.options import METHODS
from qsm_ai.reconstruction.stages import STAGES

BUCKETS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600)
"""Seconds: from a tenth to ten minutes."""


class JobsCollector(Collector):
    """Asks the database when Prometheus asks, so that every backend process tells the same."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Jobs by state and the age of the oldest queued one."""
        jobs = GaugeMetricFamily("qsm_jobs", "Jobs on record, by state.", labels=["state"])
        for state, count in self._store.counts().items():
            jobs.add_metric([state.value], count)
        yield jobs
        queued_at = self._store.oldest_queued()
        age = 0.0 if queued_at is None else max(0.0, self._store.now() - queued_at)
        yield GaugeMetricFamily(
            "qsm_queue_oldest_seconds", "For how long the oldest queued job waits.", value=age
        )
        yield GaugeMetricFamily(
            "qsm_queue_depth", "Jobs that wait.", value=self._store.counts()[State.QUEUED]
        )

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: the database need not be there when the collector is registered."""
        return iter(())


class Metrics:
    """The metrics of one application; the worker reports to it as its ``Observer``."""

    def __init__(self, store: JobStore) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(JobsCollector(store))
        self.stages = Histogram(
            "qsm_stage_duration_seconds",
            "Duration of a stage of the reconstruction.",
            ["stage", "method"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.jobs = Histogram(
            "qsm_job_duration_seconds",
            "Duration of a job from its start to its end.",
            ["method", "state"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.problems = Counter(
            "qsm_job_problems", "Jobs that failed, by problem.", ["code"], registry=self.registry
        )
        self.refusals = Counter(
            "qsm_input_refusals", "Uploads refused, by reason.", ["code"], registry=self.registry
        )
        self.uploads = Counter("qsm_upload_bytes", "Bytes of accepted uploads.", registry=self.registry)
        self.scores = Histogram(
            "qsm_physics_score",
            "Scores of the physics check of finished jobs.",
            ["score"],
            buckets=(0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2, 5),
            registry=self.registry,
        )
        # Known labels exist from the start: a rate over a series that appears with its first event misses it.
        for method in METHODS:
            for stage in STAGES:
                self.stages.labels(stage.name, method)

    def stage_done(self, stage: str, method: str, seconds: float) -> None:
        """A stage of a finished job took this long."""
        self.stages.labels(stage, method).observe(seconds)

    def job_ended(self, state: State, method: str, seconds: float, problem: str | None) -> None:
        """A job ended."""
        self.jobs.labels(method, state.value).observe(seconds)
        if problem is not None:
            self.problems.labels(problem).inc()

    def score(self, name: str, value: float) -> None:
        """A score of a finished job."""
        self.scores.labels(name).observe(value)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
