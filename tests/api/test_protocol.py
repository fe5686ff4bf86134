"""What stands around a request is limited as its body is."""

from __future__ import annotations

import http.client
import socket
from typing import Any

import pytest

from qsm_ai.api.protocol import LARGEST_HEAD

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
CHUNKED = b"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
MIB = 1 << 20


def sent_until_hung_up(port: int, begin: bytes, again: bytes) -> tuple[int, bytes]:
    """How many bytes the server takes in before it hangs up, and what it says."""
    taken = 0
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            connection.sendall(begin)
            while taken < 64 * MIB:
                connection.sendall(again)
                taken += len(again)
            return taken, b""
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            return taken, connection.recv(1000)
        except ConnectionResetError:
            return taken, b""


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (REQUEST, b"X-More: " + b"x" * 1000 + b"\r\n"),
        (REQUEST + b"X-Long: ", b"x" * 1000),
        (b"GET /", b"x" * 1000),
        (CHUNKED, b"X-Trailer: " + b"x" * 1000 + b"\r\n"),
    ],
    ids=["many headers", "a long header", "a long address", "trailers"],
)
def test_who_sends_a_head_without_end_is_hung_up_on(backend: Any, begin: bytes, again: bytes) -> None:
    taken, answer = sent_until_hung_up(backend.port, begin, again)
    # What the system holds between the two is sent before anybody can hang up.
    assert taken < 16 * MIB
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


def test_a_head_of_usual_size_is_read(backend: Any) -> None:
    head = REQUEST + b"Cookie: " + b"x" * (LARGEST_HEAD // 2) + b"\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", backend.port), timeout=20) as connection:
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_requests_one_after_the_other_are_counted_for_themselves(backend: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", backend.port, timeout=20)
    for _ in range(6):
        connection.request("GET", "/healthz", headers={"Cookie": "x" * (LARGEST_HEAD // 3)})
        answer = connection.getresponse()
        assert (answer.status, answer.will_close) == (200, False)
        answer.read()
    connection.close()
