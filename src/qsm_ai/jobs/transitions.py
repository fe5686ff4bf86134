"""How a job goes from one state to the next: the steps that happen inside one transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from qsm_ai.jobs.database import Database
from qsm_ai.jobs.errors import JobNotFoundError
from qsm_ai.jobs.records import Job, State
from qsm_ai.jobs.rows import job_of
from qsm_ai.jobs.tables import EVENTS, JOBS

QUEUE = "queue"
"""The topic of who waits for work."""

REMOVER = "retention"
"""Who holds an ended job that is about to be removed; no worker has this name."""


class Transitions:
    """What all parts of the store share."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def _now(self) -> Callable[[], float]:
        return self._database.now

    def _read(self, connection: sa.Connection, job_id: str, owner: str | None = None) -> Job:
        query = sa.select(JOBS).where(JOBS.c.id == job_id)
        if owner is not None:
            query = query.where(JOBS.c.owner == owner)
        row = connection.execute(query).mappings().first()
        if row is None:
            raise JobNotFoundError(job_id)
        return job_of(row)

    def _lock(self, connection: sa.Connection, job_id: str) -> Job:
        """The job, which nobody else changes until the transaction ends."""
        query = sa.select(JOBS).where(JOBS.c.id == job_id).with_for_update()
        row = connection.execute(query).mappings().first()
        if row is None:
            raise JobNotFoundError(job_id)
        return job_of(row)

    def _holds(self, connection: sa.Connection, job: Job) -> bool:
        """Whether this attempt is the one that counts; if so, it stays so until the transaction ends."""
        query = sa.select(JOBS.c.id).where(held(job.id, job.attempt)).with_for_update()
        return connection.execute(query).first() is not None

    def _finish(
        self,
        connection: sa.Connection,
        job_id: str,
        state: State,
        now: float,
        values: dict[str, Any] | None = None,
    ) -> None:
        connection.execute(
            JOBS.update()
            .where(JOBS.c.id == job_id)
            .values(state=state.value, finished_at=now, note=None, worker=None, **(values or {}))
        )
        data: dict[str, Any] = {"state": state.value}
        if values and values.get("problem"):
            data["problem"] = values["problem"]
        self._record(connection, job_id, "state", data, now)

    def _requeue(self, connection: sa.Connection, job_id: str, now: float, **values: Any) -> None:
        """Back into the queue as if never taken, at its old place unless ``queued_at`` is given.

        Raises
        ------
        JobNotFoundError
            If it is about to be removed: it is as good as gone.
        """
        holder = connection.execute(sa.select(JOBS.c.worker).where(JOBS.c.id == job_id)).scalar_one()
        if holder == REMOVER:
            raise JobNotFoundError(job_id)
        values = {
            "state": State.QUEUED.value,
            "worker": None,
            "heartbeat_at": None,
            "started_at": None,
            "finished_at": None,
            "stage": None,
            "fraction": 0.0,
            "note": None,
            "problem": None,
            "cancel_requested": False,
            **values,
        }
        connection.execute(JOBS.update().where(JOBS.c.id == job_id).values(**values))
        self._record(connection, job_id, "state", {"state": State.QUEUED.value}, now)

    def _record(
        self, connection: sa.Connection, job_id: str, kind: str, data: dict[str, Any], now: float
    ) -> None:
        connection.execute(EVENTS.insert().values(job_id=job_id, at=now, kind=kind, data=data))
        self._database.tell(connection, job_id)
        if data.get("state") == State.QUEUED.value:
            self._database.tell(connection, QUEUE)


def held(job_id: str, attempt: int) -> sa.ColumnElement[bool]:
    """That this attempt at a job is the one that counts."""
    return sa.and_(JOBS.c.id == job_id, JOBS.c.attempt == attempt, JOBS.c.state == State.RUNNING.value)
