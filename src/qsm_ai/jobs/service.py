"""What the API asks of jobs: one place for whatever concerns database, store and worker at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

from qsm_ai.jobs.hub import Hub
from qsm_ai.jobs.records import Event, Job, State
from qsm_ai.jobs.store import JobNotFoundError, JobStore
from qsm_ai.storage import Storage

ORPHAN_AGE = 3600.0
"""Seconds after which files in the store without a job are nobody's."""


class Jobs:
    """The jobs of a deployment.

    Parameters
    ----------
    slots : int
        How many jobs are computed at once, for the estimate of waiting time.
    max_queued : int
    forget : callable
        Told the id of every deleted job, for caches.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        storage: Storage,
        hub: Hub,
        slots: int,
        max_queued: int,
        forget: Callable[[str], None],
    ) -> None:
        self._store = store
        self._storage = storage
        self._hub = hub
        self._slots = max(1, slots)
        self._max_queued = max_queued
        self._forget = forget

    async def has_room(self) -> bool:
        """Whether another job may be queued; asked before an upload is taken in."""
        counts = await self.counts()
        return counts[State.QUEUED] < self._max_queued

    async def submit(self, job: Job, files: dict[str, Path]) -> Job:
        """Store a job's uploads (key below the job's folder: local file), then queue it. All or nothing.

        Raises
        ------
        QueueFullError
        """
        try:
            for key, path in files.items():
                await self._storage.put_file(f"{job.prefix}/{key}", path)
            added = await asyncio.to_thread(self._store.add, job, max_queued=self._max_queued)
        except BaseException:
            await asyncio.shield(self._storage.delete_prefix(job.prefix))
            raise
        self._hub.notify(Hub.QUEUE)
        return added

    async def get(self, job_id: str, owner: str | None = None) -> Job:
        """A job.

        Raises
        ------
        JobNotFoundError
        """
        return await asyncio.to_thread(self._store.get, job_id, owner=owner)

    async def page(
        self, *, owner: str | None, state: State | None, limit: int, before: float | None
    ) -> list[Job]:
        """Jobs, newest first."""
        return await asyncio.to_thread(self._store.page, owner=owner, state=state, limit=limit, before=before)

    async def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        return await asyncio.to_thread(self._store.counts)

    async def oldest_wait(self) -> float:
        """For how many seconds the oldest queued job waits."""
        queued_at = await asyncio.to_thread(self._store.oldest_queued)
        return 0.0 if queued_at is None else max(0.0, time.time() - queued_at)

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
        job = await asyncio.to_thread(self._store.retry, job_id, max_queued=self._max_queued)
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
        # The record goes after the files, for it remembers that there is something to delete; what a worker
        # that would not stop has stored between the two goes last.
        await self._storage.delete_prefix(job.prefix)
        await asyncio.to_thread(self._store.delete, job_id)
        await self._storage.delete_prefix(job.prefix)
        self._forget(job_id)
        self._hub.notify(job_id)

    async def wait(self, job_id: str, seconds: float) -> Job:
        """The job, when it has ended or ``seconds`` have passed."""
        deadline = time.monotonic() + seconds
        job = await self.get(job_id)
        while not job.state.is_final and (left := deadline - time.monotonic()) > 0:
            await self._hub.wait(job_id, min(left, 0.5))
            job = await self.get(job_id)
        return job

    async def follow(self, job_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Events of a job from event ``after`` on, until it ends or is deleted."""
        while True:
            # Read the state first: events written between the two reads then come with the next round.
            try:
                job = await self.get(job_id)
            except JobNotFoundError:
                return
            for event in await asyncio.to_thread(self._store.events, job_id, after):
                after = event.id
                yield event
            if job.state.is_final:
                return
            await self._hub.wait(job_id, 1.0)

    async def queue_position(self, job: Job) -> int | None:
        """How many jobs will be taken before this one, plus one; ``None`` unless it is queued."""
        if job.state is not State.QUEUED:
            return None
        order = await asyncio.to_thread(self._store.queue)
        return order.index(job.id) + 1 if job.id in order else None

    async def seconds_left(self, job: Job) -> float | None:
        """An estimate from earlier jobs' pace and this one's progress; ``None`` while nothing is known."""
        if job.state.is_final:
            return None
        if job.state is State.RUNNING:
            return await self._left_of_running(job)
        running = await asyncio.to_thread(self._store.page, state=State.RUNNING, limit=self._slots)
        order = await asyncio.to_thread(self._store.queue)
        ahead = order[: order.index(job.id)] if job.id in order else []
        total = await self._expected(job)
        for other in running:
            total = _add(total, await self._left_of_running(other), self._slots)
        for other_id in ahead:
            try:
                total = _add(total, await self._expected(await self.get(other_id)), self._slots)
            except JobNotFoundError:
                continue
        return total

    async def _expected(self, job: Job) -> float | None:
        pace = await asyncio.to_thread(self._store.pace, job.method)
        return None if pace is None or not job.work else pace * job.work

    async def _left_of_running(self, job: Job) -> float | None:
        elapsed = max(0.0, time.time() - (job.started_at or time.time()))
        expected = await self._expected(job)
        by_pace = None if expected is None else max(0.0, expected - elapsed)
        # Too early in a job, its own progress says little.
        by_progress = elapsed * (1 - job.fraction) / job.fraction if job.fraction > 0.15 else None
        known = [value for value in (by_pace, by_progress) if value is not None]
        return sum(known) / len(known) if known else None

    # ------------------------------------------------------------------ files

    def read(self, job: Job, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes of a file of a job; ``key`` as its record says."""
        return self._storage.stream(f"{job.prefix}/{key}", start, end)

    async def fetch(self, job: Job, key: str, path: Path) -> None:
        """Copy a file of a job to a local one."""
        await self._storage.fetch(f"{job.prefix}/{key}", path)

    async def sweep(self, retention_seconds: float | None) -> int:
        """Delete what is older than the retention, and files that belong to no job; how many jobs' worth.

        ``retention_seconds`` is counted from the end of a job; ``None`` keeps jobs forever.
        """
        removed = 0
        if retention_seconds is not None:
            for job_id in await asyncio.to_thread(
                self._store.finished_before, time.time() - retention_seconds
            ):
                try:
                    await self.delete(job_id)
                    removed += 1
                except JobNotFoundError:
                    continue
        stored = await self._storage.children("jobs")
        for job_id in set(stored) - await asyncio.to_thread(self._store.known_ids):
            youngest = max(
                (info.modified for info in await self._storage.entries(f"jobs/{job_id}")),
                default=datetime.fromtimestamp(0, UTC),
            )
            if (datetime.now(UTC) - youngest).total_seconds() > ORPHAN_AGE:
                await self._storage.delete_prefix(f"jobs/{job_id}")
                removed += 1
        return removed


def _add(total: float | None, more: float | None, slots: int) -> float | None:
    return None if total is None or more is None else total + more / slots
