"""Uploads that come before their job: announced, sent in parts or straight to the store, used once, swept."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import structlog
from starlette.requests import Request

from qsm_ai.api.presigning import Presigner
from qsm_ai.api.problems import ProblemError
from qsm_ai.api.upload_records import Part, PendingUpload, UploadNotFoundError, UploadRecords, new_name
from qsm_ai.api.uploads import HANG_UP, ReceivedFile, chunks, drain, safe_name, too_large
from qsm_ai.jobs.errors import UploadGoneError
from qsm_ai.jobs.problem import Problem
from qsm_ai.jobs.sweeping import Tally, remove_orphans
from qsm_ai.storage import ObjectNotFoundError, Storage

log = structlog.get_logger("qsm_ai.api")


class PendingUploads:
    """The uploads of a deployment.

    Parameters
    ----------
    records : UploadRecords
    storage : Storage
    presigner : Presigner
    lifetime : s
        After which an upload that became no job is deleted.
    limit : int
        Largest file, and largest scan, bytes.
    most_bytes : int
        That one owner may have announced at a time.
    stall : s
        Longest time without a byte.
    """

    def __init__(
        self,
        *,
        records: UploadRecords,
        storage: Storage,
        presigner: Presigner,
        lifetime: float,
        limit: int,
        most_bytes: int,
        stall: float,
    ) -> None:
        self._records = records
        self._storage = storage
        self.presigner = presigner
        self._lifetime = lifetime
        self._limit = limit
        self._most_bytes = most_bytes
        self._stall = stall

    async def announce(
        self, owner: str, name: str, size: int, sha256: str | None, max_stored: int | None = None
    ) -> PendingUpload:
        """Make a place for a file, where the owner's files may take up ``max_stored`` bytes in all.

        Raises
        ------
        ProblemError
            413.
        NoRoomForUploadError, OwnerStorageError
        """
        if size > self._limit:
            raise ProblemError(too_large(self._limit))
        upload = PendingUpload(secrets.token_hex(16), owner, safe_name(name), size, sha256)
        return await asyncio.to_thread(
            self._records.add,
            upload,
            lifetime=self._lifetime,
            most_bytes=self._most_bytes,
            max_stored=max_stored,
        )

    async def get(self, upload_id: str, owner: str) -> PendingUpload:
        """An upload.

        Raises
        ------
        UploadNotFoundError
        """
        return await self._records.database.look_up(self._records.get, upload_id, owner)

    async def of(self, owner: str) -> list[PendingUpload]:
        """All uploads of an owner, newest first."""
        return await self._records.database.look_up(self._records.of, owner)

    async def present(self, upload: PendingUpload) -> int:
        """How many bytes of it are there, whichever way they came."""
        if upload.received or not self.presigner.can_sign:
            return upload.received
        with suppress(ObjectNotFoundError):
            return (await self._storage.head(upload.direct_key)).size
        return 0

    async def receive(self, request: Request, upload: PendingUpload, start: int | None) -> PendingUpload:
        """Take in the file, or (with ``start``) its next part, straight into the store.

        Raises
        ------
        ProblemError
            408 stalled, 409 not the next part, 413 more than announced.
        ClientDisconnect
            Nothing of the part is kept.
        """
        begin = start or 0
        if start is not None and start != upload.received:
            await drain(request)
            raise ProblemError(_wrong_offset(upload.received))
        if start is None and upload.received:
            upload = await self._start_over(upload)
        room = upload.size - begin
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > room:
            await drain(request)
            raise ProblemError(_more_than_announced(upload.size), headers=HANG_UP)
        digest, taken = hashlib.sha256(), 0

        async def content() -> AsyncIterator[bytes]:
            nonlocal taken
            async for chunk in chunks(request, self._stall):
                taken += len(chunk)
                if taken > room:
                    raise ProblemError(_more_than_announced(upload.size), headers=HANG_UP)
                if chunk:
                    digest.update(chunk)
                    yield chunk

        name = new_name(begin)
        key = upload.part_key(name)
        try:
            await self._storage.put(key, content())
            is_whole = taken == upload.size
            if is_whole and upload.sha256 not in (None, digest.hexdigest()):
                raise ProblemError(_checksum(upload.name))
        except BaseException:
            await asyncio.shield(self._storage.delete(key))
            raise
        if not taken:
            await self._storage.delete(key)
            return upload
        part = Part(name, digest.hexdigest())
        if not await asyncio.to_thread(self._records.advance, upload, part, taken):
            await self._storage.delete(key)
            raise ProblemError(_wrong_offset((await self.get(upload.id, upload.owner)).received))
        return await self.get(upload.id, upload.owner)

    async def _start_over(self, upload: PendingUpload) -> PendingUpload:
        # The record goes first: it must never name objects that are not there.
        if not await asyncio.to_thread(self._records.start_over, upload):
            found = await self.get(upload.id, upload.owner)
            raise ProblemError(_wrong_offset(found.received), headers=HANG_UP)
        for part in upload.parts:
            await self._storage.delete(upload.part_key(part.name))
        return await self.get(upload.id, upload.owner)

    async def collect(
        self, owner: str, wanted: Sequence[tuple[str, str]], folder: Path
    ) -> tuple[ReceivedFile, ...]:
        """Copy uploads to local files, hashed on the way.

        Parameters
        ----------
        owner : str
        wanted : (role, upload id)
        folder : Path
            The caller removes it.

        Raises
        ------
        ProblemError
            409 not complete, 413 too large, 422 other bytes than announced.
        UploadGoneError
            Also if it goes, or is replaced, meanwhile.
        """
        found = []
        for role, upload_id in wanted:
            try:
                found.append((role, await self.get(upload_id, owner)))
            except UploadNotFoundError:
                raise UploadGoneError(upload_id) from None
        if sum(upload.size for _, upload in found) > self._limit:
            raise ProblemError(too_large(self._limit))
        return tuple(
            [
                await self._copy(role, upload, folder / f"upload-{number}")
                for number, (role, upload) in enumerate(found)
            ]
        )

    async def _copy(self, role: str, upload: PendingUpload, path: Path) -> ReceivedFile:
        there = await self.present(upload)
        if there > upload.size:
            # The store takes what it is sent; the limit is enforced as soon as the backend sees it.
            await self.remove(upload)
            raise ProblemError(_more_than_announced(upload.size))
        if there < upload.size:
            raise ProblemError(_incomplete(upload.name, there, upload.size))
        if upload.received:
            keys = [upload.part_key(part.name) for part in upload.parts]
        else:
            keys = [upload.direct_key]
        digest, size = hashlib.sha256(), 0
        try:
            with path.open("wb") as file:
                for key in keys:
                    async for chunk in self._storage.stream(key):
                        digest.update(chunk)
                        size += len(chunk)
                        await asyncio.to_thread(file.write, chunk)
        except ObjectNotFoundError:
            raise UploadGoneError(upload.id) from None
        if size != upload.size or upload.sha256 not in (None, digest.hexdigest()):
            raise ProblemError(_checksum(upload.name))
        return ReceivedFile(role, upload.name, path, size, digest.hexdigest())

    async def remove(self, upload: PendingUpload) -> None:
        """Delete an upload with its bytes."""
        await self._storage.delete_prefix(upload.prefix)
        await asyncio.to_thread(self._records.delete, upload.id)
        await self._storage.delete_prefix(upload.prefix)

    async def discard(self, upload_ids: Sequence[str]) -> None:
        """Delete what is left of uploads that have become a job; what cannot go now is swept later."""
        for upload_id in upload_ids:
            try:
                await asyncio.to_thread(self._records.delete, upload_id)
                await self._storage.delete_prefix(f"uploads/{upload_id}")
            except Exception as error:  # the job is made, and that is what is answered
                log.warning("upload.left_over", upload=upload_id, error=type(error).__name__)

    async def sweep(self) -> int:
        """Delete expired uploads and objects without a record; how many uploads' worth.

        Raises
        ------
        IncompleteSweepError
            At the end, if one could not be removed.
        """
        tally = Tally()
        for upload_id in await asyncio.to_thread(self._records.expired):
            await tally.count(self._expire(upload_id), "sweep.upload_kept", upload=upload_id)
        await tally.count(
            remove_orphans(self._storage, "uploads", self._records.known_ids), "sweep.files_kept"
        )
        return tally.total()

    async def _expire(self, upload_id: str) -> None:
        await self._storage.delete_prefix(f"uploads/{upload_id}")
        await asyncio.to_thread(self._records.delete, upload_id)


def _wrong_offset(received: int) -> Problem:
    return Problem(
        code="wrong-offset",
        title="Not the next part",
        status=409,
        detail=f"The upload holds {received} bytes.",
        mend=f"Go on from byte {received}, or send the whole file without Content-Range.",
    )


def _more_than_announced(size: int) -> Problem:
    return Problem(
        code="too-large",
        title="Input refused: too large",
        status=413,
        detail=f"The upload was announced with {size} bytes, and more came.",
        mend="Announce the file with its true size.",
    )


def _incomplete(name: str, there: int, size: int) -> Problem:
    return Problem(
        code="upload-incomplete",
        title="The upload is not complete",
        status=409,
        detail=f"{there} of {size} bytes are there.",
        mend="Send the rest first; the upload says where to go on.",
        file=name,
    )


def _checksum(name: str) -> Problem:
    return Problem(
        code="checksum-mismatch",
        title="Other bytes than announced",
        status=422,
        detail="The file's size or SHA-256 is not the one announced.",
        mend="Send the file again.",
        file=name,
    )


__all__ = ["PendingUploads"]
