"""Whoever looks at jobs at the same moment shares one question to the database, and sees what is so now."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Iterator, Sequence

import pytest

from qsm_ai.jobs.errors import JobNotFoundError
from qsm_ai.jobs.reading import JobReader
from qsm_ai.jobs.records import Job, State
from qsm_ai.jobs.store import JobStore


class Watched(JobStore):
    """Counts the questions, and answers when it is let."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.questions: list[list[str]] = []
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.failing = False

    def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        self.questions.append(list(job_ids))
        self.asked.set()
        assert self.may_answer.wait(10)
        if self.failing:
            raise OSError
        return super().get_many(job_ids)


@pytest.fixture
def store(database_url: str) -> Iterator[Watched]:
    store = Watched(database_url)
    yield store
    store.close()


@pytest.fixture
def reader(store: Watched) -> JobReader:
    return JobReader(store)


def a_job(store: JobStore, owner: str = "ann") -> Job:
    job = Job(secrets.token_hex(16), owner, State.QUEUED, {"method": "tkd"}, (), {})
    return store.add(job, max_queued=99)


def test_a_job_is_read_as_the_store_has_it(store: Watched, reader: JobReader) -> None:
    job = a_job(store)
    assert asyncio.run(reader.get(job.id, "ann")) == store.get(job.id)


def test_anothers_job_and_one_that_never_was_are_not_found(store: Watched, reader: JobReader) -> None:
    job = a_job(store)

    async def scenario() -> None:
        for job_id, owner in ((job.id, "bob"), (secrets.token_hex(16), "ann"), (job.id, "")):
            with pytest.raises(JobNotFoundError):
                await reader.get(job_id, owner)

    asyncio.run(scenario())


def test_who_asks_while_a_question_is_on_its_way_joins_the_next(store: Watched, reader: JobReader) -> None:
    jobs = [a_job(store) for _ in range(30)]

    async def scenario() -> None:
        store.may_answer.clear()
        first = asyncio.create_task(reader.get(jobs[0].id))
        await asyncio.to_thread(store.asked.wait, 10)
        # What is told must have been read after it was asked for: this is no part of the first question.
        rest = [asyncio.create_task(reader.get(job.id)) for job in (*jobs, jobs[0])]
        await asyncio.sleep(0.05)
        store.cancel(jobs[0].id)
        store.may_answer.set()
        await first
        found = await asyncio.gather(*rest)
        assert [job.id for job in found] == [*(job.id for job in jobs), jobs[0].id]
        assert found[0].state is found[-1].state is State.CANCELLED
        assert [len(question) for question in store.questions] == [1, 30]

    asyncio.run(scenario())


def test_who_does_not_wait_any_more_keeps_nobody_else_from_the_answer(
    store: Watched, reader: JobReader
) -> None:
    job = a_job(store)

    async def scenario() -> None:
        store.may_answer.clear()
        impatient, patient = (asyncio.create_task(reader.get(job.id)) for _ in range(2))
        await asyncio.sleep(0.05)
        impatient.cancel()
        store.may_answer.set()
        assert (await patient).id == job.id

    asyncio.run(scenario())


def test_a_database_that_fails_is_told_to_all_and_asked_again_later(
    store: Watched, reader: JobReader
) -> None:
    job = a_job(store)

    async def scenario() -> None:
        store.failing = True
        found = await asyncio.gather(*(reader.get(job.id) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(error, OSError) for error in found)
        store.failing = False
        assert (await reader.get(job.id)).id == job.id

    asyncio.run(scenario())
