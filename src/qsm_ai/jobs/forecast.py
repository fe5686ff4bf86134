"""Place in the queue and time left of every job, from one look at the database for all who ask."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from qsm_ai.jobs.estimate import left_of_running, seconds_until_each
from qsm_ai.jobs.hub import Hub
from qsm_ai.jobs.records import Job, State
from qsm_ai.jobs.store import JobStore

KEPT_FOR = 0.5
"""Seconds; news of this process ends it earlier."""

SHARE = 0.2
"""Part of the time that looks may take: while much happens, each is told for a while after it was taken."""


@dataclass(frozen=True)
class Outlook:
    """What is to be expected of a job.

    Attributes
    ----------
    queue_position : int or None
        How many jobs will be taken before this one, plus one; ``None`` unless it is queued.
    seconds_left : float or None
        Until it is done; ``None`` while nothing is known, and once it has ended.
    """

    queue_position: int | None = None
    seconds_left: float | None = None


NOTHING = Outlook()


@dataclass(frozen=True)
class _Look:
    """What was seen, at the moment ``at`` and in ``took`` seconds, after so many ``news`` of the hub."""

    at: float
    took: float
    news: int
    now: float
    waiting: dict[str, Outlook]
    paces: dict[str, float | None]

    def is_fresh(self, news: int) -> bool:
        """Whether it may still be told, now that there were so many news."""
        age = time.monotonic() - self.at
        return age < KEPT_FOR and (news == self.news or age < self.took / SHARE)


class Forecast:
    """Tells what is to be expected.

    Parameters
    ----------
    store : JobStore
    hub : Hub
    slots : int
        Jobs at once, while no worker has told of itself yet.
    """

    def __init__(self, store: JobStore, hub: Hub, slots: int) -> None:
        self._store = store
        self._hub = hub
        self._slots = max(1, slots)
        self._look: _Look | None = None
        self._looking = asyncio.Lock()

    async def of(self, job: Job) -> Outlook:
        """The outlook of a job."""
        if job.state.is_final:
            return NOTHING
        look = await self._latest()
        if job.state is State.RUNNING:
            return Outlook(None, _left(job, look.now, look.paces.get(job.method)))
        if job.id not in look.waiting and look.news != self._hub.news:
            # It was queued after that look.
            look = await self._latest(after=look)
        return look.waiting.get(job.id, NOTHING)

    async def _latest(self, after: _Look | None = None) -> _Look:
        look = self._look
        if look is not None and look is not after and look.is_fresh(self._hub.news):
            return look
        async with self._looking:
            look = self._look
            if look is None or look is after or not look.is_fresh(self._hub.news):
                look = self._look = await self._store.database.look_up(self._see, self._hub.news)
            return look

    def _see(self, news: int) -> _Look:
        began = time.monotonic()
        queue, running = self._store.waiting(), self._store.running()
        fleet = [worker for worker in self._store.workers() if not worker.draining]
        methods = {waiting.method for waiting in queue} | {job.method for job in running}
        paces, now = {method: self._store.pace(method) for method in methods}, self._store.now()
        left = seconds_until_each(
            [_left(job, now, paces[job.method]) for job in running],
            [_expected(paces[waiting.method], waiting.work) for waiting in queue],
            sum(worker.slots for worker in fleet) or self._slots,
        )
        return _Look(
            at=began,
            took=time.monotonic() - began,
            news=news,
            now=now,
            waiting={
                waiting.id: Outlook(place, seconds)
                for place, (waiting, seconds) in enumerate(zip(queue, left, strict=True), start=1)
            },
            paces=paces,
        )


def _expected(pace: float | None, work: float) -> float | None:
    return None if pace is None or not work else pace * work


def _left(job: Job, now: float, pace: float | None) -> float | None:
    elapsed = max(0.0, now - (job.started_at or now))
    return left_of_running(elapsed, job.fraction, _expected(pace, job.work))
