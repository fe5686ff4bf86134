"""The record of files that were announced and are not part of a job yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from qsm_ai.jobs.database import Database
from qsm_ai.jobs.occupancy import ADDING, refuse_too_much
from qsm_ai.jobs.store import JobStore
from qsm_ai.jobs.tables import UPLOADS


class UploadNotFoundError(LookupError):
    """No upload has this id (or not for this owner, or not any more)."""


class NoRoomForUploadError(RuntimeError):
    """The owner has announced as many bytes as may wait to become jobs."""


@dataclass(frozen=True)
class PendingUpload:
    """A file that was announced. Times are seconds since 1970 (UTC).

    Attributes
    ----------
    id, owner : str
    name : str
        The user's file name without any folder.
    size : int
        Bytes, as announced.
    sha256 : str or None
        As announced, or as found when the whole file came through the backend.
    received : int
        Bytes that came through the backend.
    """

    id: str
    owner: str
    name: str
    size: int
    sha256: str | None = None
    received: int = 0
    created_at: float = 0.0
    expires_at: float = 0.0

    @property
    def prefix(self) -> str:
        """The upload's folder in the store."""
        return f"uploads/{self.id}"

    @property
    def direct_key(self) -> str:
        """Where a client that speaks to the store itself puts the file."""
        return f"{self.prefix}/content"

    def part_key(self, start: int) -> str:
        """Where the backend puts what came from byte ``start`` on."""
        return f"{self.prefix}/parts/{start:016d}"


class UploadRecords:
    """Synchronous; call it from threads. Every method is one transaction.

    Parameters
    ----------
    store : JobStore
        Its database is used.
    clock : callable
        Seconds since 1970; for tests.
    """

    def __init__(self, store: JobStore, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._database = store.database

    @property
    def database(self) -> Database:
        """Where they are."""
        return self._database

    def add(
        self, upload: PendingUpload, *, lifetime: float, most_bytes: int, max_stored: int | None = None
    ) -> PendingUpload:
        """Record an announced file.

        Parameters
        ----------
        upload : PendingUpload
        lifetime : s
        most_bytes : int
            Of all files that the owner has announced.
        max_stored : int or None
            Bytes of all files that the owner has.

        Raises
        ------
        NoRoomForUploadError, OwnerStorageError
        """
        now = self._clock()
        with self._database.writing() as connection:
            self._database.one_at_a_time(connection, ADDING)
            if max_stored is not None:
                refuse_too_much(connection, upload.owner, upload.size, max_stored, now)
            announced = connection.execute(
                sa.select(sa.func.coalesce(sa.func.sum(UPLOADS.c.size), 0)).where(
                    UPLOADS.c.owner == upload.owner, UPLOADS.c.expires_at > now
                )
            ).scalar_one()
            if int(announced) + upload.size > most_bytes:
                raise NoRoomForUploadError
            connection.execute(
                UPLOADS.insert().values(
                    id=upload.id,
                    owner=upload.owner,
                    name=upload.name,
                    size=upload.size,
                    sha256=upload.sha256,
                    created_at=now,
                    expires_at=now + lifetime,
                )
            )
            return self._read(connection, upload.id, upload.owner)

    def get(self, upload_id: str, owner: str) -> PendingUpload:
        """The upload; another owner's or an expired one is not found.

        Raises
        ------
        UploadNotFoundError
        """
        with self._database.reading() as connection:
            return self._read(connection, upload_id, owner)

    def of(self, owner: str) -> list[PendingUpload]:
        """All of an owner's uploads, newest first."""
        query = (
            sa.select(UPLOADS)
            .where(UPLOADS.c.owner == owner, UPLOADS.c.expires_at > self._clock())
            .order_by(UPLOADS.c.created_at.desc(), UPLOADS.c.id)
        )
        with self._database.reading() as connection:
            return [_upload(row) for row in connection.execute(query).mappings()]

    def advance(self, upload: PendingUpload, received: int, sha256: str | None = None) -> bool:
        """Record that so many bytes are there now; ``False`` if someone else was faster."""
        values: dict[str, Any] = {"received": received}
        if sha256 is not None:
            values["sha256"] = sha256
        with self._database.writing() as connection:
            changed = connection.execute(
                UPLOADS.update()
                .where(UPLOADS.c.id == upload.id, UPLOADS.c.received == upload.received)
                .values(**values)
            )
            return bool(changed.rowcount == 1)

    def delete(self, upload_id: str) -> None:
        """Forget an upload."""
        with self._database.writing() as connection:
            connection.execute(UPLOADS.delete().where(UPLOADS.c.id == upload_id))
        # What was deleted is overwritten in the database; its journal would still hold the file name.
        self._database.empty_journal()

    def expired(self) -> list[str]:
        """Ids of the uploads whose time is over."""
        query = sa.select(UPLOADS.c.id).where(UPLOADS.c.expires_at <= self._clock())
        with self._database.reading() as connection:
            return [str(found) for found in connection.execute(query).scalars()]

    def known_ids(self) -> set[str]:
        """Ids of all uploads."""
        with self._database.reading() as connection:
            return set(connection.execute(sa.select(UPLOADS.c.id)).scalars())

    def _read(self, connection: sa.Connection, upload_id: str, owner: str) -> PendingUpload:
        query = sa.select(UPLOADS).where(
            UPLOADS.c.id == upload_id, UPLOADS.c.owner == owner, UPLOADS.c.expires_at > self._clock()
        )
        row = connection.execute(query).mappings().first()
        if row is None:
            raise UploadNotFoundError(upload_id)
        return _upload(row)


def _upload(row: Mapping[Any, Any]) -> PendingUpload:
    return PendingUpload(**row)


__all__ = ["NoRoomForUploadError", "PendingUpload", "UploadNotFoundError", "UploadRecords"]
