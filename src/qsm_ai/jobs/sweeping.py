"""Files in the store that belong to nothing any more: what killed processes left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from qsm_ai.jobs.records import Job, State
from qsm_ai.jobs.store import JobStore
from qsm_ai.storage import Storage

ORPHAN_AGE = 3600.0
"""Seconds after which files without a job are nobody's: an upload is stored before its job is recorded."""


class Sweeper:
    """Removes orphans.

    Parameters
    ----------
    store : JobStore
    storage : Storage
    orphan_age : s
    """

    def __init__(self, store: JobStore, storage: Storage, orphan_age: float = ORPHAN_AGE) -> None:
        self._store = store
        self._storage = storage
        self._age = orphan_age

    async def sweep(self) -> int:
        """Remove every orphan; how many folders and single objects."""
        return await self._without_job() + await self._of_earlier_attempts() + await self._checks()

    async def _without_job(self) -> int:
        return await remove_orphans(self._storage, "jobs", self._store.known_ids, self._age)

    async def _of_earlier_attempts(self) -> int:
        removed = 0
        since = await asyncio.to_thread(self._store.now) - 2 * self._age
        for job in await asyncio.to_thread(self._store.untidy_since, since):
            for attempt in await self._storage.children(f"{job.prefix}/results"):
                if _is_left_over(job, attempt):
                    await self._storage.delete_prefix(f"{job.prefix}/results/{attempt}")
                    removed += 1
        return removed

    async def _checks(self) -> int:
        stored = await self._storage.entries("checks")
        old = [info for info in stored if _is_old(info.modified, self._age)]
        for info in old:
            await self._storage.delete(info.key)
        return len(old)


async def remove_orphans(
    storage: Storage, folder: str, known: Callable[[], set[str]], age: float = ORPHAN_AGE
) -> int:
    """Remove what nobody knows any more and nobody has written to for a while.

    Parameters
    ----------
    storage : Storage
    folder : str
        Its folders belong to somebody each.
    known : callable
        Names of those that belong to somebody. Called in a thread, after the folder was looked at: what is
        recorded before it is stored is never an orphan.
    age : s
        Since the last change.

    Returns
    -------
    int
        How many folders went.
    """
    removed = 0
    stored = await storage.children(folder)
    for name in set(stored) - await asyncio.to_thread(known):
        if _is_old(await storage.last_change(f"{folder}/{name}"), age):
            await storage.delete_prefix(f"{folder}/{name}")
            removed += 1
    return removed


def _is_old(moment: datetime | None, age: float) -> bool:
    return moment is None or (datetime.now(UTC) - moment).total_seconds() > age


def _is_left_over(job: Job, attempt: str) -> bool:
    """Whether the files of an attempt belong to no result, and to no attempt that began since."""
    if not attempt.isdigit():
        return False
    return int(attempt) < job.attempt or (int(attempt) == job.attempt and job.state is not State.DONE)
