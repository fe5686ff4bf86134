"""A worker takes what it can do, ends each job once, and hands back what it cannot finish."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from real_services import Postgres
from structlog.testing import capture_logs

from qsm_ai.jobs import holding, worker
from qsm_ai.jobs.breaker import Breaker
from qsm_ai.jobs.execution import Execution, ExecutionSettings, Outcome, Report
from qsm_ai.jobs.hub import Hub
from qsm_ai.jobs.memory import needed_mb
from qsm_ai.jobs.problem import Problem
from qsm_ai.jobs.process import ProcessPool
from qsm_ai.jobs.records import Job, State, StoredArtefact, StoredFile, Upload
from qsm_ai.jobs.scratch import Scratch
from qsm_ai.jobs.service import Jobs
from qsm_ai.jobs.store import JobStore
from qsm_ai.jobs.worker import Worker, WorkerSettings
from qsm_ai.storage import Storage

DOWN = Problem("triton-unavailable", "Down", 503, "The inference server cannot be reached.", "Wait.")
LATE = Problem("triton-timeout", "Late", 504, "The inference server did not answer in time.", "Wait.")
PATIENCE = 120.0
"""Seconds; on a quiet machine everything here takes a few."""


@dataclass
class Seen:
    """What a worker tells its observer."""

    ended: list[tuple[State, str | None]] = field(default_factory=list)
    held_back: bool = False

    def worker_looked(self, slots: int, busy: int, *, held_back: bool) -> None:
        assert 0 <= busy <= slots
        self.held_back = held_back

    def job_began(self, method: str, waited: float) -> None:
        assert waited >= 0

    def stage_done(self, stage: str, method: str, seconds: float) -> None:
        assert seconds >= 0

    def job_ended(
        self,
        state: State,
        method: str,
        seconds: float,
        problem: str | None,
        since_queued: float | None = None,
    ) -> None:
        self.ended.append((state, problem))

    def score(self, name: str, value: float) -> None:
        assert np.isfinite(value)

    def triton_called(self, outcome: str, seconds: float) -> None:
        assert seconds >= 0


class SlowToAnswer(JobStore):
    """Records the end of a job at once, and is slow to say so."""

    def complete(self, job: Job, **result: Any) -> bool:
        recorded = super().complete(job, **result)
        time.sleep(2.0)
        return recorded


class Endless:
    """Computes until it is stopped, or until a problem comes."""

    def __init__(self, problem: Problem | None = None) -> None:
        self.problem = problem
        self.performed: list[str] = []

    async def perform(self, job: Job, seconds: float | None, report: Report) -> Outcome:
        self.performed.append(job.id)
        await asyncio.sleep(0.1 if self.problem else 3600)
        return Outcome(self.problem)

    async def forget(self, job: Job) -> None:
        """Nothing was stored."""


class House:
    """A database, a folder, a worker."""

    def __init__(
        self,
        folder: Path,
        kind: type[JobStore] = JobStore,
        slots: int = 1,
        *,
        url: str = "",
        execution: Any = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.store = kind(url or f"sqlite:///{folder / 'jobs.db'}")
        self.storage = Storage.from_url(str(folder / "objects"))
        self.hub = Hub()
        self.pool = ProcessPool(slots)
        self.seen = Seen()
        self.trouble: Problem | None = DOWN
        limits = ExecutionSettings(
            "127.0.0.1:1", job_timeout=settings.pop("job_timeout", 300.0), triton_timeout=5.0
        )
        scratch = Scratch(folder / "scratch")
        self.worker = Worker(
            store=self.store,
            execution=execution or Execution(self.storage, self.pool, scratch, limits),
            breaker=Breaker(self._probe),
            hub=self.hub,
            settings=WorkerSettings(slots, settings.pop("memory_mb", 100_000), **settings),
            observer=self.seen,
        )
        self.jobs = Jobs(
            store=self.store,
            storage=self.storage,
            hub=self.hub,
            slots=slots,
            max_queued=9,
            forget=lambda _: None,
        )

    async def _probe(self) -> Problem | None:
        return self.trouble

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.worker.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.pool.close()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - the database tells nobody
                await asyncio.sleep(0.05)

    def state(self, job: Job) -> State:
        return self.store.get(job.id).state

    def files(self) -> list[str]:
        return sorted(
            str(p.relative_to(self.folder / "objects"))
            for p in self.folder.rglob("objects/**/*")
            if p.is_file()
        )


def a_job(files: dict[str, Path], method: str = "tkd", **changes: Any) -> tuple[Job, dict[str, Path]]:
    uploads = tuple(
        Upload(role, path.name, f"uploads/{number}", path.stat().st_size, "x")
        for number, (role, path) in enumerate(files.items())
    )
    job = Job(
        secrets.token_hex(16),
        "ann",
        State.QUEUED,
        {"method": method},
        uploads,
        {"voxels": 84480, "echoes": 1},
    )
    return replace(job, **changes), {upload.key: files[upload.role] for upload in uploads}


@pytest.fixture
def small(files: Any) -> dict[str, Path]:
    return {"local_field": files.local_field, "mask": files.mask}


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A field on which total variation works for longer than any test waits."""
    folder = tmp_path_factory.mktemp("long")
    volume = np.random.default_rng(3).normal(0, 0.02, (128, 128, 128)).astype(np.float32)
    paths = {"local_field": folder / "local.nii", "mask": folder / "mask.nii"}
    nib.save(nib.Nifti1Image(volume, np.eye(4)), paths["local_field"])
    nib.save(nib.Nifti1Image((np.abs(volume) < 1).astype(np.uint8), np.eye(4)), paths["mask"])
    return paths


def test_a_job_just_recorded_as_done_is_not_taken_for_lost(tmp_path: Path, small: dict[str, Path]) -> None:
    """It beats no more; the next heartbeat, while it is tidied up, must not undo it."""
    house = House(tmp_path, SlowToAnswer)

    async def scenario() -> Job:
        async with house.at_work():
            job = await house.jobs.submit(*a_job(small))
            await house.until(lambda: bool(house.seen.ended))
            return job

    job = house.store.get(asyncio.run(scenario()).id)
    assert job.state is State.DONE
    assert house.seen.ended == [(State.DONE, None)]
    for kept in (*job.artefacts, *job.others):
        assert f"{job.prefix}/{kept.key}" in house.files()
    assert list((tmp_path / "scratch").iterdir()) == []
    house.store.close()


def test_jobs_for_the_network_wait_while_the_others_are_done(tmp_path: Path, small: dict[str, Path]) -> None:
    """With one slot, and the waiting job first in the queue."""
    house = House(tmp_path)

    async def scenario() -> None:
        waiting = await house.jobs.submit(*a_job(small, "qsm-vit"))
        async with house.at_work():
            await house.until(lambda: house.store.get(waiting.id).note == f"Waiting: {DOWN.detail}")
            other = await house.jobs.submit(*a_job(small, "tkd"))
            await house.until(lambda: house.state(other) is State.DONE)
            found = house.store.get(waiting.id)
            assert (found.state, found.attempt) == (State.QUEUED, 0)
            assert house.seen.held_back
            # The server says it is ready again, and is not: the job comes back to its place.
            house.trouble = None
            await house.until(lambda: house.store.get(waiting.id).attempt >= 1)
            await house.until(lambda: house.state(waiting) is State.QUEUED)
            assert [each.id for each in house.store.waiting()] == [waiting.id]
        assert house.state(waiting) is State.QUEUED

    asyncio.run(scenario())
    assert [key for key in house.files() if "results" in key and "/results/0" in key] == []
    house.store.close()


def test_without_patience_a_job_fails_with_the_servers_problem(
    tmp_path: Path, small: dict[str, Path]
) -> None:
    house = House(tmp_path, patience=0.2)

    async def scenario() -> Job:
        async with house.at_work():
            job = await house.jobs.submit(*a_job(small, "qsm-vit"))
            await house.until(lambda: house.state(job).is_final)
            return job

    job = house.store.get(asyncio.run(scenario()).id)
    assert (job.problem or {})["code"] == "triton-unavailable"
    assert job.attempt == 0
    assert len(house.files()) == 2, "the upload is kept for a retry"
    house.store.close()


def test_a_job_that_does_not_fit_waits_for_those_that_run(tmp_path: Path, long: dict[str, Path]) -> None:
    job, _ = a_job(long)
    house = House(tmp_path, slots=2, memory_mb=int(1.5 * needed_mb(job)))

    async def scenario() -> None:
        async with house.at_work():
            first = await house.jobs.submit(*a_job(long, "tv"))
            second = await house.jobs.submit(*a_job(long, "tv"))
            await house.until(lambda: house.state(first) is State.RUNNING)
            await asyncio.sleep(1.5)
            assert house.state(second) is State.QUEUED
            await house.jobs.cancel(first.id)
            await house.until(lambda: house.state(second) is State.RUNNING)

    asyncio.run(scenario())
    house.store.close()


def test_a_job_past_its_deadline_is_stopped(tmp_path: Path, long: dict[str, Path]) -> None:
    house = House(tmp_path)

    async def scenario() -> Job:
        async with house.at_work():
            job = await house.jobs.submit(*a_job(long, "tv", deadline_at=house.store.now() + 2))
            await house.until(lambda: house.state(job).is_final)
            return job

    job = house.store.get(asyncio.run(scenario()).id)
    assert (job.problem or {})["code"] == "deadline-exceeded"
    assert (job.finished_at or 0) >= (job.deadline_at or 0)
    assert list((tmp_path / "scratch").iterdir()) == []
    house.store.close()


def test_draining_lets_a_short_job_end_and_takes_no_other(tmp_path: Path, small: dict[str, Path]) -> None:
    house = House(tmp_path)

    async def scenario() -> tuple[Job, Job]:
        async with house.at_work():
            first = await house.jobs.submit(*a_job(small))
            second = await house.jobs.submit(*a_job(small))
            await house.until(lambda: house.state(first) is State.RUNNING)
            await house.worker.drain(PATIENCE)
            assert house.worker.is_draining
            await house.until(lambda: any(worker.draining for worker in house.store.workers()))
        return first, second

    first, second = asyncio.run(scenario())
    assert house.state(first) is State.DONE
    assert house.state(second) is State.QUEUED
    assert house.store.workers() == []
    house.store.close()


def test_a_job_that_does_not_end_in_time_is_handed_back_without_blame(
    tmp_path: Path, long: dict[str, Path]
) -> None:
    house = House(tmp_path)

    async def scenario() -> Job:
        async with house.at_work():
            job = await house.jobs.submit(*a_job(long, "tv"))
            await house.until(lambda: house.state(job) is State.RUNNING)
            await house.worker.drain(0.1)
        return job

    job = asyncio.run(scenario())
    assert [each.id for each in house.store.waiting()] == [job.id]
    assert all("results" not in key for key in house.files())
    assert list((tmp_path / "scratch").iterdir()) == []
    house.store.close()


def test_a_worker_that_was_given_up_removes_what_it_stored(tmp_path: Path, small: dict[str, Path]) -> None:
    """Its job was taken back while it computed; what it stores must not stay beside what counts."""

    class TakesBack(JobStore):
        def complete(self, job: Job, **result: Any) -> bool:
            if job.attempt == 1:
                self.reap(silent_for=-1000.0)
            return super().complete(job, **result)

    house = House(tmp_path, TakesBack)

    async def scenario() -> Job:
        async with house.at_work():
            job = await house.jobs.submit(*a_job(small))
            await house.until(lambda: house.state(job) is State.DONE)
            return job

    job = house.store.get(asyncio.run(scenario()).id)
    assert job.attempt == 2
    stored = {key for key in house.files() if "/results/" in key}
    assert stored == {f"{job.prefix}/{file.key}" for file in (*job.artefacts, *job.others)}
    house.store.close()


def test_results_of_an_attempt_that_was_killed_are_gone_once_another_has_ended(
    tmp_path: Path, small: dict[str, Path]
) -> None:
    house = House(tmp_path)

    async def scenario() -> Job:
        job = await house.jobs.submit(*a_job(small))
        # A worker stores half of its results and is killed.
        lost = await asyncio.to_thread(house.store.claim, "elsewhere:1")
        assert lost is not None
        await house.storage.put(f"{job.prefix}/results/1/0", b"half")
        await asyncio.to_thread(house.store.reap, silent_for=0, dead_workers=["elsewhere:1"])
        async with house.at_work():
            await house.until(lambda: house.state(job) is State.DONE)
        return job

    job = house.store.get(asyncio.run(scenario()).id)
    assert {key.split("/")[3] for key in house.files() if "/results/" in key} == {"2"}
    assert job.attempt == 2
    house.store.close()


def test_a_scan_for_which_no_worker_has_the_memory_is_refused_at_once(
    tmp_path: Path, small: dict[str, Path]
) -> None:
    from qsm_ai.jobs.errors import TooLargeForWorkersError

    house = House(tmp_path, memory_mb=500)

    async def scenario() -> None:
        async with house.at_work():
            await house.until(lambda: bool(house.store.workers()))
            with pytest.raises(TooLargeForWorkersError) as refused:
                await house.jobs.submit(*a_job(small, summary={"voxels": 500**3, "echoes": 8}))
            assert refused.value.largest_mb == 500
            assert refused.value.needed_mb > 10_000

    asyncio.run(scenario())
    assert house.files() == []
    house.store.close()


def test_records_of_stored_files_are_what_lies_in_the_store(tmp_path: Path, small: dict[str, Path]) -> None:
    house = House(tmp_path)

    async def scenario() -> tuple[Job, list[StoredArtefact | StoredFile], dict[str, int]]:
        async with house.at_work():
            submitted = await house.jobs.submit(*a_job(small))
            await house.until(lambda: house.state(submitted) is State.DONE)
        job = house.store.get(submitted.id)
        sizes = {info.key: info.size for info in await house.storage.entries(f"{job.prefix}/results")}
        return job, [*job.artefacts, *job.others], sizes

    job, recorded, sizes = asyncio.run(scenario())
    assert {f"{job.prefix}/{file.key}": file.size for file in recorded} == sizes
    assert house.store.usage("ann").stored_bytes == sum(sizes.values()) + sum(u.size for u in job.uploads)
    house.store.close()


def waiting(store: JobStore, method: str = "tkd") -> Job:
    """A job in the queue that has no files."""
    return store.add(
        Job(secrets.token_hex(16), "ann", State.QUEUED, {"method": method}, (), {}), max_queued=99
    )


class Elsewhere:
    """A worker of another machine that holds a job and beats as long as nothing keeps it from that."""

    def __init__(self, url: str) -> None:
        self.store = JobStore(url)
        self.held = self.store.claim("elsewhere:1")

    async def run(self, late: float) -> None:
        """Beat; after an interruption, so many seconds later than others."""
        assert self.held is not None
        while True:
            before = time.monotonic()
            try:
                await asyncio.to_thread(self.store.beat, {self.held.id: self.held.attempt})
            except Exception:
                await asyncio.sleep(late)
            await asyncio.sleep(0.2)
            if time.monotonic() - before > 1.5:
                await asyncio.sleep(late)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers that are lost after 4 s, and that look after each other all the time."""
    monkeypatch.setattr(holding, "BEAT_EVERY", 0.5)
    monkeypatch.setattr(worker, "SILENT_FOR", 4.0)
    monkeypatch.setattr(worker, "INTERRUPTED_AFTER", 2.0)
    monkeypatch.setattr(worker, "TEND_EVERY", 0.0)
    monkeypatch.setattr(worker, "STUCK_AFTER", 4.0)
    # To print a traceback for people takes longer than anything here.
    with capture_logs():
        yield


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """One that may be killed."""
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.usefixtures("hasty")
def test_a_database_that_was_away_costs_no_running_job(own_postgres: Postgres, tmp_path: Path) -> None:
    """When it comes back each heartbeat is old, and whoever looks first must not take the others for lost."""
    url = own_postgres.new_database()
    house = House(tmp_path, url=url, execution=Endless())
    theirs = waiting(house.store)
    elsewhere = Elsewhere(url)
    mine = waiting(house.store)

    async def scenario() -> None:
        async with house.at_work():
            beating = asyncio.create_task(elsewhere.run(late=1.5))
            await house.until(lambda: house.state(mine) is State.RUNNING)
            await asyncio.sleep(5.0)
            await asyncio.to_thread(own_postgres.kill)
            for _ in range(7):
                await asyncio.sleep(1.0)
                assert house.worker.is_alive(), "no restart mends a database"
            await asyncio.to_thread(own_postgres.start)
            await asyncio.sleep(7.0)
            for job in (mine, theirs):
                found = house.store.get(job.id)
                assert (found.state, found.attempt) == (State.RUNNING, 1)
            # One that is silent from then on is lost, as ever.
            beating.cancel()
            await house.until(lambda: house.state(theirs) is State.QUEUED)
            assert house.store.get(mine.id).attempt == 1

    asyncio.run(scenario())
    elsewhere.store.close()
    house.store.close()


@pytest.mark.usefixtures("hasty")
def test_a_machine_that_stood_still_costs_no_running_job(tmp_path: Path) -> None:
    house = House(tmp_path, execution=Endless())
    theirs = waiting(house.store)
    elsewhere = Elsewhere(f"sqlite:///{tmp_path / 'jobs.db'}")
    mine = waiting(house.store)

    async def scenario() -> None:
        async with house.at_work():
            beating = asyncio.create_task(elsewhere.run(late=1.0))
            await house.until(lambda: house.state(mine) is State.RUNNING)
            await asyncio.sleep(5.0)
            time.sleep(6.0)  # noqa: ASYNC251 - everything stands still
            await asyncio.sleep(3.0)
            for job in (mine, theirs):
                assert house.store.get(job.id).attempt == 1
                assert house.state(job) is State.RUNNING
            beating.cancel()

    asyncio.run(scenario())
    elsewhere.store.close()
    house.store.close()


@pytest.mark.usefixtures("hasty")
def test_a_worker_that_begins_gives_the_others_time_to_show_themselves(tmp_path: Path) -> None:
    """It may have begun because the database is back."""
    house = House(tmp_path, execution=Endless(), slots=0)
    theirs = waiting(house.store)
    assert house.store.claim("elsewhere:1") is not None
    with house.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET heartbeat_at = heartbeat_at - 3600")

    async def scenario() -> float:
        began = time.monotonic()
        async with house.at_work():
            await house.until(lambda: house.state(theirs) is State.QUEUED)
        return time.monotonic() - began

    assert asyncio.run(scenario()) >= 4.0
    house.store.close()


def test_a_worker_is_alive_while_it_cannot_look_and_not_before_it_runs(tmp_path: Path) -> None:
    class Away(JobStore):
        is_away = True

        def beat(self, holds: Any) -> dict[str, str]:
            if self.is_away:
                raise ConnectionError
            return super().beat(holds)

    house = House(tmp_path, Away, execution=Endless())
    assert not house.worker.is_alive()

    async def scenario() -> None:
        async with house.at_work():
            await asyncio.sleep(0.5)
            assert house.worker.is_alive()
            assert not house.worker.is_looking()
            house.store.is_away = False  # type: ignore[attr-defined]
            await house.until(house.worker.is_looking)

    asyncio.run(scenario())
    house.store.close()


def test_a_server_that_answers_too_late_keeps_the_jobs_in_the_queue(tmp_path: Path) -> None:
    """It says that it is ready, and no answer comes: one job after the other would fail."""
    late = Endless(LATE)
    house = House(tmp_path, execution=late, slots=2)
    house.trouble = None
    jobs = [waiting(house.store, "qsm-vit") for _ in range(12)]

    async def scenario() -> None:
        async with house.at_work():
            await house.until(lambda: len(late.performed) >= 3)
            await asyncio.sleep(1.0)
            assert len(late.performed) == 3, "after the first two, one at a time finds out"
            assert house.seen.held_back
            await house.until(lambda: house.store.get(jobs[-1].id).note == f"Waiting: {LATE.detail}")
        assert house.store.counts()[State.QUEUED] == 12
        assert house.seen.ended == []

    asyncio.run(scenario())
    house.store.close()


def test_what_keeps_the_jobs_is_told_now_and_then_and_not_at_every_look(tmp_path: Path) -> None:
    class Counts(JobStore):
        explained = 0

        def explain(self, method: str, note: str | None) -> list[str]:
            self.explained += 1
            return super().explain(method, note)

    house = House(tmp_path, Counts, execution=Endless())
    job = waiting(house.store, "qsm-vit")

    async def scenario() -> None:
        async with house.at_work():
            await house.until(lambda: house.store.get(job.id).note is not None)
            before = house.store.explained  # type: ignore[attr-defined]
            await asyncio.sleep(4.0)
            assert house.store.explained - before <= 5  # type: ignore[attr-defined]

    asyncio.run(scenario())
    house.store.close()


def test_a_job_taken_while_its_worker_is_told_to_end_is_handed_back(tmp_path: Path) -> None:
    class Slow(JobStore):
        def claim(self, worker: str, **choice: Any) -> Job | None:
            claimed.set()
            time.sleep(0.5)
            return super().claim(worker, **choice)

    claimed = threading.Event()
    house = House(tmp_path, Slow, execution=Endless())
    job = waiting(house.store)

    async def scenario() -> None:
        async with house.at_work():
            await asyncio.to_thread(claimed.wait)

    asyncio.run(scenario())
    found = house.store.get(job.id)
    assert (found.state, found.attempt) == (State.QUEUED, 1)
    house.store.close()


def test_a_job_that_was_cancelled_while_its_worker_is_told_to_end_is_cancelled(tmp_path: Path) -> None:
    class Deaf(JobStore):
        """The wish comes after the last look."""

        def beat(self, holds: Any) -> dict[str, str]:
            return {}

    house = House(tmp_path, Deaf, execution=Endless())
    job = waiting(house.store)

    async def scenario() -> None:
        async with house.at_work():
            await house.until(lambda: house.state(job) is State.RUNNING)
            house.store.cancel(job.id)

    asyncio.run(scenario())
    assert house.state(job) is State.CANCELLED
    assert house.seen.ended == [(State.CANCELLED, None)]
    house.store.close()
