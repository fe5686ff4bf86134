"""Queue, workers, stages and the quality of the maps."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from panels import COUNT, PER_SECOND, RATIO, SECONDS, board, curves, number, quantile, rate


def jobs() -> builders.Dashboard:
    """Where the time of a job goes, and what came out."""
    here = board("qsm-jobs", "QSM-AI: jobs and stages", "Where the time of a job goes, and what came out.")
    return (
        here.with_panel(number("Queued", 'max(qsm_jobs{state="queued"})', COUNT, "Jobs that wait."))
        .with_panel(number("Running", 'max(qsm_jobs{state="running"})', COUNT, "Jobs being computed."))
        .with_panel(
            number(
                "Workers busy", "sum(qsm_worker_busy) / sum(qsm_worker_slots)", RATIO, "Share of all slots."
            )
        )
        .with_panel(
            number("Held back", "max(qsm_circuit_open)", COUNT, "1: Triton does not answer.", limit=1)
        )
        .with_panel(
            number(
                "Last look at the queue",
                "time() - min(qsm_worker_heartbeat_timestamp_seconds > 0)",
                SECONDS,
                "Of the worker that is silent for longest.",
                limit=60,
            )
        )
        .with_panel(
            number(
                "Last sweep",
                "time() - max(qsm_retention_sweep_success_timestamp_seconds)",
                SECONDS,
                "Since old files were swept.",
                limit=3600,
            )
        )
        .with_row(builders.Row("Queue"))
        .with_panel(
            curves(
                "Jobs on record",
                [("max by (state) (qsm_jobs)", "{{state}}")],
                COUNT,
                "By state.",
                stacked=True,
            )
        )
        .with_panel(
            curves(
                "Waiting",
                [
                    (quantile(0.5, "qsm_job_wait_seconds"), "P50"),
                    (quantile(0.95, "qsm_job_wait_seconds"), "P95"),
                    ("max(qsm_queue_oldest_seconds)", "oldest now"),
                ],
                SECONDS,
                "Time in the queue.",
            )
        )
        .with_panel(
            curves(
                "Slots",
                [("sum(qsm_worker_busy)", "busy"), ("sum(qsm_worker_slots)", "there")],
                COUNT,
                "Jobs computed at once, and how many could be.",
            )
        )
        .with_row(builders.Row("Stages"))
        .with_panel(
            curves(
                "Stages, P95",
                [("qsm:stage_duration_seconds:p95", "{{stage}}")],
                SECONDS,
                "Over ten minutes; what is above the others is what to look at.",
                width=12,
            )
        )
        .with_panel(
            curves(
                "Share of the time",
                [(rate("qsm_stage_duration_seconds_sum", "stage"), "{{stage}}")],
                SECONDS,
                "Seconds of each stage for each second of the clock.",
                width=12,
                stacked=True,
            )
        )
        .with_panel(
            curves(
                "Jobs by method, P95",
                [
                    (
                        quantile(0.95, "qsm_job_duration_seconds", "method", matching='{state="done"}'),
                        "{{method}}",
                    )
                ],
                SECONDS,
                "From start to end.",
                width=12,
            )
        )
        .with_panel(
            curves(
                "Problems",
                [(rate("qsm_job_problems_total", "code"), "{{code}}")],
                PER_SECOND,
                "Jobs that failed, by problem.",
                width=12,
                stacked=True,
            )
        )
        .with_row(builders.Row("Maps"))
        .with_panel(
            curves(
                "Scores, median",
                [(quantile(0.5, "qsm_physics_score", "score"), "{{score}}")],
                COUNT,
                "Of the physics check. A sudden change with a release is a reason to roll back.",
                width=12,
            )
        )
        .with_panel(
            curves(
                "Refusals",
                [(rate("qsm_input_refusals_total", "code"), "{{code}}")],
                PER_SECOND,
                "Uploads that were refused, by reason.",
                width=12,
                stacked=True,
            )
        )
    )
