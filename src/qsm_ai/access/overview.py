"""The queue as an administrator may see it: numbers and ages, nothing of any scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from qsm_ai.jobs.database import Database
from qsm_ai.jobs.intake import UNFINISHED
from qsm_ai.jobs.records import State
from qsm_ai.jobs.tables import JOBS
from qsm_ai.observe.users import user_tag


@dataclass(frozen=True)
class OwnersQueue:
    """What one user has on its way.

    Attributes
    ----------
    alias : of the owner
    queued, running : jobs
    oldest_wait : s, of those queued; ``None`` without any
    """

    alias: str
    queued: int
    running: int
    oldest_wait: float | None


@dataclass(frozen=True)
class QueuedJob:
    """A job on its way, without its id, its files or its parameters.

    Attributes
    ----------
    alias : of the owner
    state : State
    priority, attempt : int
    age : s, since it was queued
    running_for : s, since a worker took it
    stage : str or None
    fraction : of the whole
    """

    alias: str
    state: State
    priority: int
    attempt: int
    age: float
    running_for: float | None
    stage: str | None
    fraction: float


def on_their_way(database: Database) -> list[QueuedJob]:
    """Every queued or running job, oldest first.

    Parameters
    ----------
    database : Database

    Returns
    -------
    list of QueuedJob
    """
    now = database.now()
    query = (
        sa.select(
            JOBS.c.owner,
            JOBS.c.state,
            JOBS.c.priority,
            JOBS.c.attempt,
            JOBS.c.queued_at,
            JOBS.c.started_at,
            JOBS.c.stage,
            JOBS.c.fraction,
        )
        .where(JOBS.c.state.in_(UNFINISHED))
        .order_by(JOBS.c.queued_at)
    )
    with database.reading() as connection:
        return [_queued(row, now) for row in connection.execute(query).mappings()]


def by_owner(jobs: list[QueuedJob]) -> list[OwnersQueue]:
    """The same by user, who waits longest first.

    Parameters
    ----------
    jobs : list of QueuedJob

    Returns
    -------
    list of OwnersQueue
    """
    found = []
    for name in dict.fromkeys(job.alias for job in jobs):
        mine = [job for job in jobs if job.alias == name]
        waits = [job.age for job in mine if job.state is State.QUEUED]
        found.append(OwnersQueue(name, len(waits), len(mine) - len(waits), max(waits, default=None)))
    return sorted(found, key=lambda entry: -(entry.oldest_wait or 0.0))


def _queued(row: Any, now: float) -> QueuedJob:
    started = row["started_at"]
    return QueuedJob(
        alias=user_tag(row["owner"]),
        state=State(row["state"]),
        priority=row["priority"],
        attempt=row["attempt"],
        age=max(0.0, now - row["queued_at"]),
        running_for=None if started is None else max(0.0, now - started),
        stage=row["stage"],
        fraction=row["fraction"],
    )
