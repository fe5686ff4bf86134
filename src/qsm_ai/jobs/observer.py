"""Who wants to know what a worker sees, for metrics."""

from __future__ import annotations

from typing import Protocol

from qsm_ai.jobs.records import State


class Observer(Protocol):
    """Told by a worker of everything that can be counted."""

    def worker_looked(self, slots: int, busy: int, *, held_back: bool) -> None:
        """The worker looked at its queue; ``held_back``: jobs for the inference server wait for it."""

    def job_began(self, method: str, waited: float) -> None:
        """A job was taken from the queue."""

    def stage_done(self, stage: str, method: str, seconds: float) -> None:
        """A stage of a finished job took this long."""

    def job_ended(
        self,
        state: State,
        method: str,
        seconds: float,
        problem: str | None,
        since_queued: float | None = None,
    ) -> None:
        """A job ended."""

    def score(self, name: str, value: float) -> None:
        """A score of a finished job."""

    def triton_called(self, outcome: str, seconds: float) -> None:
        """The inference server answered a request for one patch, or did not."""
