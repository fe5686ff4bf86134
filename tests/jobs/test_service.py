"""Jobs past their time go, whatever stands in the way of one; those that their owners want again stay."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from qsm_ai.jobs.errors import JobNotFoundError
from qsm_ai.jobs.hub import Hub
from qsm_ai.jobs.records import Job, State
from qsm_ai.jobs.service import Jobs
from qsm_ai.jobs.store import JobStore
from qsm_ai.jobs.sweeping import IncompleteSweepError
from qsm_ai.storage import Storage

HOUR = 3600.0


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Watched(Storage):
    """A store in which something happens when a folder is to be removed."""

    before: Callable[[str], Awaitable[None]] | None = None

    async def delete_prefix(self, prefix: str) -> int:
        if self.before is not None:
            await self.before(prefix)
        return await super().delete_prefix(prefix)


class Service:
    """Jobs on a database and a store, at a time that can be set."""

    def __init__(self, url: str, folder: Path) -> None:
        self.clock = Clock()
        self.store = JobStore(url, self.clock)
        self.storage = Watched.from_url(str(folder))
        assert isinstance(self.storage, Watched)
        self.jobs = Jobs(
            store=self.store,
            storage=self.storage,
            hub=Hub(),
            slots=1,
            max_queued=9,
            forget=lambda _: None,
        )

    async def cancelled(self) -> Job:
        job = Job(secrets.token_hex(16), "ann", State.QUEUED, {"method": "tkd"}, (), {})
        self.store.add(job, max_queued=9)
        await self.storage.put(f"{job.prefix}/uploads/0", b"phase")
        return self.store.cancel(job.id)


@pytest.fixture
def service(database_url: str, tmp_path: Path) -> Iterator[Service]:
    service = Service(database_url, tmp_path / "objects")
    yield service
    service.store.close()


def test_a_job_that_is_retried_while_others_are_swept_is_kept(service: Service) -> None:
    async def scenario() -> None:
        jobs = {job.id: job for job in [await service.cancelled() for _ in range(2)]}
        service.clock.now += 2 * HOUR
        retried: set[str] = set()

        async def retry_the_other(prefix: str) -> None:
            for job in jobs.values():
                if job.prefix != prefix and not retried:
                    retried.add(job.id)
                    await service.jobs.retry(job.id)

        service.storage.before = retry_the_other
        assert await service.jobs.sweep(HOUR) == 1
        assert service.store.known_ids() == retried
        (kept,) = retried
        assert service.store.get(kept).state is State.QUEUED
        assert await service.storage.get(f"{jobs[kept].prefix}/uploads/0") == b"phase"

    asyncio.run(scenario())


def test_a_job_that_is_being_removed_cannot_be_retried(service: Service) -> None:
    async def scenario() -> None:
        job = await service.cancelled()
        service.clock.now += 2 * HOUR

        async def retry(_prefix: str) -> None:
            with pytest.raises(JobNotFoundError):
                await service.jobs.retry(job.id)

        service.storage.before = retry
        assert await service.jobs.sweep(HOUR) == 1
        assert service.store.known_ids() == set()
        assert await service.storage.entries() == []

    asyncio.run(scenario())


def test_a_job_that_cannot_be_removed_keeps_no_other(service: Service) -> None:
    async def scenario() -> None:
        jobs = [await service.cancelled() for _ in range(3)]
        await service.storage.put("jobs/nobodys/uploads/0", b"x")
        stubborn = jobs[0].prefix
        service.clock.now += 2 * HOUR

        async def refuse(prefix: str) -> None:
            if prefix == stubborn:
                raise PermissionError

        service.storage.before = refuse
        with pytest.raises(IncompleteSweepError) as told:
            await service.jobs.sweep(HOUR)
        assert told.value.removed == 2
        assert service.store.known_ids() == {jobs[0].id}
        # It is tried again, and goes once nothing stands in the way.
        service.storage.before = None
        assert await service.jobs.sweep(HOUR) == 1
        assert service.store.known_ids() == set()
        assert [info.key for info in await service.storage.entries()] == ["jobs/nobodys/uploads/0"]

    asyncio.run(scenario())


def test_a_job_that_cannot_be_removed_keeps_no_orphan(service: Service, tmp_path: Path) -> None:
    async def scenario() -> None:
        job = await service.cancelled()
        await service.storage.put("jobs/nobodys/uploads/0", b"x")
        orphan = tmp_path / "objects/jobs/nobodys"
        for path in (orphan, *orphan.rglob("*")):
            os.utime(path, (0, 0))
        service.clock.now += 2 * HOUR

        async def refuse(prefix: str) -> None:
            if prefix == job.prefix:
                raise PermissionError

        service.storage.before = refuse
        with pytest.raises(IncompleteSweepError) as told:
            await service.jobs.sweep(HOUR)
        assert told.value.removed == 1
        assert [info.key for info in await service.storage.entries()] == [f"{job.prefix}/uploads/0"]

    asyncio.run(scenario())
