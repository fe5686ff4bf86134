"""What an operation wants done: requests, pauses, streams. Carried out by a client, blocking or not.

An operation is a generator. It yields wishes; the client does what a wish says and sends the outcome back, or
throws ``httpx.HTTPError``, or a file's ``OSError``, into the generator where nothing came of it. So all that
is to be decided stands in one place, and the two clients hold nothing but input and output.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import httpx

Result = TypeVar("Result")


@dataclass(frozen=True)
class Part:
    """A stretch of a file as the body of a request.

    Attributes
    ----------
    path : Path
    start : int
        First byte.
    size : int
        Bytes.
    """

    path: Path
    start: int
    size: int


@dataclass(frozen=True)
class Send:
    """Send a request; the outcome is the answer with its body, whatever its status.

    Attributes
    ----------
    method, address : str
        An absolute address is of another host: it gets no headers of the service's.
    headers, query : mappings
    form : mapping
        Fields of a multipart upload, with ``files``.
    files : (role, path)
        Streamed from disk.
    json : Any
    body : Part or None
    """

    method: str
    address: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    files: tuple[tuple[str, Path], ...] = ()
    json: Any = None
    body: Part | None = None


@dataclass(frozen=True)
class Save:
    """Send a GET request and append the answer's body to a file, if the request succeeds.

    With status 200 the file is written from its beginning. The outcome is the answer, without its body where
    that was saved.
    """

    address: str
    path: Path
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Listen:
    """Open a stream of lines; the outcome is the answer. An earlier stream is closed."""

    address: str
    headers: Mapping[str, str] = field(default_factory=dict)
    silence: float = 45.0
    """Seconds without a line after which the connection counts as broken."""


@dataclass(frozen=True)
class NextLine:
    """The next line of the stream, or ``None`` at its end."""


@dataclass(frozen=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Tell:
    """Hand something to the caller before going on."""

    value: Any


Wish: TypeAlias = Send | Save | Listen | NextLine | Pause | Tell
Operation: TypeAlias = Generator[Wish, Any, Result]


def arguments(wish: Send) -> dict[str, Any]:
    """What both clients give to httpx besides files and body."""
    given: dict[str, Any] = {}
    if wish.headers:
        given["headers"] = dict(wish.headers)
    if wish.query:
        given["params"] = dict(wish.query)
    if wish.json is not None:
        given["json"] = wish.json
    if wish.form and wish.files:
        given["data"] = dict(wish.form)
    return given


def is_elsewhere(address: str) -> bool:
    """Whether an address lies at another host, such as the object store."""
    return address.startswith(("http://", "https://"))


def timeouts(timeout: float) -> httpx.Timeout:
    """Uploads may take longer than answers; a connection from the pool is waited for."""
    return httpx.Timeout(timeout, write=600.0, pool=None)


def media_type(path: Path) -> str:
    """Of an image or a sidecar."""
    name = path.name.lower()
    if name.endswith(".json"):
        return "application/json"
    return "application/gzip" if name.endswith(".gz") else "application/octet-stream"
