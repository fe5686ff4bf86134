"""The durable record of every job: SQLite by default, PostgreSQL by URL.

The database is the queue. A worker *claims* a queued job in one transaction and from then on *holds* it by a
heartbeat; a job whose worker has fallen silent goes back to the queue. Every later write of a worker names
the attempt that it holds, so that a worker that was given up by mistake can change nothing any more: a job
finishes once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from qsm_ai.jobs.problem import Problem, worker_lost
from qsm_ai.jobs.records import Event, Job, State, StoredArtefact, StoredFile, Upload

MAX_LOST = 25
"""Workers that a job may lose before it is held to be what kills them."""

BEAT_EVERY = 3.0
"""Seconds between the heartbeats that a worker writes down."""

_metadata = sa.MetaData()

_jobs = sa.Table(
    "jobs",
    _metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("parameters", sa.JSON, nullable=False),
    sa.Column("uploads", sa.JSON, nullable=False),
    sa.Column("summary", sa.JSON, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False, default=0),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("lost", sa.Integer, nullable=False, default=0),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("queued_at", sa.Float(53), nullable=False),
    sa.Column("started_at", sa.Float(53)),
    sa.Column("finished_at", sa.Float(53)),
    sa.Column("stage", sa.String(40)),
    sa.Column("fraction", sa.Float(53), nullable=False, default=0.0),
    sa.Column("note", sa.Text),
    sa.Column("problem", sa.JSON(none_as_null=True)),
    sa.Column("scores", sa.JSON, nullable=False, default=dict),
    sa.Column("timings", sa.JSON, nullable=False, default=dict),
    sa.Column("warnings", sa.JSON, nullable=False, default=list),
    sa.Column("artefacts", sa.JSON, nullable=False, default=list),
    sa.Column("others", sa.JSON, nullable=False, default=list),
    sa.Column("request_id", sa.String(64)),
    sa.Column("worker", sa.String(200)),
    sa.Column("heartbeat_at", sa.Float(53)),
    sa.Column("cancel_requested", sa.Boolean, nullable=False, default=False),
    sa.Index("jobs_by_state", "state", "queued_at"),
    sa.Index("jobs_by_owner", "owner", "created_at"),
)

_events = sa.Table(
    "events",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(40), nullable=False),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("kind", sa.String(24), nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Index("events_by_job", "job_id", "id"),
    sqlite_autoincrement=True,
)

_owners = sa.Table(
    "owners",
    _metadata,
    sa.Column("owner", sa.String(200), primary_key=True),
    sa.Column("served_at", sa.Float(53), nullable=False),
)


class JobNotFoundError(LookupError):
    """No job has this id (or not for this owner)."""


class QueueFullError(RuntimeError):
    """As many jobs wait as may wait."""


class WrongStateError(RuntimeError):
    """The job is not in a state in which this can be done to it."""

    def __init__(self, state: State) -> None:
        super().__init__(f"the job is {state.value}")
        self.state = state


class JobStore:
    """Synchronous; call it from threads. Every method is one transaction.

    Parameters
    ----------
    url : str
        SQLAlchemy database URL: ``sqlite:////folder/jobs.db``, ``postgresql+psycopg://…``.
    clock : callable
        Seconds since 1970; for tests.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
        if self._engine.dialect.name == "sqlite":
            if self._engine.url.database:
                Path(self._engine.url.database).parent.mkdir(parents=True, exist_ok=True)
            event.listen(self._engine, "connect", _configure_sqlite)
            event.listen(self._engine, "begin", _begin)
        self._reader = self._engine.execution_options(reading=True)
        _metadata.create_all(self._engine)

    @property
    def engine(self) -> sa.Engine:
        """The database, for records that live beside the jobs."""
        return self._engine

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def now(self) -> float:
        """Seconds since 1970, by the store's clock."""
        return self._clock()

    def check(self) -> None:
        """Read from the database; raises whatever goes wrong."""
        with self._reader.begin() as connection:
            connection.execute(sa.select(sa.func.count()).select_from(_owners)).scalar_one()

    # ------------------------------------------------------------------ what clients do

    def add(self, job: Job, *, max_queued: int) -> Job:
        """Put a new job into the queue.

        Raises
        ------
        QueueFullError
            If ``max_queued`` jobs wait already.
        """
        now = self._clock()
        with self._engine.begin() as connection:
            self._refuse_when_full(connection, max_queued)
            connection.execute(
                _jobs.insert().values(
                    id=job.id,
                    owner=job.owner,
                    state=State.QUEUED.value,
                    parameters=job.parameters,
                    uploads=[asdict(upload) for upload in job.uploads],
                    summary=job.summary,
                    priority=job.priority,
                    created_at=now,
                    queued_at=now,
                    request_id=job.request_id,
                )
            )
            self._record(connection, job.id, "state", {"state": State.QUEUED.value}, now)
            return self._read(connection, job.id)

    def get(self, job_id: str, *, owner: str | None = None) -> Job:
        """The job; another owner's is not found.

        Raises
        ------
        JobNotFoundError
        """
        with self._reader.begin() as connection:
            return self._read(connection, job_id, owner)

    def page(
        self,
        *,
        owner: str | None = None,
        state: State | None = None,
        limit: int = 50,
        before: float | None = None,
    ) -> list[Job]:
        """Jobs, newest first; ``before`` is the ``created_at`` of the last one seen."""
        query = sa.select(_jobs).order_by(_jobs.c.created_at.desc(), _jobs.c.id).limit(limit)
        if owner is not None:
            query = query.where(_jobs.c.owner == owner)
        if state is not None:
            query = query.where(_jobs.c.state == state.value)
        if before is not None:
            query = query.where(_jobs.c.created_at < before)
        with self._reader.begin() as connection:
            return [_job(row) for row in connection.execute(query).mappings()]

    def cancel(self, job_id: str) -> Job:
        """Cancel a queued job at once, ask the worker of a running one to stop; an ended job stays as it is.

        Raises
        ------
        JobNotFoundError
        """
        now = self._clock()
        with self._engine.begin() as connection:
            job = self._read(connection, job_id)
            if job.state is State.QUEUED:
                self._finish(connection, job_id, State.CANCELLED, now)
            elif job.state is State.RUNNING:
                connection.execute(_jobs.update().where(_jobs.c.id == job_id).values(cancel_requested=True))
            return self._read(connection, job_id)

    def retry(self, job_id: str, *, max_queued: int) -> Job:
        """Queue a failed or cancelled job again, with the same upload.

        Raises
        ------
        JobNotFoundError, WrongStateError, QueueFullError
        """
        now = self._clock()
        with self._engine.begin() as connection:
            job = self._read(connection, job_id)
            if job.state not in (State.FAILED, State.CANCELLED):
                raise WrongStateError(job.state)
            self._refuse_when_full(connection, max_queued)
            self._requeue(connection, job_id, now, lost=0)
            return self._read(connection, job_id)

    def delete(self, job_id: str) -> None:
        """Forget a job and its events; a worker that still runs it finds that it holds nothing any more."""
        with self._engine.begin() as connection:
            connection.execute(_events.delete().where(_events.c.job_id == job_id))
            connection.execute(_jobs.delete().where(_jobs.c.id == job_id))
        if self._engine.dialect.name == "sqlite":
            self._empty_journal()

    def events(self, job_id: str, after: int = 0) -> list[Event]:
        """What happened to a job since event ``after``, oldest first."""
        query = (
            sa.select(_events).where(_events.c.job_id == job_id, _events.c.id > after).order_by(_events.c.id)
        )
        with self._reader.begin() as connection:
            return [Event(**row) for row in connection.execute(query).mappings()]

    def queue(self) -> list[str]:
        """Ids of the queued jobs in the order in which they will be taken."""
        with self._reader.begin() as connection:
            return self._order(connection)

    def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        query = sa.select(_jobs.c.state, sa.func.count()).group_by(_jobs.c.state)
        with self._reader.begin() as connection:
            found = {row[0]: row[1] for row in connection.execute(query)}
        return {state: found.get(state.value, 0) for state in State}

    def oldest_queued(self) -> float | None:
        """When the job that waits longest was queued."""
        query = sa.select(sa.func.min(_jobs.c.queued_at)).where(_jobs.c.state == State.QUEUED.value)
        with self._reader.begin() as connection:
            value = connection.execute(query).scalar_one()
            return None if value is None else float(value)

    def known_ids(self) -> set[str]:
        """Ids of all jobs."""
        with self._reader.begin() as connection:
            return set(connection.execute(sa.select(_jobs.c.id)).scalars())

    def finished_before(self, moment: float) -> list[str]:
        """Ids of the jobs that ended before ``moment``."""
        query = sa.select(_jobs.c.id).where(_jobs.c.finished_at < moment)
        with self._reader.begin() as connection:
            return [str(found) for found in connection.execute(query).scalars()]

    # ------------------------------------------------------------------ what workers do

    def claim(self, worker: str) -> Job | None:
        """Take the next job of the queue, or none. From now on the worker must keep up its heartbeat."""
        now = self._clock()
        with self._engine.begin() as connection:
            for job_id in self._order(connection):
                taken = connection.execute(
                    _jobs.update()
                    .where(_jobs.c.id == job_id, _jobs.c.state == State.QUEUED.value)
                    .values(
                        state=State.RUNNING.value,
                        attempt=_jobs.c.attempt + 1,
                        worker=worker,
                        heartbeat_at=now,
                        started_at=now,
                        finished_at=None,
                        stage=None,
                        fraction=0.0,
                        note=None,
                        cancel_requested=False,
                    )
                )
                if taken.rowcount != 1:
                    continue
                job = self._read(connection, job_id)
                served = connection.execute(
                    _owners.update().where(_owners.c.owner == job.owner).values(served_at=now)
                )
                if served.rowcount == 0:
                    # Another worker may take the first job of the same owner at this moment.
                    with suppress(sa.exc.IntegrityError), connection.begin_nested():
                        connection.execute(_owners.insert().values(owner=job.owner, served_at=now))
                self._record(
                    connection, job_id, "state", {"state": State.RUNNING.value, "attempt": job.attempt}, now
                )
                return job
        return None

    def beat(self, held: Mapping[str, int]) -> dict[str, str]:
        """Say that the jobs (id: attempt) are still worked on; which of them must stop, and why.

        Returns
        -------
        dict
            id: ``"cancel"`` if its user wants it stopped, ``"lost"`` if it is not ours any more.
        """
        if not held:
            return {}
        stop: dict[str, str] = {}
        overdue: list[sa.ColumnElement[bool]] = []
        now = self._clock()
        with self._reader.begin() as connection:
            for job_id, attempt in held.items():
                mine = self._held(job_id, attempt)
                row = connection.execute(
                    sa.select(_jobs.c.cancel_requested, _jobs.c.heartbeat_at).where(mine)
                ).first()
                if row is None:
                    stop[job_id] = "lost"
                elif row[0]:
                    stop[job_id] = "cancel"
                elif row[1] < now - BEAT_EVERY:
                    overdue.append(mine)
        if overdue:
            with self._engine.begin() as connection:
                for mine in overdue:
                    connection.execute(_jobs.update().where(mine).values(heartbeat_at=now))
        return stop

    def progress(
        self, job: Job, *, stage: str | None = None, fraction: float = 0.0, note: str | None = None
    ) -> bool:
        """Record how far a held job is; ``False`` if it is not held any more."""
        now = self._clock()
        with self._engine.begin() as connection:
            changed = connection.execute(
                _jobs.update()
                .where(self._held(job.id, job.attempt))
                .values(stage=stage, fraction=fraction, note=note, heartbeat_at=now)
            )
            if changed.rowcount == 0:
                return False
            data = {"stage": stage, "fraction": round(fraction, 4), "note": note}
            self._record(connection, job.id, "progress", data, now)
            return True

    def complete(
        self,
        job: Job,
        *,
        artefacts: Iterable[StoredArtefact],
        others: Iterable[StoredFile],
        warnings: Iterable[str],
        scores: Mapping[str, float],
        timings: Mapping[str, float],
    ) -> bool:
        """Record the result of a held job; ``False`` if it is not held any more."""
        values = {
            "artefacts": [asdict(artefact) for artefact in artefacts],
            "others": [asdict(other) for other in others],
            "warnings": list(warnings),
            "scores": dict(scores),
            "timings": dict(timings),
            "fraction": 1.0,
            "problem": None,
        }
        return self._end(job, State.DONE, values)

    def fail(self, job: Job, problem: Problem) -> bool:
        """Record why a held job failed; ``False`` if it is not held any more."""
        return self._end(job, State.FAILED, {"problem": problem.to_dict()})

    def stopped(self, job: Job) -> bool:
        """Record that a held job was stopped as its user wanted; ``False`` if it is not held any more."""
        return self._end(job, State.CANCELLED, {})

    def give_back(self, job: Job) -> bool:
        """Put a held job back into the queue, where it was, because its worker shuts down."""
        now = self._clock()
        with self._engine.begin() as connection:
            mine = connection.execute(sa.select(_jobs.c.id).where(self._held(job.id, job.attempt))).first()
            if mine is None:
                return False
            self._requeue(connection, job.id, now, keep_place=True)
            return True

    def reap(self, *, silent_for: float, dead_workers: Sequence[str] = ()) -> list[str]:
        """Take back the jobs of workers that are dead or were silent for ``silent_for`` seconds.

        They return to their old place in the queue; a job that lost its worker ``MAX_LOST`` times fails,
        for it is probably what kills the workers.

        Returns
        -------
        list
            Ids of the jobs taken back.
        """
        now = self._clock()
        query = sa.select(_jobs.c.id, _jobs.c.lost, _jobs.c.cancel_requested).where(
            _jobs.c.state == State.RUNNING.value,
            sa.or_(_jobs.c.heartbeat_at < now - silent_for, _jobs.c.worker.in_(list(dead_workers))),
        )
        with self._engine.begin() as connection:
            rows = list(connection.execute(query))
            for job_id, lost, cancel_requested in rows:
                if cancel_requested:
                    self._finish(connection, job_id, State.CANCELLED, now)
                elif lost + 1 >= MAX_LOST:
                    problem = worker_lost(f"Its worker died {MAX_LOST} times while computing it.")
                    self._finish(connection, job_id, State.FAILED, now, {"problem": problem.to_dict()})
                else:
                    self._requeue(connection, job_id, now, keep_place=True, lost=lost + 1)
            return [str(row[0]) for row in rows]

    def workers(self) -> set[str]:
        """Names of the workers that hold jobs."""
        query = sa.select(_jobs.c.worker).where(_jobs.c.state == State.RUNNING.value).distinct()
        with self._reader.begin() as connection:
            return {str(name) for name in connection.execute(query).scalars() if name}

    def pace(self, method: str) -> float | None:
        """Seconds per unit of work (voxels times echoes) of this method lately; ``None`` if unknown."""
        query = (
            sa.select(_jobs)
            .where(_jobs.c.state == State.DONE.value)
            .order_by(_jobs.c.finished_at.desc())
            .limit(50)
        )
        with self._reader.begin() as connection:
            jobs = [_job(row) for row in connection.execute(query).mappings()]
        paces = sorted(
            (job.finished_at - job.started_at) / job.work
            for job in jobs
            if job.method == method and job.work and job.finished_at and job.started_at
        )
        return paces[len(paces) // 2] if paces else None

    def _empty_journal(self) -> None:
        """What was deleted is overwritten in the database; its journal would still hold the file names."""
        connection = self._engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()

    # ------------------------------------------------------------------ inside one transaction

    def _order(self, connection: sa.Connection) -> list[str]:
        rows = connection.execute(
            sa.select(_jobs.c.id, _jobs.c.owner, _jobs.c.priority, _jobs.c.queued_at).where(
                _jobs.c.state == State.QUEUED.value
            )
        ).all()
        served = {row[0]: float(row[1]) for row in connection.execute(sa.select(_owners))}
        return fair_order([(str(i), str(o), int(p), float(q)) for i, o, p, q in rows], served)

    def _refuse_when_full(self, connection: sa.Connection, max_queued: int) -> None:
        waiting = sa.select(sa.func.count()).select_from(_jobs).where(_jobs.c.state == State.QUEUED.value)
        if connection.execute(waiting).scalar_one() >= max_queued:
            raise QueueFullError

    def _held(self, job_id: str, attempt: int) -> sa.ColumnElement[bool]:
        return sa.and_(_jobs.c.id == job_id, _jobs.c.attempt == attempt, _jobs.c.state == State.RUNNING.value)

    def _end(self, job: Job, state: State, values: dict[str, Any]) -> bool:
        now = self._clock()
        with self._engine.begin() as connection:
            mine = connection.execute(sa.select(_jobs.c.id).where(self._held(job.id, job.attempt))).first()
            if mine is None:
                return False
            self._finish(connection, job.id, state, now, values)
            return True

    def _finish(
        self,
        connection: sa.Connection,
        job_id: str,
        state: State,
        now: float,
        values: dict[str, Any] | None = None,
    ) -> None:
        connection.execute(
            _jobs.update()
            .where(_jobs.c.id == job_id)
            .values(state=state.value, finished_at=now, note=None, worker=None, **(values or {}))
        )
        data: dict[str, Any] = {"state": state.value}
        if values and values.get("problem"):
            data["problem"] = values["problem"]
        self._record(connection, job_id, "state", data, now)

    def _requeue(
        self,
        connection: sa.Connection,
        job_id: str,
        now: float,
        *,
        keep_place: bool = False,
        lost: int | None = None,
    ) -> None:
        values: dict[str, Any] = {
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
        }
        if not keep_place:
            values["queued_at"] = now
        if lost is not None:
            values["lost"] = lost
        connection.execute(_jobs.update().where(_jobs.c.id == job_id).values(**values))
        self._record(connection, job_id, "state", {"state": State.QUEUED.value}, now)

    def _record(
        self, connection: sa.Connection, job_id: str, kind: str, data: dict[str, Any], now: float
    ) -> None:
        connection.execute(_events.insert().values(job_id=job_id, at=now, kind=kind, data=data))

    def _read(self, connection: sa.Connection, job_id: str, owner: str | None = None) -> Job:
        query = sa.select(_jobs).where(_jobs.c.id == job_id)
        if owner is not None:
            query = query.where(_jobs.c.owner == owner)
        row = connection.execute(query).mappings().first()
        if row is None:
            raise JobNotFoundError(job_id)
        return _job(row)


def fair_order(queued: Iterable[tuple[str, str, int, float]], served: Mapping[str, float]) -> list[str]:
    """In which order queued jobs are taken: by priority, then owners in turn, each owner's oldest first.

    Parameters
    ----------
    queued : (id, owner, priority, queued_at)
    served : owner: when a job of this owner was last taken

    Returns
    -------
    list of ids
    """
    waiting = sorted(queued, key=lambda entry: (-entry[2], entry[3], entry[0]))
    last = dict(served)
    turn = max(last.values(), default=0.0)
    order: list[str] = []
    while waiting:
        level = waiting[0][2]
        heads: dict[str, tuple[str, str, int, float]] = {}
        for entry in waiting:
            if entry[2] == level:
                heads.setdefault(entry[1], entry)
        chosen = min(heads.values(), key=lambda entry: (last.get(entry[1], 0.0), entry[3], entry[0]))
        turn += 1.0
        last[chosen[1]] = turn
        waiting.remove(chosen)
        order.append(chosen[0])
    return order


def _job(row: Mapping[Any, Any]) -> Job:
    return Job(
        id=row["id"],
        owner=row["owner"],
        state=State(row["state"]),
        parameters=row["parameters"],
        uploads=tuple(Upload(**upload) for upload in row["uploads"]),
        summary=row["summary"],
        priority=row["priority"],
        attempt=row["attempt"],
        created_at=row["created_at"],
        queued_at=row["queued_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        stage=row["stage"],
        fraction=row["fraction"],
        note=row["note"],
        problem=row["problem"],
        scores=row["scores"],
        timings=row["timings"],
        artefacts=tuple(
            StoredArtefact(
                **{**artefact, "shape": tuple(artefact["shape"]), "voxel_size": tuple(artefact["voxel_size"])}
            )
            for artefact in row["artefacts"]
        ),
        others=tuple(StoredFile(**other) for other in row["others"]),
        warnings=tuple(row["warnings"]),
        request_id=row["request_id"],
    )


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout=30000")
    with suppress(Exception):
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA secure_delete=ON")


def _begin(connection: sa.Connection) -> None:
    # A transaction that turns from reading to writing half way fails under contention instead of waiting.
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


__all__ = [
    "MAX_LOST",
    "JobNotFoundError",
    "JobStore",
    "QueueFullError",
    "WrongStateError",
    "fair_order",
]
