"""A small S3 server that is as strict about the size of parts as Amazon's; rclone's takes any."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

SMALLEST_PART = 5 << 20
"""Bytes; the last part of an object may be smaller."""

_BEGUN = (
    "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>{}</UploadId>"
    "</InitiateMultipartUploadResult>"
)
_DONE = (
    "<CompleteMultipartUploadResult><Location>l</Location><Bucket>b</Bucket><Key>k</Key><ETag>e</ETag>"
    "</CompleteMultipartUploadResult>"
)
_TOO_SMALL = "<Error><Code>EntityTooSmall</Code><Message>A part is too small.</Message></Error>"


@dataclass
class StrictS3:
    """What it was sent.

    Attributes
    ----------
    objects : dict
        Content by key.
    """

    port: int
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which a client finds its way."""
        return {
            "AWS_ACCESS_KEY_ID": "a" * 16,
            "AWS_SECRET_ACCESS_KEY": "b" * 16,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_REGION": "us-east-1",
        }


def _handler(server: StrictS3) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            key, asked = self._asked()
            if "uploads" in asked:
                number = str(len(server.parts))
                server.parts[number] = {}
                return self._answer(200, _BEGUN.format(number))
            parts = [part for _, part in sorted(server.parts[asked["uploadId"][0]].items())]
            if any(len(part) < SMALLEST_PART for part in parts[:-1]):
                return self._answer(400, _TOO_SMALL)
            server.objects[key] = b"".join(parts)
            return self._answer(200, _DONE)

        def do_PUT(self) -> None:
            key, asked = self._asked()
            if "partNumber" in asked:
                server.parts[asked["uploadId"][0]][int(asked["partNumber"][0])] = self._body
            else:
                server.objects[key] = self._body
            self._answer(200, "")

        def do_DELETE(self) -> None:
            self._asked()
            self._answer(204, "")

        def _asked(self) -> tuple[str, dict[str, list[str]]]:
            self._body = self.rfile.read(int(self.headers.get("content-length", 0)))
            address = urlsplit(self.path)
            return address.path, parse_qs(address.query, keep_blank_values=True)

        def _answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.send_header("ETag", '"e"')
            self.end_headers()
            self.wfile.write(text.encode())

    return Handler


@contextmanager
def serving() -> Iterator[StrictS3]:
    """A server on a free port."""
    found = StrictS3(0)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(found)) as server:
        found.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def strict_s3() -> Iterator[StrictS3]:
    with serving() as server:
        yield server
