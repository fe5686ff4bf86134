"""What users take up, and the queue as an administrator may see it: numbers and ages, nothing of any scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from qsm_ai.access.identity import alias
from qsm_ai.access.limits import Usage
from qsm_ai.jobs.records import State

_JOBS = sa.table(
    "jobs",
    sa.column("owner", sa.String),
    sa.column("state", sa.String),
    sa.column("priority", sa.Integer),
    sa.column("attempt", sa.Integer),
    sa.column("created_at", sa.Float),
    sa.column("queued_at", sa.Float),
    sa.column("started_at", sa.Float),
    sa.column("stage", sa.String),
    sa.column("fraction", sa.Float),
    sa.column("uploads", sa.JSON),
    sa.column("artefacts", sa.JSON),
    sa.column("others", sa.JSON),
)
_ON_THEIR_WAY = (State.QUEUED.value, State.RUNNING.value)


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


class Overview:
    """Looks at the jobs of all users. Synchronous; call it from threads.

    Parameters
    ----------
    engine : Engine
    clock : callable
        Seconds since 1970.
    """

    def __init__(self, engine: sa.Engine, clock: Callable[[], float]) -> None:
        self._reader = engine.execution_options(reading=True)
        self._clock = clock

    def usage(self, owner: str) -> Usage:
        """What a user takes up.

        Parameters
        ----------
        owner : str

        Returns
        -------
        Usage
        """
        query = sa.select(_JOBS.c.state, _JOBS.c.uploads, _JOBS.c.artefacts, _JOBS.c.others).where(
            _JOBS.c.owner == owner
        )
        jobs = stored = 0
        with self._reader.begin() as connection:
            for state, *files in connection.execute(query):
                jobs += state in _ON_THEIR_WAY
                stored += sum(int(entry["size"]) for entries in files for entry in entries or ())
        return Usage(jobs, stored)

    def on_their_way(self) -> list[QueuedJob]:
        """Every queued or running job, oldest first."""
        now = self._clock()
        query = (
            sa.select(
                _JOBS.c.owner,
                _JOBS.c.state,
                _JOBS.c.priority,
                _JOBS.c.attempt,
                _JOBS.c.queued_at,
                _JOBS.c.started_at,
                _JOBS.c.stage,
                _JOBS.c.fraction,
            )
            .where(_JOBS.c.state.in_(_ON_THEIR_WAY))
            .order_by(_JOBS.c.queued_at)
        )
        with self._reader.begin() as connection:
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
        alias=alias(row["owner"]),
        state=State(row["state"]),
        priority=row["priority"],
        attempt=row["attempt"],
        age=max(0.0, now - row["queued_at"]),
        running_for=None if started is None else max(0.0, now - started),
        stage=row["stage"],
        fraction=row["fraction"],
    )
