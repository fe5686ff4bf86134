"""Keeps jobs that need the inference server in the queue while it cannot serve them.

::

            a probe fails                        a job fails at the server
    closed ───────────────▶ open (probed) ◀───────────────────────────── closed
       ▲                       │  a probe succeeds                          │
       │◀──────────────────────┘                                            ▼
       │                                                      open (tripped), pause doubles
       │      the trial succeeds                                │  ▲
       └──────────────────────────── half-open: one job ◀───────┘  │ the trial fails
                                          └────────────────────────┘
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from enum import StrEnum

from qsm_ai.jobs.problem import Problem

PROBE_EVERY = 1.0
"""Seconds between probes."""

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds until a job is tried again after one has failed at a server that says it is ready."""

DOWN = frozenset({"triton-unavailable", "triton-model-died", "triton-model-missing", "triton-timeout"})
"""Problems that are the inference server's and no job's: all patches are of one size, whatever the scan."""


class Circuit(StrEnum):
    """Whether jobs may go to the server."""

    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"


class Breaker:
    """Whether jobs may go to the inference server now.

    Parameters
    ----------
    probe : callable
        Asks the server whether it can serve; the problem if it cannot.
    clock : callable
        Seconds that only grow; for tests.

    Attributes
    ----------
    circuit : Circuit
        Open before the first probe.
    problem : Problem or None
        Why it is not closed, once that is known.
    """

    def __init__(
        self, probe: Callable[[], Awaitable[Problem | None]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._probe = probe
        self._clock = clock
        self.circuit = Circuit.OPEN
        self.problem: Problem | None = None
        self._tripped = False
        self._pause = FIRST_PAUSE
        self._tried_at = 0.0
        self._trial = False

    def allows(self) -> bool:
        """Whether another job may be taken."""
        return self.circuit is Circuit.CLOSED or (self.circuit is Circuit.HALF_OPEN and not self._trial)

    async def look(self) -> None:
        """Probe the server, and open, close or half open accordingly."""
        problem = await self._probe()
        if problem is not None:
            self.circuit, self.problem = Circuit.OPEN, problem
        elif not self._tripped:
            self._close()
        elif self.circuit is Circuit.OPEN and self._clock() - self._tried_at >= self._pause:
            self.circuit = Circuit.HALF_OPEN
            self._trial = False

    def begun(self) -> None:
        """A job goes to the server."""
        self._trial = self.circuit is Circuit.HALF_OPEN

    def succeeded(self) -> None:
        """A job got its answers."""
        self._close()

    def failed(self, problem: Problem) -> None:
        """A job failed because of the server."""
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if self._tripped else FIRST_PAUSE
        self.circuit, self.problem = Circuit.OPEN, problem
        self._tripped, self._trial = True, False
        self._tried_at = self._clock()

    def ended(self) -> None:
        """A job ended for reasons that say nothing about the server."""
        self._trial = False

    def _close(self) -> None:
        self.circuit, self.problem = Circuit.CLOSED, None
        self._tripped, self._trial = False, False
        self._pause = FIRST_PAUSE
