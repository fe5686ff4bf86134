"""When a job will be done: from how long jobs took lately, and from what runs and waits before it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def seconds_until_each(
    running: Sequence[float | None], waiting: Sequence[float | None], slots: int
) -> list[float | None]:
    """Let the waiting jobs run in their order on so many slots.

    Parameters
    ----------
    running : seconds that each running job still needs
    waiting : seconds that each waiting job needs, in order
    slots : int
        Jobs that all workers together compute at once.

    Returns
    -------
    list of float or None
        Seconds until each waiting job is done; ``None`` from the first one on before which something is not
        known: half an estimate would be none.
    """
    unknown: list[float | None] = [None] * len(waiting)
    if slots < 1:
        return unknown
    free_at: list[float] = []
    for seconds in running:
        if seconds is None:
            return unknown
        free_at.append(max(0.0, seconds))
    # More may run than there are slots, while a worker drains.
    free_at = sorted(free_at)[-slots:] + [0.0] * max(0, slots - len(free_at))
    heapq.heapify(free_at)
    done_after: list[float | None] = []
    for seconds in waiting:
        if seconds is None:
            break
        done = free_at[0] + seconds
        heapq.heapreplace(free_at, done)
        done_after.append(done)
    return done_after + unknown[len(done_after) :]


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
