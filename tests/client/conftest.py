"""A server that answers as a test tells it, faults included, and both clients of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from qsm_ai.client import AsyncClient, Client
from qsm_ai.inference.ports import any_free

JOB = {"id": "a" * 32, "state": "running", "fraction": 0.5}


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Scripted:
    """Answers requests in order: each entry is (status, headers, body), or gives it when called.

    No status breaks off.
    """

    script: list[Any]
    seen: list[Seen] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    servers = []

    def start(*script: Any) -> Scripted:
        told = Scripted(list(script))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                told.seen.append(Seen(self.command, self.path, headers, body))
                step = told.script.pop(0)
                status, more, content = step() if callable(step) else step
                if status is None:
                    # Nothing at all: the connection breaks.
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                if "Content-Length" not in more:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                if "Content-Length" in more:
                    # Less than promised: the connection breaks in the middle.
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", any_free()), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        told.url = f"http://127.0.0.1:{server.server_port}"
        return told

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(params=["blocking", "asynchronous"])
def use(request: Any) -> Callable[..., Any]:
    """Open a client, call one method, and give what it gives; generators as lists."""

    def blocking(url: str, method: str, *arguments: Any, options: Any = None, **named: Any) -> Any:
        with Client(url, **(options or {})) as client:
            found = getattr(client, method)(*arguments, **named)
            return list(found) if isinstance(found, Iterator) else found

    def asynchronous(url: str, method: str, *arguments: Any, options: Any = None, **named: Any) -> Any:
        async def call() -> Any:
            async with AsyncClient(url, **(options or {})) as client:
                found = getattr(client, method)(*arguments, **named)
                return [item async for item in found] if hasattr(found, "__aiter__") else await found

        return asyncio.run(call())

    return blocking if request.param == "blocking" else asynchronous
