"""As little of HTTP/1.1 as many users of a benchmark need.

A client for everybody's use takes more processor time for a request than the service does for the answer. On
one machine with it, it would be measured itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


class BrokenError(Exception):
    """There was no answer, or not the whole of it."""


@dataclass(frozen=True)
class Answer:
    """What a server answered; names of headers are in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the server did what it was asked for."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body, if it is JSON."""
        return json.loads(self.body)


class Connection:
    """One connection to a server, opened when it is needed and kept for the next request.

    Parameters
    ----------
    url : str
        Scheme ``http``, host and port.
    patience : s
        For a whole answer.
    """

    def __init__(self, url: str, patience: float = 120.0) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._patience = patience
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """Send a request, and take in the answer.

        Raises
        ------
        BrokenError
        """
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}:{self._port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join(lines) + "\r\n\r\n"
        try:
            async with asyncio.timeout(self._patience):
                return await self._exchange(head.encode() + body)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.close()
            raise BrokenError(type(error).__name__) from error
        except BaseException:
            self.close()
            raise

    async def _exchange(self, request: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in rest if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        answer = Answer(
            int(first.split(" ")[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))
        )
        if headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    def close(self) -> None:
        """Close it, if it is open."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
