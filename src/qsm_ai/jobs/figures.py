"""Numbers about jobs: for estimates, quotas, metrics and the sweeping of what is left."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from qsm_ai.jobs.database import persistent
from qsm_ai.jobs.intake import UNFINISHED
from qsm_ai.jobs.records import Job, State
from qsm_ai.jobs.rows import job_of
from qsm_ai.jobs.tables import EVENTS, JOBS
from qsm_ai.jobs.transitions import Transitions

RECENT = 50
"""Jobs on which an estimate of the time rests."""


@dataclass(frozen=True)
class Usage:
    """What one owner takes up.

    Attributes
    ----------
    unfinished : int
        Jobs queued or running.
    stored_bytes : int
        Of uploads and results of all jobs.
    """

    unfinished: int
    stored_bytes: int


class Figures(Transitions):
    """What can be counted."""

    @persistent
    def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        query = sa.select(JOBS.c.state, sa.func.count()).group_by(JOBS.c.state)
        with self._database.reading() as connection:
            found = {row[0]: row[1] for row in connection.execute(query)}
        return {state: found.get(state.value, 0) for state in State}

    @persistent
    def usage(self, owner: str) -> Usage:
        """What an owner takes up, for quotas."""
        unfinished = sa.case((JOBS.c.state.in_(UNFINISHED), 1), else_=0)
        query = sa.select(
            sa.func.coalesce(sa.func.sum(unfinished), 0),
            sa.func.coalesce(sa.func.sum(JOBS.c.stored_bytes), 0),
        ).where(JOBS.c.owner == owner)
        with self._database.reading() as connection:
            jobs, stored = connection.execute(query).one()
            return Usage(int(jobs), int(stored))

    @persistent
    def oldest_queued(self) -> float | None:
        """When the job that waits longest was queued."""
        query = sa.select(sa.func.min(JOBS.c.queued_at)).where(JOBS.c.state == State.QUEUED.value)
        with self._database.reading() as connection:
            value = connection.execute(query).scalar_one()
            return None if value is None else float(value)

    @persistent
    def running(self) -> list[Job]:
        """The jobs that run, the one that began first in front."""
        query = sa.select(JOBS).where(JOBS.c.state == State.RUNNING.value).order_by(JOBS.c.started_at)
        with self._database.reading() as connection:
            return [job_of(row) for row in connection.execute(query).mappings()]

    @persistent
    def pace(self, method: str) -> float | None:
        """Seconds per unit of work (voxels times echoes) of this method lately; ``None`` if unknown."""
        query = (
            sa.select((JOBS.c.finished_at - JOBS.c.started_at) / JOBS.c.work)
            .where(JOBS.c.method == method, JOBS.c.state == State.DONE.value, JOBS.c.work > 0)
            .order_by(JOBS.c.finished_at.desc())
            .limit(RECENT)
        )
        with self._database.reading() as connection:
            paces = sorted(float(pace) for pace in connection.execute(query).scalars() if pace is not None)
        return paces[len(paces) // 2] if paces else None

    @persistent
    def known_ids(self) -> set[str]:
        """Ids of all jobs."""
        with self._database.reading() as connection:
            return set(connection.execute(sa.select(JOBS.c.id)).scalars())

    @persistent
    def finished_before(self, moment: float) -> list[str]:
        """Ids of the jobs that ended before ``moment``."""
        query = sa.select(JOBS.c.id).where(JOBS.c.finished_at < moment)
        with self._database.reading() as connection:
            return [str(found) for found in connection.execute(query).scalars()]

    @persistent
    def untidy_since(self, moment: float) -> list[Job]:
        """Jobs that ended after ``moment`` and of which an attempt that was cut short may have left files."""
        untidy = sa.or_(JOBS.c.attempt > 1, JOBS.c.state != State.DONE.value)
        query = sa.select(JOBS).where(JOBS.c.finished_at >= moment, JOBS.c.attempt > 0, untidy)
        with self._database.reading() as connection:
            return [job_of(row) for row in connection.execute(query).mappings()]

    @persistent
    def news(self, after: int, limit: int = 500) -> list[tuple[int, str]]:
        """Numbers and jobs of the events after ``after``, oldest first."""
        query = sa.select(EVENTS.c.id, EVENTS.c.job_id).where(EVENTS.c.id > after)
        with self._database.reading() as connection:
            return [
                (int(row[0]), str(row[1]))
                for row in connection.execute(query.order_by(EVENTS.c.id).limit(limit))
            ]

    @persistent
    def latest_event(self) -> int:
        """Number of the newest event."""
        with self._database.reading() as connection:
            return int(connection.execute(sa.select(sa.func.max(EVENTS.c.id))).scalar_one() or 0)
