"""The inference server: throughput, batches, its queue against its computing, and the GPU."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from panels import BYTES, COUNT, PER_SECOND, RATIO, SECONDS, WATT, board, curves, number, quantile, rate

PATCHES = rate("nv_inference_count")


def per_patch(counter: str) -> str:
    """Seconds that a patch spends in one part of its way, from a counter in µs."""
    return f"{rate(counter)} / {PATCHES} / 1e6"


def triton() -> builders.Dashboard:
    """How the network is served."""
    here = board("qsm-triton", "QSM-AI: Triton", "Throughput, batches, queue against compute, and the GPU.")
    return (
        here.with_panel(
            number("Servers", 'sum(up{job="triton-is"})', COUNT, "That answer.", limit=1, low_is_bad=True)
        )
        .with_panel(number("Patches a second", PATCHES, PER_SECOND, "Inferred."))
        .with_panel(number("Batch", "qsm:triton_batch_size:mean", COUNT, "Mean patches in a batch."))
        .with_panel(
            number("Waiting", "sum(nv_inference_pending_request_count)", COUNT, "Requests in its queue.")
        )
        .with_panel(number("GPU", "max(nv_gpu_utilization)", RATIO, "The fullest one.", limit=0.95))
        .with_panel(
            number(
                "Models seen by backends",
                "min(qsm_triton_up)",
                COUNT,
                "1: loaded and answering.",
                limit=1,
                low_is_bad=True,
            )
        )
        .with_row(builders.Row("Work"))
        .with_panel(
            curves(
                "Throughput",
                [(rate("nv_inference_count", "instance"), "{{instance}}")],
                PER_SECOND,
                "Patches a second of each server.",
                stacked=True,
            )
        )
        .with_panel(
            curves(
                "Batch size",
                [
                    (f"{PATCHES} / {rate('nv_inference_exec_count')}", "mean"),
                    ("sum(nv_inference_pending_request_count)", "waiting"),
                ],
                COUNT,
                "Near 1 with many waiting: batching is off.",
            )
        )
        .with_panel(
            curves(
                "Failures",
                [
                    (rate("nv_inference_request_failure", "reason"), "Triton: {{reason}}"),
                    (rate('qsm_triton_requests_total{outcome!="ok"}', "outcome"), "client: {{outcome}}"),
                ],
                PER_SECOND,
                "As Triton counts them, and as the backend sees them.",
            )
        )
        .with_row(builders.Row("Where a patch's time goes"))
        .with_panel(
            curves(
                "Queue against compute",
                [
                    (per_patch("nv_inference_queue_duration_us"), "queue"),
                    (per_patch("nv_inference_compute_input_duration_us"), "taking inputs"),
                    (per_patch("nv_inference_compute_infer_duration_us"), "network"),
                    (per_patch("nv_inference_compute_output_duration_us"), "giving outputs"),
                ],
                SECONDS,
                "Seconds per patch.",
                width=12,
                stacked=True,
            )
        )
        .with_panel(
            curves(
                "As the backend sees it",
                [
                    (quantile(0.5, "qsm_triton_request_duration_seconds"), "P50"),
                    (quantile(0.95, "qsm_triton_request_duration_seconds"), "P95"),
                    ("qsm:triton_request_duration_seconds:p99", "P99"),
                    ("qsm:threshold:inference_p99_seconds", "limit of P99"),
                ],
                SECONDS,
                "Until Triton answered for one patch, the way included.",
                width=12,
            )
        )
        .with_row(builders.Row("Machine"))
        .with_panel(
            curves(
                "GPU use",
                [("nv_gpu_utilization", "{{instance}} {{gpu_uuid}}")],
                RATIO,
                "Of each GPU.",
                most=1,
            )
        )
        .with_panel(
            curves(
                "GPU memory",
                [
                    ("nv_gpu_memory_used_bytes", "{{gpu_uuid}} used"),
                    ("nv_gpu_memory_total_bytes", "{{gpu_uuid}} there"),
                ],
                BYTES,
                "Of each GPU.",
            )
        )
        .with_panel(curves("GPU power", [("nv_gpu_power_usage", "{{gpu_uuid}}")], WATT, "Drawn."))
        .with_panel(
            curves("CPU use", [("nv_cpu_utilization", "{{instance}}")], RATIO, "Of Triton's machine.", most=1)
        )
        .with_panel(
            curves(
                "Memory",
                [
                    ("nv_cpu_memory_used_bytes", "{{instance}} used"),
                    ("nv_cpu_memory_total_bytes", "{{instance}} there"),
                ],
                BYTES,
                "Of Triton's machine.",
            )
        )
        .with_panel(
            curves(
                "Networks",
                [
                    (
                        "count by (weights, precision, runtime) (qsm_network_info)",
                        "{{weights}} {{precision}} {{runtime}}",
                    ),
                ],
                COUNT,
                "Servers by the network that they run; more than one line is a rollout in the middle.",
            )
        )
    )
