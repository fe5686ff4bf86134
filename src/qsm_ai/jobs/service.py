"""What the API asks of jobs: one place for whatever concerns database, store and worker at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog
from sqlalchemy.exc import DBAPIError

from qsm_ai.jobs.errors import JobNotFoundError, TooLargeForWorkersError
from qsm_ai.jobs.forecast import Forecast, Outlook
from qsm_ai.jobs.hub import Hub
from qsm_ai.jobs.memory import needed_mb
from qsm_ai.jobs.reading import JobReader
from qsm_ai.jobs.records import Event, Job, State
from qsm_ai.jobs.store import JobStore
from qsm_ai.jobs.sweeping import Sweeper, Tally
from qsm_ai.storage import Storage

log = structlog.get_logger("qsm_ai.jobs")

LOOK_AGAIN = 2.0
"""Seconds after which who waits for a job looks at it without news: some of another process may be lost."""

Permit = Callable[[], Awaitable[object]]
"""Whether somebody may go on waiting; raises if not."""


class Jobs:
    """The jobs of a deployment.

    Parameters
    ----------
    slots : int
        How many jobs are computed at once, for the estimate of waiting time.
    max_queued : int
    forget : callable
        Told the id of every deleted job, for caches.
    deadline : s or None
        After which nobody waits for a job any more, where the job itself says nothing.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        storage: Storage,
        hub: Hub,
        slots: int,
        max_queued: int,
        max_unfinished: int | None = None,
        forget: Callable[[str], None],
        deadline: float | None = None,
    ) -> None:
        self._store = store
        self._storage = storage
        self._hub = hub
        self._forecast = Forecast(store, hub, slots)
        self._reader = JobReader(store)
        self._sweeper = Sweeper(store, storage)
        self._deadline = deadline
        self._max_queued = max_queued
        self._max_unfinished = max_unfinished
        self._forget = forget

    async def has_room(self) -> bool:
        """Whether another job may be queued; asked before an upload is taken in."""
        counts = await self.counts()
        return counts[State.QUEUED] < self._max_queued

    async def submit(
        self,
        job: Job,
        files: dict[str, Path],
        *,
        consumes: Collection[str] = (),
        max_stored: int | None = None,
    ) -> Job:
        """Store a job's uploads (key below the job's folder: local file), then queue it. All or nothing.

        Parameters
        ----------
        job : Job
        files : dict
        consumes : upload ids
            What the files were sent as: the job takes their place, all at once.
        max_stored : int or None
            Bytes that the owner's files may take up, those of the job included.

        Returns
        -------
        Job
            An earlier one (with another id) if the same request came before under its idempotency key.

        Raises
        ------
        QueueFullError, OwnerLimitError, OwnerStorageError, IdempotencyConflictError, TooLargeForWorkersError
        UploadGoneError
        """
        if job.deadline_at is None and self._deadline is not None:
            job = replace(job, deadline_at=await asyncio.to_thread(self._store.now) + self._deadline)
        await self._refuse_too_large(job)
        storing = asyncio.create_task(self._store_and_add(job, files, consumes, max_stored))
        try:
            return await asyncio.shield(storing)
        except asyncio.CancelledError:
            # Who asked is gone. What has begun is brought to an end, one way or the other.
            await asyncio.gather(storing, return_exceptions=True)
            raise

    async def _store_and_add(
        self, job: Job, files: dict[str, Path], consumes: Collection[str], max_stored: int | None
    ) -> Job:
        added: Job | None = None
        try:
            for key, path in files.items():
                await self._storage.put_file(f"{job.prefix}/{key}", path)
            added = await asyncio.to_thread(
                self._store.add,
                job,
                max_queued=self._max_queued,
                max_unfinished=self._max_unfinished,
                consumes=consumes,
                max_stored=max_stored,
            )
        except DBAPIError:
            # Whether it was recorded is not known: if not, its files are swept as nobody's.
            added = job
            raise
        finally:
            if added is None or added.id != job.id:
                await self._clear(job)
        self._hub.notify(Hub.QUEUE)
        return added

    async def _clear(self, job: Job) -> None:
        """Remove uploads that became no job; what cannot be removed now is swept later."""
        try:
            await self._storage.delete_prefix(job.prefix)
        except Exception as error:
            log.warning("upload.left_over", job=job.id, error=type(error).__name__)

    async def find(self, owner: str, idempotency_key: str) -> Job | None:
        """The job that an earlier request of this owner made under this key."""
        return await self._store.database.look_up(self._store.find_by_key, owner, idempotency_key)

    async def get(self, job_id: str, owner: str | None = None) -> Job:
        """A job.

        Raises
        ------
        JobNotFoundError
        """
        return await self._reader.get(job_id, owner)

    async def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        return await self._store.database.look_up(self._store.counts)

    async def cancel(self, job_id: str) -> Job:
        """Cancel; a running job stops within a second."""
        job = await asyncio.to_thread(self._store.cancel, job_id)
        self._hub.notify(Hub.QUEUE)
        self._hub.notify(job_id)
        return job

    async def retry(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again.

        Raises
        ------
        JobNotFoundError, WrongStateError, QueueFullError
        """
        job = await asyncio.to_thread(
            self._store.retry, job_id, max_queued=self._max_queued, max_unfinished=self._max_unfinished
        )
        self._hub.notify(Hub.QUEUE)
        self._hub.notify(job_id)
        return job

    async def delete(self, job_id: str, patience: float = 5.0) -> None:
        """Stop a job and remove its record, uploads and results.

        Raises
        ------
        JobNotFoundError
        """
        job = await self.cancel(job_id)
        deadline = time.monotonic() + patience
        while not job.state.is_final and time.monotonic() < deadline:
            await self._hub.wait(job_id, 0.1)
            job = await self.get(job_id)
        await self._remove(job)

    async def _remove(self, job: Job) -> None:
        # The record goes after the files, for it remembers that there is something to delete; what a worker
        # that would not stop has stored between the two goes last.
        await self._storage.delete_prefix(job.prefix)
        await asyncio.to_thread(self._store.delete, job.id)
        await self._storage.delete_prefix(job.prefix)
        self._forget(job.id)
        self._hub.notify(job.id)

    async def wait(self, job_id: str, seconds: float, permit: Permit | None = None) -> Job:
        """The job, when it has ended or ``seconds`` have passed.

        Parameters
        ----------
        job_id : str
        seconds : s
        permit : callable or None
            Asked at every look; what it raises ends the waiting.
        """
        deadline = time.monotonic() + seconds
        async for job in self._looks(job_id, permit, deadline):
            if job.state.is_final or time.monotonic() >= deadline:
                break
        return job

    async def follow(self, job_id: str, after: int = 0, permit: Permit | None = None) -> AsyncIterator[Event]:
        """Events of a job from event ``after`` on, until it ends or is deleted.

        Parameters
        ----------
        job_id : str
        after : int
        permit : callable or None
            Asked at every look; what it raises ends the following.
        """
        try:
            # The state is read first: events written between the two reads come with the next round.
            async for job in self._looks(job_id, permit):
                for event in await self._store.database.look_up(self._store.events, job_id, after):
                    after = event.id
                    yield event
                if job.state.is_final:
                    return
        except JobNotFoundError:
            return

    async def _looks(
        self, job_id: str, permit: Permit | None, deadline: float = math.inf
    ) -> AsyncIterator[Job]:
        """The job, at once, at each of its news, and now and then."""
        with self._hub.listening(job_id) as news:
            while True:
                news.clear()
                if permit is not None:
                    await permit()
                yield await self.get(job_id)
                pause = max(0.0, min(LOOK_AGAIN, deadline - time.monotonic()))
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await news.wait()

    async def outlook(self, job: Job) -> Outlook:
        """Its place in the queue, and the time left by earlier jobs' pace and this one's progress."""
        return await self._forecast.of(job)

    async def _refuse_too_large(self, job: Job) -> None:
        needed = needed_mb(job)
        fleet = await self._store.database.look_up(self._store.workers)
        largest = max((worker.memory_mb for worker in fleet), default=None)
        if largest is not None and needed > largest:
            raise TooLargeForWorkersError(needed, largest)

    # ------------------------------------------------------------------ files

    def read(self, job: Job, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes of a file of a job; ``key`` as its record says."""
        return self._storage.stream(f"{job.prefix}/{key}", start, end)

    async def fetch(self, job: Job, key: str, path: Path) -> None:
        """Copy a file of a job to a local one."""
        await self._storage.fetch(f"{job.prefix}/{key}", path)

    async def sweep(self, retention_seconds: float | None) -> int:
        """Delete what is older than the retention, and files that belong to no job.

        Parameters
        ----------
        retention_seconds : s or None
            Counted from the end of a job; ``None`` keeps jobs forever.

        Returns
        -------
        int
            How many jobs' worth was removed.

        Raises
        ------
        IncompleteSweepError
            At the end, if something could not be removed.
        """
        tally = Tally()
        if retention_seconds is not None:
            before = await asyncio.to_thread(self._store.now) - retention_seconds
            for job_id in await asyncio.to_thread(self._store.finished_before, before):
                await tally.count(self._remove_old(job_id, before), "sweep.job_kept", job=job_id)
        await tally.count(self._sweeper.sweep(), "sweep.files_kept")
        return tally.total()

    async def _remove_old(self, job_id: str, before: float) -> bool:
        """Remove a job that ended before a moment, unless its owner has just queued it again."""
        job = await asyncio.to_thread(self._store.condemn, job_id, before)
        if job is None:
            return False
        await self._remove(job)
        return True
