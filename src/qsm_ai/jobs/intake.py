"""What clients do with jobs: send, look, cancel, retry, delete."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict

import sqlalchemy as sa

from qsm_ai.jobs.database import persistent
from qsm_ai.jobs.errors import (
    IdempotencyConflictError,
    JobNotFoundError,
    OwnerLimitError,
    QueueFullError,
    UploadGoneError,
    WrongStateError,
)
from qsm_ai.jobs.memory import needed_mb
from qsm_ai.jobs.occupancy import ADDING, refuse_too_much
from qsm_ai.jobs.records import Event, Job, State
from qsm_ai.jobs.rows import job_of
from qsm_ai.jobs.tables import EVENTS, JOBS, OWNERS, UPLOADS
from qsm_ai.jobs.transitions import Transitions

_SOME = sa.select(JOBS).where(JOBS.c.id.in_(sa.bindparam("ids", expanding=True)))
UNFINISHED = (State.QUEUED.value, State.RUNNING.value)


class Intake(Transitions):
    """The clients' side of the store."""

    @persistent
    def add(
        self,
        job: Job,
        *,
        max_queued: int,
        max_unfinished: int | None = None,
        consumes: Collection[str] = (),
        max_stored: int | None = None,
    ) -> Job:
        """Put a new job into the queue, or find the one that the same request made before.

        Parameters
        ----------
        job : Job
            With an ``idempotency_key``, a second job of the same owner with the same key is not made.
        max_queued : int
            Jobs that may wait.
        max_unfinished : int or None
            Jobs of this owner that may wait or run.
        consumes : upload ids
            Of this owner, that become this job and are uploads no more.
        max_stored : int or None
            Bytes that this owner's files may take up, those of the job included.

        Returns
        -------
        Job
            Its id is another one if the request came before.

        Raises
        ------
        QueueFullError, OwnerLimitError, OwnerStorageError
        IdempotencyConflictError
            If the key came before with something else.
        UploadGoneError
            If one of the uploads is not there any more; then all that are stay.
        """
        now = self._now()
        with self._database.writing() as connection:
            self._database.one_at_a_time(connection, ADDING)
            with suppress(JobNotFoundError):  # it was recorded, and the answer did not arrive
                return self._read(connection, job.id)
            if job.idempotency_key is not None:
                earlier = self._earlier(connection, job.owner, job.idempotency_key)
                if earlier is not None:
                    if earlier.fingerprint != job.fingerprint:
                        raise IdempotencyConflictError(earlier.id)
                    return earlier
            self._refuse_when_full(connection, max_queued)
            if max_unfinished is not None:
                self._refuse_too_many(connection, job.owner, max_unfinished)
            self._use_up(connection, job.owner, consumes)
            size = sum(upload.size for upload in job.uploads)
            if max_stored is not None:
                refuse_too_much(connection, job.owner, size, max_stored, now)
            connection.execute(
                JOBS.insert().values(
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
                    method=job.method,
                    work=job.work,
                    memory_mb=needed_mb(job),
                    stored_bytes=size,
                    deadline_at=job.deadline_at,
                    idempotency_key=job.idempotency_key,
                )
            )
            self._record(connection, job.id, "state", {"state": State.QUEUED.value}, now)
            return self._read(connection, job.id)

    @persistent
    def find_by_key(self, owner: str, idempotency_key: str) -> Job | None:
        """The job that an earlier request of this owner made under this key."""
        with self._database.reading() as connection:
            return self._earlier(connection, owner, idempotency_key)

    @persistent
    def get(self, job_id: str, *, owner: str | None = None) -> Job:
        """The job; another owner's is not found.

        Raises
        ------
        JobNotFoundError
        """
        with self._database.reading() as connection:
            return self._read(connection, job_id, owner)

    @persistent
    def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Those of these jobs that there are, by id, whoever they belong to."""
        with self._database.reading() as connection:
            rows = connection.execute(_SOME, {"ids": list(job_ids)}).mappings()
            return {row["id"]: job_of(row) for row in rows}

    @persistent
    def page(
        self,
        *,
        owner: str | None = None,
        state: State | None = None,
        limit: int = 50,
        before: float | None = None,
        before_id: str = "",
    ) -> list[Job]:
        """Jobs, newest first.

        Parameters
        ----------
        owner, state : only those
        limit : int
        before : float or None
            ``created_at`` of the last one seen.
        before_id : str
            Its id, where jobs made at the same moment are not to be left out.
        """
        query = sa.select(JOBS).order_by(JOBS.c.created_at.desc(), JOBS.c.id).limit(limit)
        if owner is not None:
            query = query.where(JOBS.c.owner == owner)
        if state is not None:
            query = query.where(JOBS.c.state == state.value)
        if before is not None:
            earlier = JOBS.c.created_at < before
            if before_id:
                earlier |= (JOBS.c.created_at == before) & (JOBS.c.id > before_id)
            query = query.where(earlier)
        with self._database.reading() as connection:
            return [job_of(row) for row in connection.execute(query).mappings()]

    @persistent
    def cancel(self, job_id: str) -> Job:
        """Cancel a queued job at once, ask the worker of a running one to stop; an ended job stays as it is.

        Raises
        ------
        JobNotFoundError
        """
        now = self._now()
        with self._database.writing() as connection:
            job = self._lock(connection, job_id)
            if job.state is State.QUEUED:
                self._finish(connection, job_id, State.CANCELLED, now)
            elif job.state is State.RUNNING:
                connection.execute(JOBS.update().where(JOBS.c.id == job_id).values(cancel_requested=True))
            return self._read(connection, job_id)

    def retry(self, job_id: str, *, max_queued: int, max_unfinished: int | None = None) -> Job:
        """Queue a failed or cancelled job again, with the same upload and as much time as it had.

        Raises
        ------
        JobNotFoundError, WrongStateError, QueueFullError, OwnerLimitError
        """
        now = self._now()
        with self._database.writing() as connection:
            self._database.one_at_a_time(connection, ADDING)
            job = self._lock(connection, job_id)
            if job.state not in (State.FAILED, State.CANCELLED):
                raise WrongStateError(job.state)
            self._refuse_when_full(connection, max_queued)
            if max_unfinished is not None:
                self._refuse_too_many(connection, job.owner, max_unfinished)
            deadline_at = None if job.deadline_at is None else now + (job.deadline_at - job.queued_at)
            self._requeue(connection, job_id, now, queued_at=now, lost=0, deadline_at=deadline_at)
            return self._read(connection, job_id)

    @persistent
    def delete(self, job_id: str) -> None:
        """Forget a job and its events; a worker that still runs it finds that it holds nothing any more."""
        with self._database.writing() as connection:
            owner = connection.execute(
                sa.select(JOBS.c.owner).where(JOBS.c.id == job_id).with_for_update()
            ).scalar_one_or_none()
            connection.execute(EVENTS.delete().where(EVENTS.c.job_id == job_id))
            connection.execute(JOBS.delete().where(JOBS.c.id == job_id))
            if owner is not None:
                others = sa.select(JOBS.c.id).where(JOBS.c.owner == owner).exists()
                connection.execute(OWNERS.delete().where(OWNERS.c.owner == owner, ~others))
            self._database.tell(connection, job_id)
        self._database.empty_journal()

    @persistent
    def events(self, job_id: str, after: int = 0) -> list[Event]:
        """What happened to a job since event ``after``, oldest first."""
        query = sa.select(EVENTS).where(EVENTS.c.job_id == job_id, EVENTS.c.id > after).order_by(EVENTS.c.id)
        with self._database.reading() as connection:
            return [Event(**row) for row in connection.execute(query).mappings()]

    def _earlier(self, connection: sa.Connection, owner: str, idempotency_key: str) -> Job | None:
        query = sa.select(JOBS).where(JOBS.c.owner == owner, JOBS.c.idempotency_key == idempotency_key)
        row = connection.execute(query).mappings().first()
        return None if row is None else job_of(row)

    def _use_up(self, connection: sa.Connection, owner: str, upload_ids: Collection[str]) -> None:
        """Forget uploads. However many requests name one, it makes one job, and is counted once."""
        for upload_id in dict.fromkeys(upload_ids):
            gone = connection.execute(
                UPLOADS.delete().where(UPLOADS.c.id == upload_id, UPLOADS.c.owner == owner)
            )
            if gone.rowcount != 1:
                raise UploadGoneError(upload_id)

    def _refuse_when_full(self, connection: sa.Connection, max_queued: int) -> None:
        waiting = sa.select(sa.func.count()).select_from(JOBS).where(JOBS.c.state == State.QUEUED.value)
        if connection.execute(waiting).scalar_one() >= max_queued:
            raise QueueFullError

    def _refuse_too_many(self, connection: sa.Connection, owner: str, max_unfinished: int) -> None:
        unfinished = (
            sa.select(sa.func.count())
            .select_from(JOBS)
            .where(JOBS.c.owner == owner, JOBS.c.state.in_(UNFINISHED))
        )
        if connection.execute(unfinished).scalar_one() >= max_unfinished:
            raise OwnerLimitError(max_unfinished)
