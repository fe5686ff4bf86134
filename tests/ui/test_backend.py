"""Whatever answers, the page gets a record or a problem, never a traceback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from qsm_ai.inference.ports import any_free
from qsm_ai.ui import backend
from qsm_ai.ui.backend import Backend, Problem

Answer = tuple[int, str, str]


@pytest.fixture
def answering() -> Iterator[Callable[[int, str, str], Backend]]:
    """A server that gives one answer to everything, and remembers what was asked."""
    servers: list[ThreadingHTTPServer] = []
    clients: list[Backend] = []

    def start(status: int, kind: str, body: str) -> Backend:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        server = ThreadingHTTPServer(("127.0.0.1", any_free()), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        clients.append(Backend(f"http://127.0.0.1:{server.server_port}/"))
        return clients[-1]

    yield start
    for client in clients:
        client.close()
    for server in servers:
        server.shutdown()
        server.server_close()
    asked.clear()


asked: list[str] = []


@pytest.mark.parametrize("body", ["<html>hello</html>", "[]", "{}", '{"id": 1}', "null"])
def test_an_answer_of_something_else_is_a_problem(
    answering: Callable[[int, str, str], Backend], body: str
) -> None:
    with pytest.raises(Problem, match="not one of this service"):
        answering(200, "application/json", body).job("1")


@pytest.mark.parametrize("body", ["<h1>Bad Gateway</h1>", '"text"', "{}"])
def test_an_error_of_a_proxy_is_a_problem(answering: Callable[[int, str, str], Backend], body: str) -> None:
    with pytest.raises(Problem, match="status 502"):
        answering(502, "text/html", body).job("1")


@pytest.mark.parametrize(("status", "mend"), [(413, "Compress"), (429, "Wait")])
def test_a_limit_of_a_proxy_comes_with_its_mend(
    answering: Callable[[int, str, str], Backend], status: int, mend: str
) -> None:
    with pytest.raises(Problem) as caught:
        answering(status, "text/html", "<h1>No</h1>").job("1")
    assert caught.value.mend.startswith(mend)
    assert not caught.value.is_final


def test_nobody_waits_long_for_a_service_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "QUICK", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, ExitStack() as held:
        client = Backend(f"http://127.0.0.1:{silent.getsockname()[1]}")
        held.callback(client.close)
        for ask in (client.account, lambda: client.job("1")):
            with pytest.raises(Problem, match="in time"):
                ask()


def test_a_problem_document_is_read(answering: Callable[[int, str, str], Backend]) -> None:
    body = '{"code": "not-found", "title": "T", "detail": "There is no such job.", "mend": "Look."}'
    with pytest.raises(Problem) as caught:
        answering(404, "application/problem+json", body).job("1")
    assert (caught.value.code, caught.value.mend) == ("not-found", "Look.")


def test_an_id_cannot_lead_to_another_address(answering: Callable[[int, str, str], Backend]) -> None:
    with pytest.raises(Problem):
        answering(200, "application/json", "{}").job("../../metrics?x#y")
    assert asked == ["/api/v1/jobs/..%2F..%2Fmetrics%3Fx%23y"]


def test_readiness_is_what_the_service_says(answering: Callable[[int, str, str], Backend]) -> None:
    assert answering(200, "application/json", "{}").ready()
    assert not answering(503, "application/json", "{}").ready()
