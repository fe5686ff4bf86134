"""Which workers there are, what they can do, and what is done for jobs that none of them can take."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from qsm_ai.jobs.database import persistent
from qsm_ai.jobs.problem import Problem, expired
from qsm_ai.jobs.records import State, WorkerRecord
from qsm_ai.jobs.tables import JOBS, WORKERS
from qsm_ai.jobs.transitions import Transitions

GONE_AFTER = 20.0
"""Seconds without a word after which a worker is not counted any more."""

FORGOTTEN_AFTER = 600.0


class Fleet(Transitions):
    """The workers' record of themselves."""

    @persistent
    def announce(self, worker: WorkerRecord) -> None:
        """Say that a worker is there, and how it is; ``seen_at`` is now."""
        now = self._now()
        values: dict[str, Any] = {
            "slots": worker.slots,
            "memory_mb": worker.memory_mb,
            "seen_at": now,
            "draining": worker.draining,
            "trouble": worker.trouble,
            "trouble_since": None
            if worker.trouble is None
            else sa.func.coalesce(WORKERS.c.trouble_since, sa.literal(now)),
        }
        with self._database.writing() as connection:
            known = connection.execute(WORKERS.update().where(WORKERS.c.name == worker.name).values(**values))
            if known.rowcount == 0:
                values["trouble_since"] = None if worker.trouble is None else now
                connection.execute(WORKERS.insert().values(name=worker.name, started_at=now, **values))
                connection.execute(WORKERS.delete().where(WORKERS.c.seen_at < now - FORGOTTEN_AFTER))

    @persistent
    def retire(self, name: str) -> None:
        """Forget a worker that ends."""
        with self._database.writing() as connection:
            connection.execute(WORKERS.delete().where(WORKERS.c.name == name))

    @persistent
    def workers(self) -> list[WorkerRecord]:
        """The workers that told of themselves lately."""
        query = sa.select(WORKERS).where(WORKERS.c.seen_at >= self._now() - GONE_AFTER)
        with self._database.reading() as connection:
            return [WorkerRecord(**row) for row in connection.execute(query.order_by("name")).mappings()]

    @persistent
    def expire(self) -> list[str]:
        """Fail the queued jobs whose deadline has passed; their ids."""
        late = sa.and_(JOBS.c.state == State.QUEUED.value, JOBS.c.deadline_at < self._now())
        return self._fail_waiting(late, expired())

    @persistent
    def give_up(self, method: str, problem: Problem, *, waiting_since: float) -> list[str]:
        """Fail the jobs of a method that wait since before ``waiting_since`` for what does not come."""
        waiting = sa.and_(
            JOBS.c.state == State.QUEUED.value, JOBS.c.method == method, JOBS.c.queued_at < waiting_since
        )
        return self._fail_waiting(waiting, problem)

    @persistent
    def explain(self, method: str, note: str | None) -> list[str]:
        """Say why the queued jobs of a method wait, or that they do not any more; ids of those concerned.

        What is said already stays: workers that see different reasons would correct each other for ever.
        """
        now = self._now()
        concerned = JOBS.c.note.is_not(None) if note is None else JOBS.c.note.is_(None)
        query = sa.select(JOBS.c.id).where(
            JOBS.c.state == State.QUEUED.value, JOBS.c.method == method, concerned
        )
        with self._database.reading() as connection:
            if connection.execute(query).first() is None:
                return []
        with self._database.writing() as connection:
            found = [str(row) for row in connection.execute(query.with_for_update()).scalars()]
            for job_id in found:
                connection.execute(JOBS.update().where(JOBS.c.id == job_id).values(note=note))
                data = {"stage": None, "fraction": 0.0, "note": note}
                self._record(connection, job_id, "progress", data, now)
            return found

    def _fail_waiting(self, which: sa.ColumnElement[bool], problem: Problem) -> list[str]:
        now = self._now()
        with self._database.reading() as connection:
            if connection.execute(sa.select(JOBS.c.id).where(which)).first() is None:
                return []
        with self._database.writing() as connection:
            found = list(connection.execute(sa.select(JOBS.c.id).where(which).with_for_update()).scalars())
            for job_id in found:
                self._finish(connection, job_id, State.FAILED, now, {"problem": problem.to_dict()})
            return [str(job_id) for job_id in found]
