"""When a job will be done: from how long jobs took lately, and from what runs and waits before it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def seconds_until_done(
    running: Sequence[float | None], ahead: Sequence[float | None], own: float | None, slots: int
) -> float | None:
    """Let the jobs ahead run in their order on so many slots; then this one.

    Parameters
    ----------
    running : seconds that each running job still needs
    ahead : seconds that each job before this one needs, in order
    own : seconds that this job needs
    slots : int
        Jobs that all workers together compute at once.

    Returns
    -------
    float or None
        ``None`` if one of the numbers is not known: half an estimate would be none.
    """
    if slots < 1 or own is None:
        return None
    free_at: list[float] = []
    for seconds in running:
        if seconds is None:
            return None
        free_at.append(max(0.0, seconds))
    # More may run than there are slots, while a worker drains.
    free_at = sorted(free_at)[-slots:] + [0.0] * max(0, slots - len(free_at))
    heapq.heapify(free_at)
    for seconds in ahead:
        if seconds is None:
            return None
        heapq.heapreplace(free_at, free_at[0] + seconds)
    return free_at[0] + own


def left_of_running(elapsed: float, fraction: float, expected: float | None) -> float | None:
    """Seconds that a running job still needs.

    Parameters
    ----------
    elapsed : s
    fraction : of the whole that is done
    expected : s or None
        How long the whole takes by the pace of earlier jobs.
    """
    by_pace = None if expected is None else max(0.0, expected - elapsed)
    # Too early in a job, its own progress says little.
    by_progress = elapsed * (1 - fraction) / fraction if fraction > 0.15 else None
    known = [value for value in (by_pace, by_progress) if value is not None]
    return sum(known) / len(known) if known else None
