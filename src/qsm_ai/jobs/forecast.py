"""Place in the queue and time left of every job, from one look at the database for all who ask."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from qsm_ai.jobs.estimate import left_of_running, seconds_until_done
from qsm_ai.jobs.hub import Hub
from qsm_ai.jobs.records import Job, State, Waiting
from qsm_ai.jobs.store import JobStore

KEPT_FOR = 0.5
"""Seconds; news of this process ends it earlier."""


@dataclass(frozen=True)
class _Look:
    at: float
    news: int
    now: float
    queue: tuple[Waiting, ...]
    places: dict[str, int]
    running: tuple[Job, ...]
    paces: dict[str, float | None]
    slots: int


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

    async def position(self, job: Job) -> int | None:
        """How many jobs will be taken before this one, plus one; ``None`` unless it is queued."""
        if job.state is not State.QUEUED:
            return None
        return (await self._latest()).places.get(job.id)

    async def seconds_left(self, job: Job) -> float | None:
        """Until the job is done; ``None`` while nothing is known, and once it has ended."""
        if job.state.is_final:
            return None
        look = await self._latest()
        if job.state is State.RUNNING:
            return _left(look, job)
        place = look.places.get(job.id)
        if place is None:
            return None
        return seconds_until_done(
            [_left(look, other) for other in look.running],
            [_expected(look, other.method, other.work) for other in look.queue[: place - 1]],
            _expected(look, job.method, job.work),
            look.slots,
        )

    async def _latest(self) -> _Look:
        async with self._looking:
            look = self._look
            if look is None or look.news != self._hub.news or time.monotonic() - look.at > KEPT_FOR:
                news = self._hub.news
                look = self._look = await asyncio.to_thread(self._see, news)
            return look

    def _see(self, news: int) -> _Look:
        queue, running = self._store.waiting(), self._store.running()
        fleet = [worker for worker in self._store.workers() if not worker.draining]
        methods = {waiting.method for waiting in queue} | {job.method for job in running}
        return _Look(
            at=time.monotonic(),
            news=news,
            now=self._store.now(),
            queue=tuple(queue),
            places={waiting.id: place for place, waiting in enumerate(queue, start=1)},
            running=tuple(running),
            paces={method: self._store.pace(method) for method in methods},
            slots=sum(worker.slots for worker in fleet) or self._slots,
        )


def _expected(look: _Look, method: str, work: float) -> float | None:
    pace = look.paces.get(method)
    return None if pace is None or not work else pace * work


def _left(look: _Look, job: Job) -> float | None:
    elapsed = max(0.0, look.now - (job.started_at or look.now))
    return left_of_running(elapsed, job.fraction, _expected(look, job.method, job.work))
