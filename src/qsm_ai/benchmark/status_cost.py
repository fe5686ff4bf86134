"""What a look at a job costs the backend, by its own processor's clock: other work hardly changes that."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from qsm_ai.benchmark.backends import Backend, processor_seconds

CALLS = 500
RESTS = 2.0
"""Seconds of rest, of which the cost is taken off that of the calls."""


def status_cost(backend: Backend, key: str, job_id: str, calls: int = CALLS) -> float:
    """Processor time of one call, when one client asks again and again, s.

    Parameters
    ----------
    backend : Backend
        Which has nothing else to do.
    key : str
    job_id : str
        A job of the key's owner that has ended.
    calls : int

    Returns
    -------
    float
    """
    with httpx.Client(base_url=backend.url, headers={"Authorization": f"Bearer {key}"}, timeout=60.0) as http:

        def ask() -> None:
            for _ in range(calls):
                http.get(f"/api/v1/jobs/{job_id}").raise_for_status()

        http.get(f"/api/v1/jobs/{job_id}").raise_for_status()
        rest, rested = _used(backend, lambda: time.sleep(RESTS))
        used, lasted = _used(backend, ask)
    return max(0.0, used - rest / rested * lasted) / calls


def _used(backend: Backend, act: Callable[[], None]) -> tuple[float, float]:
    """Processor time of the backend meanwhile, and how long it lasted."""
    before, began = processor_seconds(backend.pid), time.perf_counter()
    act()
    return processor_seconds(backend.pid) - before, time.perf_counter() - began
