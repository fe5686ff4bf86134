"""What workers do with jobs: take one, hold it by a heartbeat, end it once, give it back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from qsm_ai.jobs.database import persistent
from qsm_ai.jobs.fairness import fair_order
from qsm_ai.jobs.problem import Problem, worker_lost
from qsm_ai.jobs.records import Job, State, StoredArtefact, StoredFile, Waiting
from qsm_ai.jobs.rows import WAITING, waiting_of
from qsm_ai.jobs.tables import JOBS, OWNERS
from qsm_ai.jobs.transitions import REMOVER, Transitions, held

MAX_LOST = 25
"""Workers that a job may lose before it is held to be what kills them."""

BEAT_EVERY = 3.0
"""Seconds between the heartbeats that a worker writes down."""

OVERTAKEN_FOR = 60.0
"""Seconds in which smaller jobs may overtake one for which a worker has too little memory just now."""


class Holding(Transitions):
    """The workers' side of the store."""

    @persistent
    def claim(
        self,
        worker: str,
        *,
        without: Collection[str] = (),
        free_mb: int | None = None,
        whole_mb: int | None = None,
    ) -> Job | None:
        """Take the next job of the queue, or none. From now on the worker must keep up its heartbeat.

        Parameters
        ----------
        worker : str
            Its name.
        without : methods
            That it cannot do now.
        free_mb, whole_mb : int or None
            Memory that it has left now, and that it has when it does nothing, MiB.
        """
        now = self._now()
        with self._database.writing() as connection:
            for waiting in self._order(connection):
                if waiting.method in without or (whole_mb is not None and waiting.memory_mb > whole_mb):
                    continue
                if free_mb is not None and waiting.memory_mb > free_mb:
                    if now - waiting.queued_at > OVERTAKEN_FOR:
                        return None
                    continue
                if self._take(connection, waiting.id, worker, now):
                    job = self._read(connection, waiting.id)
                    self._serve(connection, job.owner, now)
                    data = {"state": State.RUNNING.value, "attempt": job.attempt}
                    self._record(connection, job.id, "state", data, now)
                    return job
        return None

    @persistent
    def waiting(self) -> list[Waiting]:
        """The queued jobs in the order in which they will be taken."""
        with self._database.reading() as connection:
            return self._order(connection)

    @persistent
    def beat(self, holds: Mapping[str, int]) -> dict[str, str]:
        """Say that the jobs (id: attempt) are still worked on; which of them must stop, and why.

        Returns
        -------
        dict
            id: ``"cancel"`` if its user wants it stopped, ``"lost"`` if it is not ours any more.
        """
        if not holds:
            return {}
        stop: dict[str, str] = {}
        overdue: list[sa.ColumnElement[bool]] = []
        now = self._now()
        with self._database.reading() as connection:
            for job_id, attempt in holds.items():
                mine = held(job_id, attempt)
                row = connection.execute(
                    sa.select(JOBS.c.cancel_requested, JOBS.c.heartbeat_at).where(mine)
                ).first()
                if row is None:
                    stop[job_id] = "lost"
                elif row[0]:
                    stop[job_id] = "cancel"
                elif row[1] < now - BEAT_EVERY:
                    overdue.append(mine)
        if overdue:
            with self._database.writing() as connection:
                for mine in overdue:
                    connection.execute(JOBS.update().where(mine).values(heartbeat_at=now))
        return stop

    @persistent
    def progress(
        self, job: Job, *, stage: str | None = None, fraction: float = 0.0, note: str | None = None
    ) -> bool:
        """Record how far a held job is; ``False`` if it is not held any more."""
        now = self._now()
        with self._database.writing() as connection:
            changed = connection.execute(
                JOBS.update()
                .where(held(job.id, job.attempt))
                .values(stage=stage, fraction=fraction, note=note, heartbeat_at=now)
            )
            if changed.rowcount == 0:
                return False
            data = {"stage": stage, "fraction": round(fraction, 4), "note": note}
            self._record(connection, job.id, "progress", data, now)
            return True

    @persistent
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
        """Record the result of a held job; ``False`` if it is not held any more. Twice is as good as once."""
        files = [asdict(artefact) for artefact in artefacts], [asdict(other) for other in others]
        values = {
            "artefacts": files[0],
            "others": files[1],
            "warnings": list(warnings),
            "scores": dict(scores),
            "timings": dict(timings),
            "fraction": 1.0,
            "problem": None,
            "stored_bytes": sum(upload.size for upload in job.uploads)
            + sum(int(entry["size"]) for entries in files for entry in entries),
        }
        return self._end(job, State.DONE, values)

    @persistent
    def fail(self, job: Job, problem: Problem) -> bool:
        """Record why a held job failed; ``False`` if it is not held any more."""
        return self._end(job, State.FAILED, {"problem": problem.to_dict()})

    @persistent
    def stopped(self, job: Job) -> bool:
        """Record that a held job was stopped as its user wanted; ``False`` if it is not held any more."""
        return self._end(job, State.CANCELLED, {})

    @persistent
    def give_back(self, job: Job) -> State | None:
        """Put a held job back into the queue, where it was, because its worker shuts down.

        Returns
        -------
        State or None
            Queued, or cancelled if its user wanted it stopped; ``None`` if it is not held any more.
        """
        now = self._now()
        with self._database.writing() as connection:
            if not self._holds(connection, job):
                return None
            if self._stopped(connection, job.id, now):
                return State.CANCELLED
            self._requeue(connection, job.id, now)
            return State.QUEUED

    @persistent
    def put_off(self, job: Job, problem: Problem) -> State | None:
        """Put a held job back because of a problem that is not its own, until that has happened too often.

        Returns
        -------
        State or None
            Queued, failed with ``problem``, or cancelled if its user wanted it stopped; ``None`` if it is not
            held any more.
        """
        now = self._now()
        with self._database.writing() as connection:
            if not self._holds(connection, job):
                return None
            return self._take_back(connection, job.id, now, problem)

    @persistent
    def reap(self, *, silent_for: float | None, dead_workers: Sequence[str] = ()) -> list[str]:
        """Take back the jobs of workers that are dead or were silent for long.

        They return to their old place in the queue; a job that lost its worker ``MAX_LOST`` times fails,
        for it is probably what kills the workers.

        Parameters
        ----------
        silent_for : s or None
            Silence after which a worker counts as lost; ``None``: none does for that.
        dead_workers : names
            Of workers that are known to live no more.

        Returns
        -------
        list
            Ids of the jobs taken back.
        """
        now = self._now()
        lost: list[sa.ColumnElement[bool]] = [JOBS.c.worker.in_(list(dead_workers))]
        if silent_for is not None:
            lost.append(JOBS.c.heartbeat_at < now - silent_for)
        gone = sa.select(JOBS.c.id).where(JOBS.c.state == State.RUNNING.value, sa.or_(*lost))
        with self._database.reading() as connection:
            if connection.execute(gone).first() is None:
                return []
        with self._database.writing() as connection:
            # One that its worker is ending at this moment is not lost.
            found = [str(row) for row in connection.execute(gone.with_for_update(skip_locked=True)).scalars()]
            for job_id in found:
                died = worker_lost(f"Its worker died {MAX_LOST} times while computing it.")
                self._take_back(connection, job_id, now, died)
            return found

    @persistent
    def condemn(self, job_id: str, before: float) -> Job | None:
        """Keep an old job from being queued again, because it is about to be removed.

        Parameters
        ----------
        job_id : str
        before : float
            Seconds since 1970; only a job that ended before is condemned.

        Returns
        -------
        Job or None
            ``None`` if there is none any more, or if it has been queued again.
        """
        with self._database.writing() as connection:
            condemned = connection.execute(
                JOBS.update().where(JOBS.c.id == job_id, JOBS.c.finished_at < before).values(worker=REMOVER)
            )
            return self._read(connection, job_id) if condemned.rowcount else None

    @persistent
    def holders(self) -> set[str]:
        """Names of the workers that hold jobs."""
        query = sa.select(JOBS.c.worker).where(JOBS.c.state == State.RUNNING.value).distinct()
        with self._database.reading() as connection:
            return {str(name) for name in connection.execute(query).scalars() if name}

    # ------------------------------------------------------------------ inside one transaction

    def _order(self, connection: sa.Connection) -> list[Waiting]:
        columns = [JOBS.c[name] for name in WAITING]
        queued = sa.select(*columns).where(JOBS.c.state == State.QUEUED.value)
        jobs = [waiting_of(row) for row in connection.execute(queued).mappings()]
        if len(jobs) < 2:
            return jobs
        served = {row[0]: float(row[1]) for row in connection.execute(sa.select(OWNERS))}
        return fair_order(jobs, served)

    def _take(self, connection: sa.Connection, job_id: str, worker: str, now: float) -> bool:
        taken = connection.execute(
            JOBS.update()
            .where(JOBS.c.id == job_id, JOBS.c.state == State.QUEUED.value)
            .values(
                state=State.RUNNING.value,
                attempt=JOBS.c.attempt + 1,
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
        return bool(taken.rowcount == 1)

    def _serve(self, connection: sa.Connection, owner: str, now: float) -> None:
        served = connection.execute(OWNERS.update().where(OWNERS.c.owner == owner).values(served_at=now))
        if served.rowcount == 0:
            # Another worker may take the first job of the same owner at this moment.
            with suppress(sa.exc.IntegrityError), connection.begin_nested():
                connection.execute(OWNERS.insert().values(owner=owner, served_at=now))

    def _stopped(self, connection: sa.Connection, job_id: str, now: float) -> bool:
        """End a job whose user wanted it stopped before its worker let go of it; whether that was so."""
        query = sa.select(JOBS.c.cancel_requested).where(JOBS.c.id == job_id)
        wanted = bool(connection.execute(query).scalar_one())
        if wanted:
            self._finish(connection, job_id, State.CANCELLED, now)
        return wanted

    def _take_back(self, connection: sa.Connection, job_id: str, now: float, problem: Problem) -> State:
        if self._stopped(connection, job_id, now):
            return State.CANCELLED
        lost = connection.execute(sa.select(JOBS.c.lost).where(JOBS.c.id == job_id)).scalar_one() + 1
        if lost >= MAX_LOST:
            self._finish(connection, job_id, State.FAILED, now, {"problem": problem.to_dict()})
            return State.FAILED
        self._requeue(connection, job_id, now, lost=lost)
        return State.QUEUED

    def _end(self, job: Job, state: State, values: dict[str, Any]) -> bool:
        now = self._now()
        with self._database.writing() as connection:
            if not self._holds(connection, job):
                # It may have been recorded, and the answer not have arrived.
                mine = sa.and_(
                    JOBS.c.id == job.id, JOBS.c.attempt == job.attempt, JOBS.c.state == state.value
                )
                return connection.execute(sa.select(JOBS.c.id).where(mine)).first() is not None
            self._finish(connection, job.id, state, now, values)
            return True
