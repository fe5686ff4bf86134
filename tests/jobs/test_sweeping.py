"""What killed processes left in the store goes, and nothing else; what its owner deletes goes at once."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsm_ai.jobs.hub import Hub
from qsm_ai.jobs.problem import internal
from qsm_ai.jobs.records import Job, State, StoredArtefact, Upload
from qsm_ai.jobs.service import Jobs
from qsm_ai.jobs.store import JobStore
from qsm_ai.jobs.sweeping import IncompleteSweepError, Sweeper
from qsm_ai.storage import Storage

HOUR = 3600.0
SCAN = b"phase"


class Service:
    """Jobs on a database and a store; time in the store is told by the age of files."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.folder = folder
        self.store = JobStore(database_url)
        self.storage = Storage.from_url(str(folder))
        self.jobs = Jobs(
            store=self.store, storage=self.storage, hub=Hub(), slots=1, max_queued=9, forget=lambda _: None
        )

    async def submitted(self, content: Path) -> Job:
        upload = Upload("phase", "doe.nii", "uploads/0", len(SCAN), "x")
        job = Job(secrets.token_hex(16), "ann", State.QUEUED, {"method": "tkd"}, (upload,), {"voxels": 9})
        return await self.jobs.submit(job, {"uploads/0": content})

    async def finished(self, content: Path) -> Job:
        job = await self.submitted(content)
        held = self.store.claim("here:1")
        assert held is not None
        key = f"results/{held.attempt}/0"
        await self.storage.put(f"{job.prefix}/{key}", b"chi")
        chi = StoredArtefact("chi", "doe_Chimap.nii.gz", key, 3, (1, 1, 1), (1.0, 1.0, 1.0))
        assert self.store.complete(held, artefacts=[chi], others=[], warnings=[], scores={}, timings={})
        return self.store.get(job.id)

    def make_old(self, prefix: str, seconds: float) -> None:
        for path in (self.folder / prefix, *(self.folder / prefix).rglob("*")):
            then = path.stat().st_mtime - seconds
            os.utime(path, (then, then))

    @property
    def files(self) -> list[str]:
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file())


@pytest.fixture
def service(database_url: str, tmp_path: Path) -> Iterator[Service]:
    service = Service(database_url, tmp_path / "objects")
    yield service
    service.store.close()


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan"
    path.write_bytes(SCAN)
    return path


def test_jobs_go_when_their_time_is_over_and_not_before(service: Service, scan: Path) -> None:
    async def scenario() -> None:
        old = await service.finished(scan)
        await asyncio.sleep(1.0)
        young = await service.finished(scan)
        waiting = await service.submitted(scan)
        age = service.store.now() - (young.finished_at or 0)
        assert await service.jobs.sweep(None) == 0
        assert await service.jobs.sweep(HOUR) == 0
        assert await service.jobs.sweep(age + 0.5) == 1
        assert service.store.known_ids() == {young.id, waiting.id}
        assert not any(old.id in file for file in service.files)
        assert sum(young.id in file for file in service.files) == 2

    asyncio.run(scenario())


def test_no_byte_of_a_deleted_job_stays(service: Service, scan: Path) -> None:
    async def scenario() -> None:
        job = await service.finished(scan)
        assert len(service.files) == 2
        await service.jobs.delete(job.id)
        assert service.files == []
        assert [path for path in service.folder.rglob("*") if job.id in path.name] == []

    asyncio.run(scenario())
    with service.store.engine.connect() as connection:
        for table in ("jobs", "events", "owners"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() == 0  # noqa: S608


def test_files_without_a_job_are_swept_once_they_are_old(service: Service, scan: Path) -> None:
    async def scenario() -> None:
        kept = await service.submitted(scan)
        for name in ("recent", "ancient"):
            await service.storage.put(f"jobs/{name}/uploads/0", b"x")
        service.make_old("jobs/ancient", 2 * HOUR)
        service.make_old(f"jobs/{kept.id}", 2 * HOUR)
        assert await service.jobs.sweep(None) == 1
        assert service.files == sorted([f"jobs/{kept.id}/uploads/0", "jobs/recent/uploads/0"])

    asyncio.run(scenario())


def test_an_orphan_that_cannot_be_removed_keeps_no_other(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        for name in ("a", "stubborn", "z"):
            await service.storage.put(f"jobs/{name}/uploads/0", b"x")
            service.make_old(f"jobs/{name}", 2 * HOUR)
        await service.storage.put("checks/old", b"x")
        service.make_old("checks", 2 * HOUR)
        remove = Storage.delete_prefix

        async def refuse(storage: Storage, prefix: str) -> int:
            if prefix == "jobs/stubborn":
                raise PermissionError
            return await remove(storage, prefix)

        with monkeypatch.context() as patch:
            patch.setattr(Storage, "delete_prefix", refuse)
            with pytest.raises(IncompleteSweepError) as told:
                await service.jobs.sweep(None)
        assert told.value.removed == 3
        assert service.files == ["jobs/stubborn/uploads/0"]
        assert await service.jobs.sweep(None) == 1

    asyncio.run(scenario())


def test_an_upload_on_its_way_is_nobodys_orphan(service: Service) -> None:
    """Its job is recorded once all of it is there, and its first file may not be complete yet."""
    partial = service.folder / "jobs/new/uploads/0#1"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"half")
    assert asyncio.run(service.jobs.sweep(None)) == 0
    assert partial.exists()
    service.make_old("jobs/new", 2 * HOUR)
    assert asyncio.run(service.jobs.sweep(None)) == 1
    assert service.files == []


def test_what_cut_short_attempts_stored_is_swept_and_the_result_is_not(service: Service, scan: Path) -> None:
    async def scenario() -> None:
        job = await service.submitted(scan)
        service.store.claim("dead:1")
        service.store.reap(silent_for=0, dead_workers=["dead:1"])
        held = service.store.claim("here:1")
        assert held is not None
        service.store.complete(held, artefacts=[], others=[], warnings=[], scores={}, timings={})
        for attempt in (1, 2):
            await service.storage.put(f"{job.prefix}/results/{attempt}/0", b"x")
        # However many files an attempt has stored, it is one.
        await service.storage.put(f"{job.prefix}/results/1/1", b"x")
        failed = await service.submitted(scan)
        held = service.store.claim("here:1")
        assert held is not None
        service.store.fail(held, internal("Test"))
        await service.storage.put(f"{failed.prefix}/results/1/0", b"x")
        # One that runs may be storing its results just now.
        running = await service.submitted(scan)
        service.store.claim("here:1")
        await service.storage.put(f"{running.prefix}/results/1/0", b"x")
        assert await service.jobs.sweep(None) == 2
        assert [file for file in service.files if "results" in file] == sorted(
            [f"{job.prefix}/results/2/0", f"{running.prefix}/results/1/0"]
        )

    asyncio.run(scenario())


def test_what_a_killed_check_of_the_store_wrote_is_swept(service: Service) -> None:
    async def scenario() -> None:
        await service.storage.put("checks/abc", b"x")
        assert await service.jobs.sweep(None) == 0
        service.make_old("checks", 2 * HOUR)
        assert await Sweeper(service.store, service.storage).sweep() == 1

    asyncio.run(scenario())
    assert service.files == []


def test_a_request_sent_twice_leaves_one_upload(service: Service, scan: Path) -> None:
    async def scenario() -> None:
        upload = Upload("phase", "doe.nii", "uploads/0", 5, "x")
        ids = set()
        for _ in range(2):
            job = Job(
                secrets.token_hex(16),
                "ann",
                State.QUEUED,
                {"method": "tkd"},
                (upload,),
                {},
                idempotency_key="k",
            )
            ids.add((await service.jobs.submit(job, {"uploads/0": scan})).id)
        assert len(ids) == 1
        assert service.files == [f"jobs/{ids.pop()}/uploads/0"]

    asyncio.run(scenario())
