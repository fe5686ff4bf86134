"""HTTP/1.1 by a parser in C, which costs a fifth of one in Python, with the limit that it lacks."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 64 << 10
"""Bytes of a request's head, or of what stands around the pieces of its body."""

TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """Hangs up on who sends headers without end, before they fill the memory."""

    _unused = 0
    """Bytes that came since the last of which something came."""

    def data_received(self, data: bytes) -> None:
        """Take in what came."""
        self._unused += len(data)
        super().data_received(data)
        if self._unused > LARGEST_HEAD and not self.transport.is_closing():
            self.transport.write(TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._unused = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body is there."""
        self._unused = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there."""
        self._unused = 0
        super().on_message_complete()
