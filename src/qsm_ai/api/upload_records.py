"""The record of files that were announced and are not part of a job yet."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from qsm_ai.jobs.database import Database, persistent
from qsm_ai.jobs.occupancy import ADDING, refuse_too_much
from qsm_ai.jobs.store import JobStore
from qsm_ai.jobs.tables import UPLOADS


class UploadNotFoundError(LookupError):
    """No upload has this id (or not for this owner, or not any more)."""


class NoRoomForUploadError(RuntimeError):
    """The owner has announced as many bytes as may wait to become jobs."""


class Part(NamedTuple):
    """What one request has brought of a file.

    Attributes
    ----------
    name : str
        Of its object. No other request has it: a connection that breaks without a word is noticed long after
        its part came by another one, and what it tidies up must be its own.
    sha256 : str
    """

    name: str
    sha256: str


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
        As announced.
    received : int
        Bytes that came through the backend.
    parts : tuple of Part
        What they came in, in order.
    """

    id: str
    owner: str
    name: str
    size: int
    sha256: str | None = None
    received: int = 0
    created_at: float = 0.0
    expires_at: float = 0.0
    parts: tuple[Part, ...] = ()

    @property
    def prefix(self) -> str:
        """The upload's folder in the store."""
        return f"uploads/{self.id}"

    @property
    def direct_key(self) -> str:
        """Where a client that speaks to the store itself puts the file."""
        return f"{self.prefix}/content"

    @property
    def digest(self) -> str | None:
        """SHA-256 of the file as announced, or as found where it came through the backend in one piece."""
        if self.sha256 is None and len(self.parts) == 1 and self.received == self.size:
            return self.parts[0].sha256
        return self.sha256

    def part_key(self, name: str) -> str:
        """Where the backend keeps a part."""
        return f"{self.prefix}/parts/{name}"


def new_name(start: int) -> str:
    """A name for what comes from byte ``start`` on."""
    return f"{start:016d}-{secrets.token_hex(8)}"


class UploadRecords:
    """Synchronous; call it from threads. Every method is one transaction.

    Parameters
    ----------
    store : JobStore
        Its database is used, and its clock.
    """

    def __init__(self, store: JobStore) -> None:
        self._database = store.database

    @property
    def database(self) -> Database:
        """Where they are."""
        return self._database

    @persistent
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
        now = self._database.now()
        with self._database.writing() as connection:
            self._database.one_at_a_time(connection, ADDING)
            with suppress(UploadNotFoundError):  # it was recorded, and the answer did not arrive
                return self._read(connection, upload.id, upload.owner, now)
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
            return self._read(connection, upload.id, upload.owner, now)

    @persistent
    def get(self, upload_id: str, owner: str) -> PendingUpload:
        """The upload; another owner's or an expired one is not found.

        Raises
        ------
        UploadNotFoundError
        """
        now = self._database.now()
        with self._database.reading() as connection:
            return self._read(connection, upload_id, owner, now)

    @persistent
    def of(self, owner: str) -> list[PendingUpload]:
        """All of an owner's uploads, newest first."""
        query = (
            sa.select(UPLOADS)
            .where(UPLOADS.c.owner == owner, UPLOADS.c.expires_at > self._database.now())
            .order_by(UPLOADS.c.created_at.desc(), UPLOADS.c.id)
        )
        with self._database.reading() as connection:
            return [_upload(row) for row in connection.execute(query).mappings()]

    @persistent
    def advance(self, upload: PendingUpload, part: Part, size: int) -> bool:
        """Record a part that follows those that ``upload`` has.

        Parameters
        ----------
        upload : PendingUpload
            As it was when the part began to come.
        part : Part
        size : int
            Bytes.

        Returns
        -------
        bool
            ``False`` if someone else was faster, or the upload is gone.
        """
        return self._change(upload, (*upload.parts, part), upload.received + size)

    @persistent
    def start_over(self, upload: PendingUpload) -> bool:
        """Record that nothing is there any more; ``False`` if someone else has changed it meanwhile."""
        return self._change(upload, (), 0)

    def _change(self, upload: PendingUpload, parts: tuple[Part, ...], received: int) -> bool:
        """From the parts that ``upload`` has to others, unless it has others already."""
        query = sa.select(UPLOADS.c.parts).where(UPLOADS.c.id == upload.id).with_for_update()
        with self._database.writing() as connection:
            found = connection.execute(query).scalar_one_or_none()
            if found is None:
                return False
            recorded = _parts(found)
            if recorded == parts:  # it was recorded, and the answer did not arrive
                return True
            if recorded != upload.parts:
                return False
            connection.execute(
                UPLOADS.update().where(UPLOADS.c.id == upload.id).values(parts=parts, received=received)
            )
            return True

    @persistent
    def delete(self, upload_id: str) -> None:
        """Forget an upload."""
        with self._database.writing() as connection:
            connection.execute(UPLOADS.delete().where(UPLOADS.c.id == upload_id))
        # What was deleted is overwritten in the database; its journal would still hold the file name.
        self._database.empty_journal()

    @persistent
    def expired(self) -> list[str]:
        """Ids of the uploads whose time is over."""
        query = sa.select(UPLOADS.c.id).where(UPLOADS.c.expires_at <= self._database.now())
        with self._database.reading() as connection:
            return [str(found) for found in connection.execute(query).scalars()]

    @persistent
    def known_ids(self) -> set[str]:
        """Ids of all uploads."""
        with self._database.reading() as connection:
            return set(connection.execute(sa.select(UPLOADS.c.id)).scalars())

    def _read(self, connection: sa.Connection, upload_id: str, owner: str, now: float) -> PendingUpload:
        query = sa.select(UPLOADS).where(
            UPLOADS.c.id == upload_id, UPLOADS.c.owner == owner, UPLOADS.c.expires_at > now
        )
        row = connection.execute(query).mappings().first()
        if row is None:
            raise UploadNotFoundError(upload_id)
        return _upload(row)


def _upload(row: Mapping[Any, Any]) -> PendingUpload:
    return PendingUpload(**{**row, "parts": _parts(row["parts"])})


def _parts(found: list[list[str]]) -> tuple[Part, ...]:
    return tuple(Part(*part) for part in found)


__all__ = [
    "NoRoomForUploadError",
    "Part",
    "PendingUpload",
    "UploadNotFoundError",
    "UploadRecords",
    "new_name",
]
