"""Files in the store that belong to nothing any more: what killed processes left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog

from qsm_ai.jobs.records import Job, State
from qsm_ai.jobs.store import JobStore
from qsm_ai.storage import Storage

log = structlog.get_logger("qsm_ai.jobs")

ORPHAN_AGE = 3600.0
"""Seconds after which files without a job are nobody's: an upload is stored before its job is recorded."""


class IncompleteSweepError(RuntimeError):
    """Some of what is past its time could not be removed; all else is.

    Attributes
    ----------
    removed : int
        How many jobs' worth.
    """

    def __init__(self, removed: int) -> None:
        super().__init__("not everything could be removed")
        self.removed = removed


class Tally:
    """Counts what a sweep removes, and lets nothing that cannot go keep the rest."""

    def __init__(self) -> None:
        self._removed = self._kept = 0

    async def count(self, removal: Awaitable[int | bool | None], event: str, **what: str) -> None:
        """Wait for one removal; where it fails, say so in the log.

        Parameters
        ----------
        removal : awaitable
            Of how many it removed; one, if it does not tell.
        event : str
            Of the log.
        **what
            Beside it: names, no error's text, which may hold a path.
        """
        try:
            removed = await removal
        except IncompleteSweepError as error:
            self._removed += error.removed
            self._kept += 1
        except Exception as error:
            log.warning(event, error=type(error).__name__, **what)
            self._kept += 1
        else:
            self._removed += 1 if removed is None else int(removed)

    def total(self) -> int:
        """How many were removed.

        Raises
        ------
        IncompleteSweepError
            If one could not be.
        """
        if self._kept:
            raise IncompleteSweepError(self._removed)
        return self._removed


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
        """Remove every orphan; how many folders and single objects.

        Raises
        ------
        IncompleteSweepError
            At the end, if something could not be removed.
        """
        tally = Tally()
        for part in (self._without_job, self._of_earlier_attempts, self._checks):
            await tally.count(part(), "sweep.files_kept")
        return tally.total()

    async def _without_job(self) -> int:
        return await remove_orphans(self._storage, "jobs", self._store.known_ids, self._age)

    async def _of_earlier_attempts(self) -> int:
        tally = Tally()
        since = await asyncio.to_thread(self._store.now) - 2 * self._age
        for job in await asyncio.to_thread(self._store.untidy_since, since):
            for attempt in await self._storage.children(f"{job.prefix}/results"):
                if _is_left_over(job, attempt):
                    removal = _removed(self._storage, f"{job.prefix}/results/{attempt}")
                    await tally.count(removal, "sweep.files_kept", job=job.id)
        return tally.total()

    async def _checks(self) -> int:
        tally = Tally()
        for info in await self._storage.entries("checks"):
            if _is_old(info.modified, self._age):
                await tally.count(self._storage.delete(info.key), "sweep.files_kept")
        return tally.total()


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

    Raises
    ------
    IncompleteSweepError
        At the end, if one could not be removed.
    """
    tally = Tally()
    stored = await storage.children(folder)
    for name in set(stored) - await asyncio.to_thread(known):
        await tally.count(_removed_if_old(storage, f"{folder}/{name}", age), "sweep.files_kept")
    return tally.total()


async def _removed_if_old(storage: Storage, prefix: str, age: float) -> bool:
    return _is_old(await storage.last_change(prefix), age) and await _removed(storage, prefix)


async def _removed(storage: Storage, prefix: str) -> bool:
    """However many objects it held, a folder is one."""
    await storage.delete_prefix(prefix)
    return True


def _is_old(moment: datetime | None, age: float) -> bool:
    return moment is None or (datetime.now(UTC) - moment).total_seconds() > age


def _is_left_over(job: Job, attempt: str) -> bool:
    """Whether the files of an attempt belong to no result, and to no attempt that began since."""
    if not attempt.isdigit():
        return False
    return int(attempt) < job.attempt or (int(attempt) == job.attempt and job.state is not State.DONE)
