"""Service levels: what was promised, how much of the budget is left, how fast it goes."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from panels import COUNT, RATIO, SECONDS, board, curves, number

BURN = "1 uses the month's budget up in a month; 14.4 (1h and 5m) or 6 (6h and 30m) is a page."
OVER = "qsm:job_end_to_end_seconds:p99 / on () qsm:threshold:job_p99_seconds"
NETWORK_OVER = "qsm:triton_request_duration_seconds:p99 / on () qsm:threshold:inference_p99_seconds"
LEFT = "1 - qsm:errors:ratio_rate3d / on () group_left () qsm:threshold:error_budget"


def levels() -> builders.Dashboard:
    """docs/slo.md as curves."""
    here = board("qsm-slo", "QSM-AI: service levels", "What docs/slo.md promises, and how it stands.")
    windows = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
    speed = " / on () group_left () qsm:threshold:error_budget"
    return (
        here.with_panel(
            number(
                "Requests served, 3 d",
                '1 - qsm:errors:ratio_rate3d{of="requests"}',
                RATIO,
                "Objective: 99 %.",
                limit=0.99,
                low_is_bad=True,
            )
        )
        .with_panel(
            number(
                "Jobs done, 3 d",
                '1 - qsm:errors:ratio_rate3d{of="jobs"}',
                RATIO,
                "Objective: 99 %.",
                limit=0.99,
                low_is_bad=True,
            )
        )
        .with_panel(
            number(
                "P99 to the map over its limit", OVER, RATIO, "Above 100 % the promise is broken.", limit=1
            )
        )
        .with_panel(
            number(
                "P99 of a patch over its limit",
                NETWORK_OVER,
                RATIO,
                "Until Triton answered; above 100 % the promise is broken.",
                limit=1,
            )
        )
        .with_panel(number("Error budget", "max(qsm:threshold:error_budget)", RATIO, "May fail."))
        .with_panel(
            number("Limit of P99", "max(qsm:threshold:job_p99_seconds)", SECONDS, "From acceptance to map.")
        )
        .with_panel(
            number("Failures, 1 d", "sum(qsm:errors:increase1d)", COUNT, "Requests and jobs together.")
        )
        .with_row(builders.Row("How fast the budget goes"))
        .with_panel(
            curves(
                "Burn rate, requests",
                [(f'qsm:errors:ratio_rate{w}{{of="requests"}}{speed}', w) for w in windows],
                COUNT,
                BURN,
                width=12,
            )
        )
        .with_panel(
            curves(
                "Burn rate, jobs",
                [(f'qsm:errors:ratio_rate{w}{{of="jobs"}}{speed}', w) for w in windows],
                COUNT,
                BURN,
                width=12,
            )
        )
        .with_panel(
            curves(
                "Budget left at the rate of three days",
                [(LEFT, "{{of}}")],
                RATIO,
                "Below zero the promise will not hold if it goes on like this.",
                width=12,
            )
        )
        .with_panel(
            curves(
                "Time to the map against its limit",
                [
                    ("qsm:job_end_to_end_seconds:p99", "P99"),
                    ("qsm:job_end_to_end_seconds:p50", "P50"),
                    ("qsm:threshold:job_p99_seconds", "limit of P99"),
                ],
                SECONDS,
                "From acceptance to the map, over ten minutes.",
                width=12,
            )
        )
    )
