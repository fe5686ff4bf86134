"""What stands around the service, where it can be reached: the GPU, and the way of an alert."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx

from qsm_ai.doctor.findings import Finding, ok, skipped, warning, wrong

TEST_ALERT = "QsmDoctorTest"
DELIVERED_WITHIN = 30.0
"""Seconds."""

_SERIES = re.compile(r"^(\w+)(?:\{[^}]*\})? (\S+)", re.MULTILINE)


def gpu(metrics: str | None) -> Finding:
    """Whether Triton has a GPU, and how full it is.

    Parameters
    ----------
    metrics : str
        Address of Triton's metrics; ``None`` where it is not known.
    """
    name = "gpu"
    if metrics is None:
        return skipped(
            name, "Triton's metrics were not named.", "Give --triton-metrics, from where they can be reached."
        )
    try:
        answer = httpx.get(metrics, timeout=10).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL):
        return wrong(
            name,
            "Triton's metrics do not answer.",
            "Check the address, and read docs/runbooks/QsmTritonDown.md.",
        )
    told = _SERIES.findall(answer.text)
    if "nv_inference_count" not in dict(told):
        return wrong(name, "What answers are not Triton's metrics.", "Give its port for metrics (8002).")
    series: dict[str, list[float]] = {}
    for key, value in told:
        series.setdefault(key, []).append(float(value))
    use = series.get("nv_gpu_utilization")
    if not use:
        return warning(
            name,
            "Triton sees no GPU; the network runs on the CPU.",
            "Right for a deployment on CPUs. Otherwise check the driver and the container toolkit.",
            gpus=0,
        )
    total, used = (
        sum(series.get("nv_gpu_memory_total_bytes", [0])),
        sum(series.get("nv_gpu_memory_used_bytes", [0])),
    )
    facts = {
        "gpus": len(use),
        "utilization": round(max(use), 3),
        "memory_used": round(used / total, 3) if total else None,
    }
    return ok(name, f"Triton sees {len(use)} GPU(s); the fullest is used to {max(use):.0%}.", **facts)


def alerts(address: str | None, show: Callable[[str], None] = lambda _: None) -> Iterator[Finding]:
    """Send a test alert and see whether Alertmanager hands it on.

    Parameters
    ----------
    address : str
        Of Alertmanager; ``None`` where it is not known.
    show : callable
        Told what is being done.

    Yields
    ------
    Finding
    """
    name = "alerts"
    if address is None:
        yield skipped(name, "Alertmanager was not named.", "Give --alertmanager to send a test alert.")
        return
    try:
        with httpx.Client(base_url=address.rstrip("/"), timeout=10) as manager:
            before = _deliveries(manager)
            _send(manager)
            show("Waiting for the test alert to be delivered")
            yield _delivery(manager, before)
    except (httpx.HTTPError, httpx.InvalidURL):
        yield wrong(
            name,
            "Alertmanager does not answer.",
            "Check the address (its port is 9093), and whether it runs.",
        )


def _send(manager: httpx.Client) -> None:
    # Over in a minute, by itself.
    ends = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    alert = {
        "labels": {
            "alertname": TEST_ALERT,
            "severity": "ticket",
            "test": datetime.now(UTC).strftime("%H%M%S%f"),
        },
        "annotations": {
            "summary": "This is a test by qsm-ai doctor",
            "description": "Nothing is wrong. Whoever reads this would have been told of a real alert.",
            "runbook_url": "docs/runbook.md",
        },
        "endsAt": ends,
    }
    manager.post("/api/v2/alerts", json=[alert]).raise_for_status()


def _deliveries(manager: httpx.Client) -> dict[str, tuple[float, float]]:
    """Messages tried and failed so far, by the kind of receiver."""
    text = manager.get("/metrics").raise_for_status().text
    found: dict[str, tuple[float, float]] = {}
    for kind, number in (("total", 0), ("failed_total", 1)):
        pattern = rf'^alertmanager_notifications_{kind}\{{[^}}]*integration="(\w+)"[^}}]*\}} (\S+)$'
        for integration, value in re.findall(pattern, text, re.MULTILINE):
            both = list(found.get(integration, (0.0, 0.0)))
            both[number] += float(value)
            found[integration] = (both[0], both[1])
    return found


def _delivery(manager: httpx.Client, before: dict[str, tuple[float, float]]) -> Finding:
    name = "alerts"
    deadline = time.monotonic() + DELIVERED_WITHIN
    tried: dict[str, float] = {}
    failed: dict[str, float] = {}
    settled_at = None
    while time.monotonic() < deadline:
        now = _deliveries(manager)
        tried = {
            k: v[0] - before.get(k, (0, 0))[0] for k, v in now.items() if v[0] > before.get(k, (0, 0))[0]
        }
        failed = {
            k: v[1] - before.get(k, (0, 0))[1] for k, v in now.items() if v[1] > before.get(k, (0, 0))[1]
        }
        # All receivers are told at about the same time: a little later no more is to come.
        settled_at = settled_at or (time.monotonic() + 5.0 if tried else None)
        if settled_at is not None and time.monotonic() > settled_at:
            break
        time.sleep(0.5)
    delivered = sorted(set(tried) - set(failed))
    facts = {"delivered": ", ".join(delivered), "failed": ", ".join(sorted(failed))}
    if failed:
        return wrong(
            name,
            f"Alertmanager cannot deliver by {', '.join(sorted(failed))}.",
            "Check that receiver's address and secret; Alertmanager's log has the answer it got.",
            **facts,
        )
    if not delivered:
        return wrong(
            name,
            f"Alertmanager took the test alert and delivered nothing within {DELIVERED_WITHIN:.0f} s.",
            "Does a route fit QsmDoctorTest, and is nothing silenced or inhibited?",
            **facts,
        )
    return ok(name, f"A test alert was delivered by {', '.join(delivered)}.", **facts)
