"""What users feel: rate, errors, duration of requests and jobs, and whether every tier is there."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from panels import BYTES, COUNT, PER_SECOND, RATIO, SECONDS, board, curves, number, quantile, rate

REFUSED = 'http_requests_total{status=~"4.."}'
FAILED = 'http_requests_total{status=~"5.."}'


def overview() -> builders.Dashboard:
    """The first place to look."""
    here = board(
        "qsm-overview", "QSM-AI: service overview", "Is the service well, and if not, where to look."
    )
    return (
        here.with_panel(
            number("Backends", 'sum(up{job="fastapi-be"})', COUNT, "That answer.", limit=1, low_is_bad=True)
        )
        .with_panel(
            number(
                "Triton", 'sum(up{job="triton-is"})', COUNT, "Servers that answer.", limit=1, low_is_bad=True
            )
        )
        .with_panel(number("Waiting scans", "max(qsm_queue_depth)", COUNT, "Jobs in the queue."))
        .with_panel(
            number(
                "Oldest waits", "max(qsm_queue_oldest_seconds)", SECONDS, "Of the queue's head.", limit=120
            )
        )
        .with_panel(
            number(
                "P99 to the map",
                "qsm:job_end_to_end_seconds:p99",
                SECONDS,
                "From acceptance to the map, 10 min.",
            )
        )
        .with_panel(
            number(
                "Errors, 1 h",
                "max(qsm:errors:ratio_rate1h)",
                RATIO,
                "The worse of requests and jobs.",
                limit=0.01,
            )
        )
        .with_row(builders.Row("Requests"))
        .with_panel(
            curves(
                "Rate",
                [(rate("http_requests_total", "handler"), "{{handler}}")],
                PER_SECOND,
                "Requests by route; probes and event streams left out.",
                stacked=True,
            )
        )
        .with_panel(
            curves(
                "Errors",
                [
                    (f"({rate(FAILED)} or vector(0)) / {rate('http_requests_total')}", "5xx"),
                    (f"({rate(REFUSED)} or vector(0)) / {rate('http_requests_total')}", "4xx"),
                ],
                RATIO,
                "Share answered with an error of ours (5xx), or refused (4xx).",
            )
        )
        .with_panel(
            curves(
                "Duration",
                [
                    (quantile(0.5, "http_request_duration_seconds"), "P50"),
                    (quantile(0.95, "http_request_duration_seconds"), "P95"),
                    (quantile(0.99, "http_request_duration_seconds"), "P99"),
                ],
                SECONDS,
                "Until a request was answered, uploads included.",
            )
        )
        .with_row(builders.Row("Jobs"))
        .with_panel(
            curves(
                "Ended",
                [(rate("qsm_job_duration_seconds_count", "state"), "{{state}}")],
                PER_SECOND,
                "Jobs that ended, by state.",
                stacked=True,
            )
        )
        .with_panel(
            curves(
                "Refused and failed",
                [
                    (rate("qsm_input_refusals_total", "code"), "refused: {{code}}"),
                    (rate("qsm_job_problems_total", "code"), "failed: {{code}}"),
                    (rate("qsm_access_denials_total", "code"), "denied: {{code}}"),
                ],
                PER_SECOND,
                "Uploads refused, jobs failed, requests of those who may not.",
            )
        )
        .with_panel(
            curves(
                "Time to the map",
                [
                    (quantile(0.5, "qsm_job_end_to_end_seconds"), "P50"),
                    (quantile(0.95, "qsm_job_end_to_end_seconds"), "P95"),
                    (quantile(0.99, "qsm_job_end_to_end_seconds"), "P99"),
                    ("qsm:threshold:job_p99_seconds", "limit of P99"),
                ],
                SECONDS,
                "From the acceptance of a scan to its map, waiting included.",
            )
        )
        .with_row(builders.Row("What it stands on"))
        .with_panel(
            curves(
                "Storage and database, P95",
                [
                    (quantile(0.95, "qsm_storage_duration_seconds", "operation"), "storage {{operation}}"),
                    (quantile(0.95, "qsm_database_duration_seconds", "operation"), "database {{operation}}"),
                ],
                SECONDS,
                "Duration of single calls.",
            )
        )
        .with_panel(
            curves(
                "Storage and database errors",
                [
                    (f"{rate('qsm_storage_errors_total')} or vector(0)", "storage"),
                    (f"{rate('qsm_database_errors_total')} or vector(0)", "database"),
                    (f"{rate('qsm_retention_sweep_errors_total')} or vector(0)", "sweep of old files"),
                ],
                PER_SECOND,
                "Calls that failed.",
            )
        )
        .with_panel(
            curves(
                "Memory",
                [("process_resident_memory_bytes", "{{job}} {{instance}}")],
                BYTES,
                "Held by each process.",
            )
        )
        .with_panel(
            curves(
                "Disk free",
                [("qsm_data_free_bytes / qsm_data_size_bytes", "{{instance}}")],
                RATIO,
                "Of the file system with the data folder.",
                most=1,
            )
        )
        .with_panel(
            curves(
                "Page",
                [(rate("qsm_page_runs_total", "page"), "{{page}}")],
                PER_SECOND,
                "Times that a page was drawn.",
            )
        )
        .with_panel(
            curves(
                "Certificate",
                [("(probe_ssl_earliest_cert_expiry - time()) / 86400", "{{instance}}")],
                "d",
                "Days until the first certificate in the chain ends.",
            )
        )
    )
