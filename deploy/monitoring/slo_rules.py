"""The rules of the service-level objectives, window by window; `make docs` writes, a test keeps them current.

docs/slo.md says what is promised. An alert looks at two windows: the long one says that it matters, the short
one that it still happens (multi-window, multi-burn-rate alerting).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
TARGET = HERE / "prometheus/rules/slo.yml"
HEAD = (
    "# Made by `make docs` from deploy/monitoring/slo_rules.py; change it there. The promise: docs/slo.md.\n"
)
LEAST = 2
"""Events that must have gone wrong in the long window before anybody is told: one alone is an anecdote."""


@dataclass(frozen=True)
class Indicator:
    """What is counted: events that went wrong, out of all.

    Attributes
    ----------
    of : value of the label ``of``, and the plural in the alert's sentence
    bad, all : selectors of counters
    """

    of: str
    bad: str
    all: str


@dataclass(frozen=True)
class Burn:
    """How much faster than allowed the budget may go before an alert.

    Attributes
    ----------
    factor : of the allowed rate
    long, short : windows
    """

    factor: float
    long: str
    short: str


INDICATORS = (
    Indicator("requests", 'http_requests_total{status=~"5.."}', "http_requests_total"),
    Indicator(
        "jobs",
        'qsm_job_duration_seconds_count{state="failed"}',
        'qsm_job_duration_seconds_count{state=~"done|failed"}',
    ),
)
FAST = (Burn(14.4, "1h", "5m"), Burn(6, "6h", "30m"))
SLOW = (Burn(3, "1d", "2h"), Burn(1, "3d", "6h"))


class _Plain(yaml.SafeDumper):
    """Writes what stands twice twice."""

    def ignore_aliases(self, data: object) -> bool:
        """Nothing is an alias."""
        return True


def windows() -> list[str]:
    """Every window once, shortest first."""
    seconds = {"m": 60, "h": 3600, "d": 86400}
    used = {window for burn in (*FAST, *SLOW) for window in (burn.long, burn.short)}
    return sorted(used, key=lambda window: int(window[:-1]) * seconds[window[-1]])


def _over(selector: str, function: str, window: str) -> str:
    return f"sum({function}({selector}[{window}]))"


def recordings() -> list[dict[str, Any]]:
    """Share and number of bad events by window."""
    rules: list[dict[str, Any]] = []
    for indicator in INDICATORS:
        labels = {"of": indicator.of}
        for window in windows():
            bad = f"({_over(indicator.bad, 'rate', window)} or vector(0))"
            ratio = f"{bad} / {_over(indicator.all, 'rate', window)}"
            rules.append({"record": f"qsm:errors:ratio_rate{window}", "labels": labels, "expr": ratio})
        for window in (burn.long for burn in (*FAST, *SLOW)):
            count = f"{_over(indicator.bad, 'increase', window)} or vector(0)"
            rules.append({"record": f"qsm:errors:increase{window}", "labels": labels, "expr": count})
    return rules


def burns(*speeds: Burn) -> str:
    """True where the budget goes too fast at one of these speeds; its value is the share of bad events."""

    def burning(burn: Burn) -> str:
        limit = f"> on () group_left () ({burn.factor:g} * qsm:threshold:error_budget)"
        return (
            f"(qsm:errors:ratio_rate{burn.long} {limit} and qsm:errors:ratio_rate{burn.short} {limit}"
            f" and qsm:errors:increase{burn.long} > {LEAST})"
        )

    return " or ".join(map(burning, speeds))


def _alert(name: str, severity: str, speeds: tuple[Burn, ...], description: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": burns(*speeds),
        "labels": {"severity": severity},
        "annotations": {
            "summary": "{{ $value | humanizePercentage }} of {{ $labels.of }} fail",
            "description": description,
            "runbook_url": f"docs/runbooks/{name}.md",
        },
    }


def groups() -> dict[str, Any]:
    """The file's content."""
    fast = "At this rate a month's error budget is gone within five days."
    slow = "At this rate the month's error budget will not last."
    return {
        "groups": [
            {"name": "qsm-slo-recording", "rules": recordings()},
            {
                "name": "qsm-slo-alerts",
                "rules": [
                    _alert("QsmErrorBudgetBurnsFast", "page", FAST, fast),
                    _alert("QsmErrorBudgetBurns", "ticket", SLOW, slow),
                ],
            },
        ]
    }


def text() -> str:
    """The file."""
    return HEAD + yaml.dump(groups(), Dumper=_Plain, sort_keys=False, width=120)


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
    print(TARGET.relative_to(HERE.parents[1]))
