"""A service that really runs, and things that stand between it and the doctor."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from qsm_ai.inference.ports import any_free
from qsm_ai.inference.server import TritonServer

HOP = {"connection", "transfer-encoding", "content-length", "host", "keep-alive"}


@pytest.fixture(scope="session")
def triton() -> Iterator[TritonServer]:
    """The inference server with the shipped network."""
    with TritonServer(threads=1) as server:
        yield server


StartBackend = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def start_backend(tmp_path_factory: pytest.TempPathFactory) -> StartBackend:
    """Starts a backend with these settings on a data folder of its own; gives its address."""

    @contextmanager
    def start(**settings: str) -> Iterator[str]:
        folder, port = tmp_path_factory.mktemp("backend"), any_free()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("QSM_")}
        environment |= {"QSM_DATA_DIR": str(folder / "data"), "QSM_PORT": str(port)} | settings
        log = folder / "log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "qsm_ai.api"], env=environment, stdout=sink, stderr=sink, cwd=folder
            )
        try:
            deadline = time.monotonic() + 120
            while True:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                try:
                    httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)

    return start


@pytest.fixture(scope="session")
def service(start_backend: StartBackend, triton: TritonServer) -> Iterator[str]:
    """The address of a service that is well."""
    with start_backend(QSM_TRITON_URL=triton.grpc_url) as url:
        yield url


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A web server of the test's own; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", any_free()), handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        scheme, name = ("https", "localhost") if context else ("http", "127.0.0.1")
        yield f"{scheme}://{name}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def proxy_to(target: str, *, seconds_ahead: float = 0.0) -> type[BaseHTTPRequestHandler]:
    """Hands everything on to a service, and tells another time."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP}
            answer = httpx.request(
                self.command, f"{target}{self.path}", content=body, headers=headers, timeout=60
            )
            self.send_response_only(answer.status_code)
            for name, value in answer.headers.items():
                if name not in HOP | {"date", "content-encoding"}:
                    self.send_header(name, value)
            self.send_header("Date", formatdate(time.time() + seconds_ahead, usegmt=True))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_DELETE = do_GET  # noqa: N815 - names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    return Proxy


def saying(text: str) -> type[BaseHTTPRequestHandler]:
    """Answers everything with a text."""

    class Fixed(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    return Fixed


@pytest.fixture(scope="session")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Makes a certificate for localhost that ends in so many days: one file with its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: apt-get install openssl")

    def make(days: int) -> Path:
        folder = tmp_path_factory.mktemp("certificate")
        subprocess.run(
            [
                *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", str(days)),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
                *("-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")),
            ],
            check=True,
            capture_output=True,
        )
        both = folder / "both.pem"
        both.write_text((folder / "certificate.pem").read_text() + (folder / "key.pem").read_text())
        return both

    return make


@pytest.fixture
def serve() -> Callable[..., AbstractContextManager[str]]:
    """``serving``, for tests."""
    return serving


@pytest.fixture
def proxy() -> Callable[..., type[BaseHTTPRequestHandler]]:
    """``proxy_to``, for tests."""
    return proxy_to


@pytest.fixture
def answers() -> Callable[[str], type[BaseHTTPRequestHandler]]:
    """``saying``, for tests."""
    return saying
