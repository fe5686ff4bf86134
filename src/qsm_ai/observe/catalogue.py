"""The table of metrics: what each tier exposes, in which unit, with which labels, and what it tells.

The metrics of ours are made from it (``make``), ``docs/metrics.md`` is written from it, and a test compares
both with what running tiers really expose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Kind = Literal["counter", "gauge", "histogram", "summary"]
Tier = Literal["backend", "frontend", "triton"]

DURATIONS = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 7.5, 10, 15, 20, 30, 60, 120, 300, 600)
"""Seconds, of jobs, stages and requests: fine around 3 s, the limit of an alert, up to ten minutes."""

CALLS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds, of single calls to storage and database."""

SCORES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2, 5)

METHOD = "method"
CODE = "code"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes
    ----------
    name : str
        As the text format shows it, without ``_bucket``, ``_sum`` and ``_count``; counters end in ``_total``.
    kind : str
    tier : str
        Which tier exposes it.
    help : str
        One sentence.
    labels : tuple of str
    source : str
        Whose it is: ``qsm-ai``, or the library or server that makes it.
    buckets : tuple of float
        Of a histogram.
    always : bool
        Whether it is there before anything has happened, and on every machine.
    """

    name: str
    kind: Kind
    tier: Tier
    help: str
    labels: tuple[str, ...] = ()
    source: str = "qsm-ai"
    buckets: tuple[float, ...] = ()
    always: bool = True


def _backend() -> tuple[Metric, ...]:
    def metric(name: str, kind: Kind, text: str, *labels: str, buckets: tuple[float, ...] = ()) -> Metric:
        return Metric(name, kind, "backend", text, labels, buckets=buckets)

    return (
        metric("http_requests_total", "counter", "Requests answered.", "method", "handler", "status"),
        metric(
            "http_request_duration_seconds", "histogram", "Time until a request was answered, event streams"
            " left out; with the trace id as exemplar.", "method", "handler", buckets=DURATIONS,
        ),
        metric("qsm_problems_total", "counter", "Requests answered with a problem document.", CODE, "status"),
        metric("qsm_input_refusals_total", "counter", "Uploads refused.", CODE),
        metric("qsm_access_denials_total", "counter", "Requests of who may not, or asks too much.", CODE),
        metric(
            "qsm_rate_limit_alone", "gauge", "Whether requests are counted by this process alone because"
            " Redis does not answer.",
        ),
        metric("qsm_upload_bytes_total", "counter", "Bytes of accepted uploads."),
        metric("qsm_jobs", "gauge", "Jobs on record.", "state"),
        metric("qsm_queue_depth", "gauge", "Jobs that wait."),
        metric("qsm_queue_oldest_seconds", "gauge", "For how long the oldest waiting job waits."),
        metric(
            "qsm_job_wait_seconds", "histogram", "Time that a job waited in the queue.", METHOD,
            buckets=DURATIONS,
        ),
        metric(
            "qsm_job_duration_seconds", "histogram", "Duration of a job from its start to its end; with the"
            " trace id as exemplar.", METHOD, "state", buckets=DURATIONS,
        ),
        metric(
            "qsm_job_end_to_end_seconds", "histogram", "Time from the acceptance of a scan to its map,"
            " waiting included; with the trace id as exemplar.", METHOD, buckets=DURATIONS,
        ),
        metric("qsm_job_problems_total", "counter", "Jobs that failed.", CODE),
        metric(
            "qsm_stage_duration_seconds", "histogram", "Duration of a stage of finished jobs.", "stage",
            METHOD, buckets=DURATIONS,
        ),
        metric(
            "qsm_physics_score", "histogram", "Scores of the physics check of finished jobs.", "score",
            buckets=SCORES,
        ),
        metric(
            "qsm_storage_duration_seconds", "histogram", "Duration of a call to the object store.",
            "operation", buckets=CALLS,
        ),
        metric(
            "qsm_storage_errors_total", "counter", "Calls to the object store that failed.", "operation",
        ),
        metric(
            "qsm_database_duration_seconds", "histogram", "Duration of a statement on the database.",
            "operation", buckets=CALLS,
        ),
        metric("qsm_database_errors_total", "counter", "Database statements that failed.", "operation"),
        metric(
            "qsm_triton_requests_total", "counter", "Requests to Triton as the client sees them, retries"
            " counted one by one.", "outcome",
        ),
        metric(
            "qsm_triton_request_duration_seconds", "histogram", "Time until Triton answered for one patch,"
            " its queue and the way included.", buckets=DURATIONS,
        ),
        metric("qsm_triton_up", "gauge", "Whether Triton answered with its model loaded when last asked."),
        metric(
            "qsm_circuit_open", "gauge", "Whether jobs for the network are held back because Triton does"
            " not answer.",
        ),
        metric("qsm_worker_slots", "gauge", "Jobs that this process computes at once."),
        metric("qsm_worker_busy", "gauge", "Jobs that this process computes now."),
        metric(
            "qsm_worker_heartbeat_timestamp_seconds", "gauge", "When this process's worker last looked at"
            " its queue; 0 before, or without a worker.",
        ),
        metric(
            "qsm_retention_sweep_success_timestamp_seconds", "gauge", "When files past their time were last"
            " swept without an error; the start of the process before.",
        ),
        metric("qsm_retention_sweep_errors_total", "counter", "Sweeps of old files that failed."),
        metric("qsm_retention_removed_total", "counter", "Jobs and uploads removed because of their age."),
        metric("qsm_data_free_bytes", "gauge", "Space left where the data folder lies."),
        metric("qsm_data_size_bytes", "gauge", "Size of the file system on which the data folder lies."),
        metric("qsm_build_info", "gauge", "Always 1; the version is its label.", "version"),
    )  # fmt: skip


def _frontend() -> tuple[Metric, ...]:
    def metric(
        name: str,
        kind: Kind,
        text: str,
        *labels: str,
        source: str = "qsm-ai",
        buckets: tuple[float, ...] = (),
        always: bool = True,
    ) -> Metric:
        return Metric(name, kind, "frontend", text, labels, source, buckets, always)

    return (
        metric("qsm_page_runs_total", "counter", "Times that a page was drawn.", "page"),
        metric("qsm_page_errors_total", "counter", "Times that drawing a page failed.", "page"),
        metric(
            "qsm_page_duration_seconds", "histogram", "Time to draw a page, calls to the backend included.",
            "page", buckets=CALLS,
        ),
        metric("qsm_page_calls_total", "counter", "Calls to the backend.", "operation", "outcome"),
        metric(
            "qsm_page_call_duration_seconds", "histogram", "Time until the backend answered the page; with"
            " the trace id as exemplar.", "operation", buckets=DURATIONS,
        ),
        metric("streamlit_active_sessions", "gauge", "Visitors connected now.", source="Streamlit"),
        metric(
            "streamlit_session_events_total", "counter", "Visitors that came, went, or came back.", "type",
            source="Streamlit",
        ),
        metric(
            "streamlit_session_duration_seconds_total", "counter", "Seconds that visitors stayed, of those"
            " who left.", source="Streamlit",
        ),
        metric("qsm_build_info", "gauge", "Always 1; the version is its label.", "version"),
    )  # fmt: skip


def _process(tier: Tier) -> tuple[Metric, ...]:
    def metric(name: str, kind: Kind, text: str, *labels: str) -> Metric:
        return Metric(name, kind, tier, text, labels, "prometheus_client")

    return (
        metric("process_cpu_seconds_total", "counter", "Processor time of this process."),
        metric("process_resident_memory_bytes", "gauge", "Memory that this process holds."),
        metric("process_virtual_memory_bytes", "gauge", "Address space of this process."),
        metric("process_open_fds", "gauge", "Open files and connections."),
        metric("process_max_fds", "gauge", "Most open files and connections allowed."),
        metric("process_start_time_seconds", "gauge", "When this process began."),
        metric("python_info", "gauge", "Always 1; the interpreter is its labels.",
               "implementation", "major", "minor", "patchlevel", "version"),
    )  # fmt: skip


def _triton() -> tuple[Metric, ...]:
    model = ("model", "version")

    def metric(name: str, kind: Kind, text: str, *labels: str, always: bool = True) -> Metric:
        return Metric(name, kind, "triton", text, labels, "Triton", always=always)

    gpu = ("gpu_uuid",)
    return (
        metric("nv_inference_request_success", "counter", "Requests answered.", *model),
        metric("nv_inference_request_failure", "counter", "Requests that failed.", *model, "reason"),
        metric("nv_inference_count", "counter", "Patches inferred.", *model),
        metric("nv_inference_exec_count", "counter", "Batches inferred; patches over batches is the batch"
               " size.", *model),
        metric("nv_inference_request_duration_us", "counter", "Time of requests from coming in to going"
               " out, µs.", *model),
        metric("nv_inference_queue_duration_us", "counter", "Time of requests in the queue, µs.", *model),
        metric("nv_inference_compute_input_duration_us", "counter", "Time for taking inputs, µs.", *model),
        metric("nv_inference_compute_infer_duration_us", "counter", "Time of the network, µs.", *model),
        metric("nv_inference_compute_output_duration_us", "counter", "Time for giving outputs, µs.", *model),
        metric("nv_inference_pending_request_count", "gauge", "Requests that wait in the queue.", *model),
        metric("nv_pinned_memory_pool_total_bytes", "gauge", "Size of the pool of pinned memory."),
        metric("nv_pinned_memory_pool_used_bytes", "gauge", "Pinned memory in use."),
        metric("nv_cpu_utilization", "gauge", "Use of the processors, 0 to 1."),
        metric("nv_cpu_memory_total_bytes", "gauge", "Memory of the machine."),
        metric("nv_cpu_memory_used_bytes", "gauge", "Memory of the machine in use."),
        metric("nv_gpu_utilization", "gauge", "Use of the GPU, 0 to 1.", *gpu, always=False),
        metric("nv_gpu_memory_total_bytes", "gauge", "Memory of the GPU.", *gpu, always=False),
        metric("nv_gpu_memory_used_bytes", "gauge", "Memory of the GPU in use.", *gpu, always=False),
        metric("nv_gpu_power_usage", "gauge", "Power that the GPU draws, W.", *gpu, always=False),
        metric("nv_gpu_power_limit", "gauge", "Power that the GPU may draw, W.", *gpu, always=False),
        metric("nv_energy_consumption", "counter", "Energy that the GPU has used, J.", *gpu, always=False),
        Metric("qsm_network_info", "gauge", "triton", "Always 1; runtime, precision and digest of the weights"
               " are its labels. The CPU's backend alone says it.",
               ("model", "precision", "runtime", "version", "weights")),
    )  # fmt: skip


METRICS: tuple[Metric, ...] = (
    *_backend(),
    *_process("backend"),
    *_frontend(),
    *_process("frontend"),
    *_triton(),
)


def of(tier: Tier) -> dict[str, Metric]:
    """The metrics of a tier by name."""
    return {metric.name: metric for metric in METRICS if metric.tier == tier}


def make(metric: Metric, registry: CollectorRegistry) -> Any:
    """The Prometheus client's object for a metric of ours.

    Parameters
    ----------
    metric : Metric
    registry : CollectorRegistry

    Returns
    -------
    Counter, Gauge or Histogram

    Raises
    ------
    ValueError
        For other kinds.
    """
    match metric.kind:
        case "counter":
            return Counter(metric.name, metric.help, metric.labels, registry=registry)
        case "gauge":
            return Gauge(metric.name, metric.help, metric.labels, registry=registry)
        case "histogram":
            return Histogram(
                metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry
            )
    raise ValueError(f"there is no way to make a {metric.kind}")
