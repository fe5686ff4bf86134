"""Looking at jobs, for everybody who asks at the same moment with one question to the database.

How a job stands is what a service is asked most of all. A way through a thread and a transaction cost far
more than the row that they bring. While one question is on its way, whoever else asks joins the next: the
busier the process, the more of them share one. Nothing is kept: what is told was read after it was asked for.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from qsm_ai.jobs.errors import JobNotFoundError
from qsm_ai.jobs.records import Job
from qsm_ai.jobs.store import JobStore

MOST_AT_ONCE = 500
"""Jobs in one question; databases allow so many parameters and more."""


class JobReader:
    """Reads jobs.

    Parameters
    ----------
    store : JobStore
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._asked: defaultdict[str, list[asyncio.Future[Job]]] = defaultdict(list)
        self._reading: asyncio.Task[None] | None = None

    async def get(self, job_id: str, owner: str | None = None) -> Job:
        """The job; another owner's is not found.

        Raises
        ------
        JobNotFoundError
        """
        answer: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        self._asked[job_id].append(answer)
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        job = await answer
        if owner is not None and job.owner != owner:
            raise JobNotFoundError(job_id)
        return job

    async def _read(self) -> None:
        while self._asked:
            asked = {job_id: self._asked.pop(job_id) for job_id in list(self._asked)[:MOST_AT_ONCE]}
            try:
                found = await self._store.database.look_up(self._store.get_many, list(asked))
            except Exception as error:
                for answers in asked.values():
                    _tell(answers, error)
            else:
                for job_id, answers in asked.items():
                    _tell(answers, found.get(job_id) or JobNotFoundError(job_id))


def _tell(answers: list[asyncio.Future[Job]], found: Job | Exception) -> None:
    for answer in answers:
        if answer.done():
            continue  # who asked is gone
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)
