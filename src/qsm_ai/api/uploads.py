"""Taking in a multipart upload: straight to disk in constant memory, hashed on the way, stopped at its limit.

The framework's own form parser is not used: it spools every file to a temporary folder of its own, and its
size limit leaves files out.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, get_args

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from qsm_ai.api.problems import ProblemError
from qsm_ai.jobs.problem import Problem

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FileRole = Literal["phase", "magnitude", "mask", "sidecar", "total_field", "local_field"]
FILE_ROLES: tuple[FileRole, ...] = get_args(FileRole)
BATCH = 1 << 20
LONGEST_FIELD = 1 << 14
MOST_FILES = 256
MOST_FIELDS = 64
DRAIN_BYTES, DRAIN_SECONDS = 32 << 20, 3.0
HANG_UP = {"Connection": "close"}
"""Otherwise the server would take in and throw away the whole rest."""


@dataclass(frozen=True)
class ReceivedFile:
    """A file of an upload, on disk.

    Attributes
    ----------
    role : str
        Its form field.
    name : str
        As the client calls it, without any folder.
    path : Path
    size : int
        Bytes.
    sha256 : str
    """

    role: str
    name: str
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Received:
    """An upload: files, and the values of each text field in order."""

    files: tuple[ReceivedFile, ...]
    fields: dict[str, list[str]]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


async def receive(request: Request, folder: Path, *, limit: int, stall: float) -> Received:
    """Take in a ``multipart/form-data`` request.

    Parameters
    ----------
    request : Request
        Its body must not have been read.
    folder : Path
        For the files; the caller removes it.
    limit : int
        Largest body, bytes.
    stall : s
        Longest time without a byte.

    Raises
    ------
    ProblemError
        400 malformed, 408 stalled, 413 too large, 415 another media type, 422 unknown fields.
    ClientDisconnect
    """
    boundary = _boundary(request)
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        await drain(request)
        raise ProblemError(too_large(limit), headers=HANG_UP)
    sink = _Sink(folder)
    parser = MultipartParser(boundary, sink.callbacks())
    total = 0
    batch = bytearray()
    try:
        async for chunk in chunks(request, stall):
            total += len(chunk)
            if total > limit:
                await drain(request)
                raise ProblemError(too_large(limit), headers=HANG_UP)
            batch += chunk
            if len(batch) >= BATCH:
                await asyncio.to_thread(parser.write, bytes(batch))
                batch.clear()
        await asyncio.to_thread(parser.write, bytes(batch))
        parser.finalize()
    except FormParserError as error:
        raise ProblemError(_malformed()) from error
    except ProblemError:
        await drain(request)
        raise
    finally:
        sink.close()
    if not sink.is_complete:
        raise ProblemError(_malformed())
    return Received(tuple(sink.files), sink.fields)


def too_large(limit: int) -> Problem:
    """The upload is larger than allowed."""
    return Problem(
        code="too-large",
        title="Input refused: too large",
        status=413,
        detail=f"The upload is larger than the limit of {limit / (1 << 20):,.0f} MiB.",
        mend="Compress the images (.nii.gz), crop the scan to the head, or ask for a higher limit.",
    )


def safe_name(name: str) -> str:
    """A client's file name without folders, control characters and excess length."""
    base = re.split(r"[/\\]", name)[-1]
    cleaned = "".join(c for c in base if c.isprintable()).strip(" .")
    return cleaned[-200:] or "unnamed"


@dataclass
class _Sink:
    """What the parser writes to; runs in threads, one batch at a time."""

    folder: Path
    files: list[ReceivedFile] = field(default_factory=list)
    fields: dict[str, list[str]] = field(default_factory=dict)
    is_complete: bool = False

    _header_name: bytearray = field(default_factory=bytearray)
    _header_value: bytearray = field(default_factory=bytearray)
    _disposition: bytes = b""
    _name: str = ""
    _file_name: str | None = None
    _file: BinaryIO | None = None
    _path: Path = field(default_factory=Path)
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    _size: int = 0
    _text: bytearray = field(default_factory=bytearray)
    _count: int = 0

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": lambda data, start, end: self._header_name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _part_begin(self) -> None:
        self._disposition = b""
        self._size = 0
        self._text.clear()
        self._hash = hashlib.sha256()

    def _header_end(self) -> None:
        if bytes(self._header_name).lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise ProblemError(_malformed())
        self._name = options[b"name"].decode("utf-8", "replace")
        raw = options.get(b"filename")
        self._file_name = None if raw is None else raw.decode("utf-8", "replace")
        self._count += 1
        if self._file_name is None:
            if self._count > MOST_FIELDS + MOST_FILES:
                raise ProblemError(_malformed())
            return
        if self._name not in FILE_ROLES:
            raise ProblemError(
                unknown_field(f"No file is expected in the field {_quoted(self._name)}.", FILE_ROLES)
            )
        if len(self.files) >= MOST_FILES:
            raise ProblemError(unknown_field(f"More than {MOST_FILES} files were sent.", FILE_ROLES))
        self._path = self.folder / f"upload-{len(self.files)}"
        self._file = self._path.open("wb")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        piece = memoryview(data)[start:end]
        if self._file is not None:
            self._file.write(piece)
            self._hash.update(piece)
            self._size += len(piece)
        else:
            self._text += piece
            if len(self._text) > LONGEST_FIELD:
                raise ProblemError(
                    Problem(
                        code="invalid-parameter",
                        title="A parameter is not valid",
                        status=422,
                        detail=f"The field {_quoted(self._name)} is too long for a parameter.",
                        mend="Send images and sidecars as files (with a file name).",
                    )
                )

    def _part_end(self) -> None:
        if self._file is None:
            text = self._text.decode("utf-8", "replace").strip()
            if text:
                self.fields.setdefault(self._name, []).append(text)
            return
        self.close()
        if not self._file_name and not self._size:
            # A browser's file input in which nothing was chosen.
            self._path.unlink()
            return
        name = safe_name(self._file_name or "")
        self.files.append(ReceivedFile(self._name, name, self._path, self._size, self._hash.hexdigest()))

    def _end(self) -> None:
        self.is_complete = True


def unknown_field(detail: str, known: tuple[str, ...]) -> Problem:
    """A field that does not exist, where silence would mean that it is ignored."""
    return Problem(
        code="unknown-field",
        title="A form field is not known",
        status=422,
        detail=detail,
        mend=f"Use one of: {', '.join(known)}.",
    )


def _quoted(name: str) -> str:
    return "'" + "".join(c for c in name[:40] if c.isalnum() or c in "_-[]") + "'"


def _malformed() -> Problem:
    return Problem(
        code="malformed-upload",
        title="The upload is malformed",
        status=400,
        detail="The body is not a complete multipart/form-data document.",
        mend="Send the files as a form upload; an interrupted upload must be sent again.",
    )


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise ProblemError(
            Problem(
                code="media-type",
                title="Another media type is expected",
                status=415,
                detail="A scan is uploaded as multipart/form-data.",
                mend="Send the files as a form upload, for example with curl -F phase=@phase.nii.gz.",
            )
        )
    boundary = options.get(b"boundary")
    if not boundary:
        raise ProblemError(_malformed())
    return boundary


async def chunks(request: Request, stall: float) -> AsyncIterator[bytes]:
    """A request's body as it comes.

    Raises
    ------
    ProblemError
        408 if nothing comes for ``stall`` seconds.
    ClientDisconnect
    """
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(stall):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise ProblemError(
                Problem(
                    code="upload-stalled",
                    title="The upload stalled",
                    status=408,
                    detail=f"Nothing was received for {stall:.0f} s.",
                    mend="Send it again over a steadier connection.",
                )
            ) from None
        yield chunk


async def drain(request: Request, most: int = DRAIN_BYTES, seconds: float = DRAIN_SECONDS) -> None:
    """Take a little more of a refused body: a client that still sends would miss the answer otherwise.

    Parameters
    ----------
    request : Request
    most : int
        Bytes.
    seconds : s
    """
    headers = request.headers
    # Who asks before sending gets an answer instead of a "continue"; who sends nothing is not waited for.
    if "expect" in headers or not ({"content-length", "transfer-encoding"} & set(headers)):
        return
    deadline, taken = time.monotonic() + seconds, 0
    with suppress(TimeoutError, ClientDisconnect, RuntimeError):
        async with asyncio.timeout(seconds):
            while taken < most and time.monotonic() < deadline:
                message = await request.receive()
                taken += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


__all__ = [
    "FILE_ROLES",
    "Received",
    "ReceivedFile",
    "chunks",
    "drain",
    "receive",
    "safe_name",
    "too_large",
    "unknown_field",
]
