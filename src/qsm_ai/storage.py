"""Where uploads and results live: one small asynchronous interface over a local folder, S3 or GCS."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import GenericError, NotFoundError
from obstore.store import LocalStore, from_url

from qsm_ai.observe.timing import Watch, timed

CHUNK = 4 * 1024 * 1024
"""Bytes that are read at a time."""

PART = 8 * 1024 * 1024
"""Bytes that are written at a time: S3 and GCS refuse parts of less than 5 MiB, but for an object's last."""

PARTS_AT_ONCE = 2
"""Parts of one object that are kept in memory while they are on their way."""

ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")
"""Variables that say where an S3 server is that is not Amazon's."""

MISSING = (NotFoundError, FileNotFoundError)


class ObjectNotFoundError(LookupError):
    """No object has this key."""


@dataclass(frozen=True)
class ObjectInfo:
    """What the store knows about an object without reading it.

    Attributes
    ----------
    key : str
    size : int
        Bytes.
    modified : datetime
        Timezone-aware.
    etag : str or None
    """

    key: str
    size: int
    modified: datetime
    etag: str | None


class Storage:
    """Objects by key, in one place, whatever that place is.

    Keys are ``/``-separated paths without ``.`` or ``..``; values are streams of bytes. Writing is atomic: a
    reader sees the whole object or none.

    Attributes
    ----------
    watch : Watch or None
        Told of every call: its name, seconds, and the kind of error that it ended with.
    """

    def __init__(self, store: Any, *, folder: Path | None = None) -> None:
        self.watch: Watch | None = None
        self._store = store
        self._folder = folder

    @classmethod
    def from_url(cls, url: str) -> Storage:
        """Open a store.

        Parameters
        ----------
        url : str
            ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``memory:///``, ``file:///folder`` or a path.
            Credentials come from the environment, as the store's own tools expect them.
        """
        if "://" in url and not url.startswith("file://"):
            return cls(open_store(url))
        folder = Path(url.removeprefix("file://")).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return cls(LocalStore(folder, automatic_cleanup=True), folder=folder)

    @timed("put")
    async def put(self, key: str, content: bytes | AsyncIterable[bytes]) -> None:
        """Store ``content`` under ``key``, replacing what was there."""
        await self._put(key, content)

    @timed("put")
    async def put_file(self, key: str, path: Path) -> None:
        """Store a file's content under ``key`` in constant memory."""
        await self._put(key, path)

    async def _put(self, key: str, content: Any) -> None:
        await obstore.put_async(
            self._store, _checked(key), content, chunk_size=PART, max_concurrency=PARTS_AT_ONCE
        )

    @timed("head", expected=(ObjectNotFoundError,))
    async def head(self, key: str) -> ObjectInfo:
        """Size and age of an object.

        Raises
        ------
        ObjectNotFoundError
        """
        try:
            return _info(await obstore.head_async(self._store, _checked(key)))
        except MISSING as error:
            raise ObjectNotFoundError(key) from error

    @timed("get", expected=(ObjectNotFoundError,))
    async def get(self, key: str) -> bytes:
        """The whole object; for small ones.

        Raises
        ------
        ObjectNotFoundError
        """
        try:
            result = await obstore.get_async(self._store, _checked(key))
            return bytes(await result.bytes_async())
        except MISSING as error:
            raise ObjectNotFoundError(key) from error

    async def stream(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes ``start`` (included) to ``end`` (excluded, default: the last) of an object, chunk by chunk.

        Raises
        ------
        ObjectNotFoundError
        """
        stop = (await self.head(key)).size if end is None else end
        while start < stop:
            until = min(start + CHUNK, stop)
            try:
                part = await self._part(key, start, until)
            except MISSING as error:
                raise ObjectNotFoundError(key) from error
            except GenericError as error:
                if "non-partial" not in str(error):
                    raise
                async for rest in self._without_ranges(key, start, stop):
                    yield rest
                return
            yield part
            start = until

    @timed("get", expected=MISSING)
    async def _part(self, key: str, start: int, end: int) -> bytes:
        return bytes(await obstore.get_range_async(self._store, _checked(key), start=start, end=end))

    async def _without_ranges(self, key: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """Read from the beginning and leave out what is not wanted: some S3 servers cannot serve parts."""
        result = await obstore.get_async(self._store, _checked(key))
        at = 0
        async for chunk in result.stream(min_chunk_size=CHUNK):
            begin, end = max(start - at, 0), stop - at
            at += len(chunk)
            if begin < len(chunk):
                yield bytes(chunk)[begin:end]
            if at >= stop:
                return

    async def fetch(self, key: str, path: Path) -> None:
        """Copy an object into a local file in constant memory."""
        with path.open("wb") as file:
            async for chunk in self.stream(key):
                await asyncio.to_thread(file.write, chunk)

    @timed("list")
    async def entries(self, prefix: str = "") -> list[ObjectInfo]:
        """Every object under ``prefix`` (a folder, not the beginning of a name), in order of key."""
        stream = obstore.list(self._store, prefix=prefix.rstrip("/") or None)
        return sorted((_info(meta) for meta in await stream.collect_async()), key=lambda info: info.key)

    @timed("list")
    async def children(self, prefix: str) -> list[str]:
        """Names of the folders directly under ``prefix``."""
        found = await obstore.list_with_delimiter_async(self._store, prefix=prefix.rstrip("/") or None)
        names = {path.rstrip("/").rsplit("/", 1)[-1] for path in found["common_prefixes"]}
        if self._folder is not None:
            names |= await asyncio.to_thread(_folders_in, self._folder / prefix)
        return sorted(names)

    async def last_change(self, prefix: str) -> datetime | None:
        """When anything under ``prefix`` was last written, unfinished writes included, or ``None``."""
        moments = [info.modified for info in await self.entries(_checked(prefix))]
        if self._folder is not None:
            moments += await asyncio.to_thread(_changes_in, self._folder / prefix)
        return max(moments, default=None)

    @timed("delete")
    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        try:
            await obstore.delete_async(self._store, _checked(key))
        except MISSING:
            return

    async def delete_prefix(self, prefix: str) -> int:
        """Remove everything under ``prefix``, a killed process' unfinished writes too; how many objects."""
        keys = [info.key for info in await self.entries(_checked(prefix))]
        if keys:
            await self._delete_all(keys)
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder / prefix, ignore_errors=True)
        return len(keys)

    @timed("delete")
    async def _delete_all(self, keys: list[str]) -> None:
        await obstore.delete_async(self._store, keys)

    async def check(self) -> None:
        """Write, read and delete a small object; raises whatever goes wrong."""
        key, token = f"checks/{secrets.token_hex(8)}", secrets.token_bytes(16)
        await self.put(key, token)
        try:
            if await self.get(key) != token:
                raise OSError("the store gave back other bytes than were written")
        finally:
            await self.delete(key)


def open_store(url: str, endpoint: str | None = None) -> Any:
    """A store that is no folder, by the environment's credentials.

    Parameters
    ----------
    url : str
        ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``memory:///``.
    endpoint : str or None
        Address of the S3 server, where it is not the environment's. One that begins with ``http://`` needs no
        further leave to be spoken to without TLS.

    Returns
    -------
    obstore store
    """
    with _without_empty_variables():
        address = endpoint or next((os.environ[name] for name in ENDPOINTS if name in os.environ), "")
        options: dict[str, Any] = {} if endpoint is None else {"endpoint": endpoint}
        if url.startswith("s3://") and address.startswith("http://"):
            options["client_options"] = {"allow_http": True}
        return from_url(url, **options)


@contextmanager
def _without_empty_variables() -> Iterator[None]:
    """Hide what is set to nothing: an empty key would be tried as a key, an empty flag be refused."""
    empty = [name for name, value in os.environ.items() if name.startswith("AWS_") and not value]
    for name in empty:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(dict.fromkeys(empty, ""))


def _checked(key: str) -> str:
    parts = key.split("/")
    if not key or any(part in {"", ".", ".."} for part in parts):
        raise ValueError("a key is a path of plain names")
    return key


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(
        key=meta["path"], size=meta["size"], modified=meta["last_modified"], etag=meta.get("e_tag")
    )


def _folders_in(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.is_dir()} if folder.is_dir() else set()


def _changes_in(folder: Path) -> list[datetime]:
    moments = []
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):
            moments.append(datetime.fromtimestamp(path.stat().st_mtime, UTC))
    return moments
