"""The door of the service, with a real nginx: what passes, what does not, and what is not there at all."""

import http.client
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

MEGABYTE = 2**20
GIGABYTE = 2**30


@dataclass
class Tier:
    """A server behind the proxy: says who it is and what it was sent."""

    name: str
    port: int
    first_byte: threading.Event = field(default_factory=threading.Event)
    says: dict[str, str] = field(default_factory=dict)


def tier_handler(tier: Tier) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            left = int(self.headers.get("Content-Length", 0))
            received = 0
            while left and (piece := self.rfile.read(min(left, MEGABYTE))):
                tier.first_byte.set()
                received += len(piece)
                left -= len(piece)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.dumps(
                {"tier": tier.name, "path": self.path, "received": received, "headers": headers}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            for name, value in tier.says.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if not self.path.endswith("/events"):
                return self.answer()
            # Server-sent events: the second is sent when the first was seen, so a buffering proxy would hang.
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"data: first\n\n")
            self.wfile.flush()
            tier.first_byte.wait(20)
            self.wfile.write(b"data: second\n\n")
            return None

        do_POST = do_PUT = answer  # noqa: N815 - names that http.server calls

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


@dataclass(frozen=True)
class Door:
    port: int
    backend: Tier
    temporary: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def nginx_in_front_of(
    backend: Tier, frontend: Tier, *, nginx: str, configuration: str, port: int, folder: Path
) -> Iterator[Door]:
    """The shipped nginx.conf, with this machine's ports and folders in place of the containers'."""
    for pattern, replacement in {
        r"listen 8080;": f"listen 127.0.0.1:{port};",
        r"fastapi-be:8000": f"127.0.0.1:{backend.port}",
        r"streamlit-fe:8501": f"127.0.0.1:{frontend.port}",
        r"(?<= )/tmp/": f"{folder}/",
        r"access_log /dev/stdout": f"access_log {folder}/access.log",
        r"error_log stderr": f"error_log {folder}/error.log",
        r"/etc/nginx/trusted/": f"{folder}/trusted/",
    }.items():
        configuration, replaced = re.subn(pattern, replacement, configuration)
        assert replaced, pattern
    (folder / "nginx.conf").write_text(configuration)
    process = subprocess.Popen(
        [nginx, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf"),
         "-g", "daemon off;"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until_open(port, process, folder / "error.log")
        yield Door(port, backend, folder)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def door(
    deploy: Path,
    tool: Callable[..., str],
    free_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Door]:
    nginx = tool("nginx", get="apt-get install nginx-light")
    backend, frontend = Tier("backend", free_port()), Tier("frontend", free_port())
    behind = ThreadingHTTPServer(("127.0.0.1", backend.port), tier_handler(backend))
    websockets = serve(echo, "127.0.0.1", frontend.port, max_size=None)
    for server in (behind, websockets):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with nginx_in_front_of(
            backend,
            frontend,
            nginx=nginx,
            configuration=(deploy / "proxy/nginx.conf").read_text(),
            port=free_port(),
            folder=tmp_path_factory.mktemp("nginx"),
        ) as door:
            yield door
    finally:
        behind.shutdown()
        behind.server_close()
        websockets.shutdown()


def echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


def wait_until_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(log.read_text())


def upload(door: Door, path: str, size: int, kind: str) -> httpx.Response:
    """Send zeros piece by piece; a refusal before the end is the answer."""
    piece = bytes(MEGABYTE)
    with begun_upload(door, path, size, kind) as connection:
        try:
            for sent in range(0, size, MEGABYTE):
                connection.send(piece[: min(MEGABYTE, size - sent)])
        except OSError:
            pass
        answer = connection.getresponse()
        return httpx.Response(answer.status, headers=dict(answer.getheaders()), content=answer.read())


@contextmanager
def begun_upload(door: Door, path: str, size: int, kind: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=120)
    with closing(connection):
        connection.putrequest("POST", path)
        connection.putheader("Content-Type", kind)
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        yield connection


MULTIPART = "multipart/form-data; boundary=x"


def test_api_goes_to_the_backend_with_its_whole_path(door: Door) -> None:
    seen = httpx.get(f"{door.url}/api/v1/jobs?limit=3").json()
    assert (seen["tier"], seen["path"]) == ("backend", "/api/v1/jobs?limit=3")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_the_backends(door: Door, path: str) -> None:
    assert httpx.get(door.url + path).json()["tier"] == "backend"


def test_a_scan_of_a_gigabyte_streams_through_unstored(door: Door) -> None:
    door.backend.first_byte.clear()
    answer = upload(door, "/api/v1/reconstruct", GIGABYTE, MULTIPART)
    assert answer.status_code == 200, answer.text
    assert answer.json()["received"] == GIGABYTE
    assert sum(f.stat().st_size for f in door.temporary.rglob("*") if f.is_file()) < MEGABYTE


def test_the_backend_sees_an_upload_while_it_still_runs(door: Door) -> None:
    door.backend.first_byte.clear()
    with begun_upload(door, "/api/v1/reconstruct", 2 * MEGABYTE, MULTIPART) as connection:
        connection.send(bytes(MEGABYTE))
        assert door.backend.first_byte.wait(10)
        connection.send(bytes(MEGABYTE))
        assert connection.getresponse().read()


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "application/problem+json"]
)
@pytest.mark.parametrize("path", ["/api/v1/reconstruct", "/api/v1/uploads", "/api/v1/other"])
def test_eleven_megabytes_of_json_are_refused(door: Door, path: str, kind: str) -> None:
    answer = upload(door, path, 11 * 10**6, kind)
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "too-large"
    assert answer.json()["mend"]


def test_nine_megabytes_of_json_pass(door: Door) -> None:
    assert upload(door, "/api/v1/reconstruct", 9 * 10**6, "application/json").json()["received"] == 9 * 10**6


def test_json_without_a_length_is_refused(door: Door) -> None:
    answer = httpx.post(
        f"{door.url}/api/v1/reconstruct", content=iter([b"{}"]), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 411
    assert answer.json()["code"] == "length-required"


def test_other_addresses_of_the_api_take_no_large_body(door: Door) -> None:
    assert upload(door, "/api/v1/keys", 11 * MEGABYTE, "application/octet-stream").status_code == 413


def test_a_refusal_by_size_comes_before_the_body(door: Door) -> None:
    door.backend.first_byte.clear()
    with begun_upload(door, "/api/v1/reconstruct", 5 * GIGABYTE, MULTIPART) as connection:
        assert connection.getresponse().status == 413
    assert not door.backend.first_byte.is_set()


def test_websockets_reach_the_frontend(door: Door) -> None:
    with connect(f"ws://127.0.0.1:{door.port}/_stcore/stream", max_size=None) as stream:
        for message in ("hello", b"\x00" * (4 * MEGABYTE)):
            stream.send(message)
            assert stream.recv(timeout=20) == message


def test_events_arrive_one_by_one(door: Door) -> None:
    door.backend.first_byte.clear()
    with httpx.stream("GET", f"{door.url}/api/v1/jobs/1/events", timeout=30) as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line) == "data: first"
        door.backend.first_byte.set()
        assert next(line for line in lines if line) == "data: second"


@pytest.mark.parametrize(
    "path", ["/v2/health/ready", "/v2/models/qsm_vit/infer", "/v2", "/metrics", "/_stcore/metrics"]
)
def test_triton_and_metrics_are_not_there(door: Door, path: str) -> None:
    assert httpx.get(door.url + path).status_code == 404
    assert httpx.post(door.url + path, content=b"{}").status_code == 404


def test_nothing_in_the_configuration_leads_to_triton(deploy: Path) -> None:
    assert "triton" not in re.sub(r"#.*", "", (deploy / "proxy/nginx.conf").read_text()).lower()


def test_a_request_id_is_kept_or_made_and_comes_back(door: Door) -> None:
    given = httpx.get(f"{door.url}/api/v1/jobs", headers={"X-Request-ID": "abc-12345678"})
    made = httpx.get(f"{door.url}/api/v1/jobs", headers={"X-Request-ID": 'bad"; id'})
    assert given.json()["headers"]["x-request-id"] == given.headers["X-Request-ID"] == "abc-12345678"
    assert re.fullmatch(r"[0-9a-f]{32}", made.headers["X-Request-ID"])
    assert made.json()["headers"]["x-request-id"] == made.headers["X-Request-ID"]


def test_the_backend_learns_who_asked_and_how(door: Door) -> None:
    headers = httpx.get(f"{door.url}/api/v1/jobs", headers={"X-Forwarded-Proto": "https"}).json()["headers"]
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["host"] == f"127.0.0.1:{door.port}"


def test_nobody_chooses_the_address_that_the_backend_sees(door: Door) -> None:
    spoofed = {"X-Forwarded-For": "203.0.113.7", "X-Real-IP": "203.0.113.7"}
    headers = httpx.get(f"{door.url}/api/v1/jobs", headers=spoofed).json()["headers"]
    assert headers["x-forwarded-for"] == "127.0.0.1"


def test_a_balancer_that_is_trusted_says_who_asked(
    deploy: Path, tool: Callable[..., str], free_port: Callable[[], int], tmp_path: Path
) -> None:
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted/balancer.conf").write_text("set_real_ip_from 127.0.0.1;\n")
    backend = Tier("backend", free_port())
    behind = ThreadingHTTPServer(("127.0.0.1", backend.port), tier_handler(backend))
    threading.Thread(target=behind.serve_forever, daemon=True).start()
    try:
        with nginx_in_front_of(
            backend, backend, nginx=tool("nginx", get="apt-get install nginx-light"),
            configuration=(deploy / "proxy/nginx.conf").read_text(), port=free_port(), folder=tmp_path,
        ) as door:  # fmt: skip
            forwarded = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7"}
            seen = httpx.get(f"{door.url}/api/v1/jobs", headers=forwarded).json()["headers"]
    finally:
        behind.shutdown()
        behind.server_close()
    # What the balancer added, not what its client made up before it.
    assert seen["x-forwarded-for"] == "203.0.113.7"


def test_pages_forbid_sniffing_foreign_frames_and_foreign_scripts(door: Door) -> None:
    headers = httpx.get(f"{door.url}/api/v1/jobs").headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "SAMEORIGIN"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]
    assert "http" not in headers["Content-Security-Policy"]
    assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]
    assert "nginx/" not in headers.get("Server", "")


def test_what_a_tier_says_itself_is_not_said_twice(door: Door) -> None:
    own = {
        "X-Frame-Options": "DENY",
        "Content-Security-Policy": "default-src 'none'",
        "X-Request-ID": "own-id-1",
    }
    door.backend.says.update(own)
    try:
        headers = httpx.get(f"{door.url}/api/v1/jobs").headers
    finally:
        door.backend.says.clear()
    assert {name: headers.get_list(name) for name in own} == {name: [value] for name, value in own.items()}


def test_browsers_stay_on_tls_once_they_came_by_it(door: Door) -> None:
    by_tls = httpx.get(f"{door.url}/api/v1/jobs", headers={"X-Forwarded-Proto": "https"})
    assert by_tls.headers["Strict-Transport-Security"].startswith("max-age=")
    assert "Strict-Transport-Security" not in httpx.get(f"{door.url}/api/v1/jobs").headers


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_the_apis_documentation_is_the_backends(door: Door, path: str) -> None:
    answer = httpx.get(door.url + path)
    assert answer.json()["tier"] == "backend"
    # Swagger's scripts come from elsewhere.
    assert ("Content-Security-Policy" in answer.headers) == (path == "/openapi.json")


def test_hundreds_of_pages_stay_open_at_once(door: Door) -> None:
    with ExitStack() as open_pages:
        pages = [
            open_pages.enter_context(connect(f"ws://127.0.0.1:{door.port}/_stcore/stream", open_timeout=60))
            for _ in range(200)
        ]
        assert httpx.get(f"{door.url}/api/v1/jobs", timeout=30).json()["tier"] == "backend"
        for page in (pages[0], pages[-1]):
            page.send("still there")
            assert page.recv(timeout=30) == "still there"


def test_one_connection_carries_many_requests(door: Door) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=30)
    with closing(connection):
        connection.connect()
        first = connection.sock
        for _ in range(20):
            connection.request("GET", "/api/v1/jobs")
            assert connection.getresponse().read()
            assert connection.sock is first


def test_the_log_is_json_without_queries(door: Door) -> None:
    httpx.get(f"{door.url}/api/v1/jobs?token=secret")
    time.sleep(0.2)
    lines = (door.temporary / "access.log").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert {"time", "request_id", "status", "seconds", "path"} <= set(entries[-1])
    assert "secret" not in "\n".join(lines)


def test_a_backend_that_is_down_is_said_as_a_problem(
    deploy: Path, tool: Callable[..., str], free_port: Callable[[], int], tmp_path: Path
) -> None:
    nobody = Tier("nobody", free_port())
    with nginx_in_front_of(
        nobody,
        nobody,
        nginx=tool("nginx", get="apt-get install nginx-light"),
        configuration=(deploy / "proxy/nginx.conf").read_text(),
        port=free_port(),
        folder=tmp_path,
    ) as door:
        answer = httpx.get(f"{door.url}/api/v1/jobs")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "10"
    assert answer.json()["code"] == "backend-down"
