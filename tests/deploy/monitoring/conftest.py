"""A service that really runs, watched by a real Prometheus and Alertmanager with the shipped rules.

Windows and waiting times are of seconds instead of minutes; everything else is as it is shipped.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from aiosmtpd.controller import Controller
from known_network import write_known_repository

from qsm_ai.inference.ports import any_free
from qsm_ai.inference.server import TritonServer
from qsm_ai.observe.catalogue import DURATIONS

if TYPE_CHECKING:
    from tests.conftest import Files

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "deploy/monitoring"
WINDOW = 30
"""Seconds over which the shortened rules take a rate."""

PATIENCE = 240.0
"""Seconds that a slow machine may take for one thing."""

BRAKE = """
    def _run(self, patch):
        import time
        brake = Path({brake!r})
        order = brake.read_text() if brake.exists() else "0"
        if order == "fail":
            raise pb_utils.TritonModelException("told to fail")
        time.sleep(float(order))
        return self._infer.infer([patch])[0].copy()
"""


@contextmanager
def process(name: str, folder: Path, *command: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program, stopped at the end; its output goes to ``<name>.log``."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QSM_")} | variables
    with (folder / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
        try:
            yield child
        finally:
            child.terminate()
            child.wait(60)


def until(found: Callable[[], Any], what: Callable[[], object], seconds: float = PATIENCE) -> Any:
    """What is found, as soon as it is."""
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, what()
        time.sleep(0.2)
    return result


def answers(url: str) -> bool:
    """Whether something answers well."""
    try:
        return httpx.get(url, timeout=10).is_success
    except httpx.HTTPError:
        return False


class Slack:
    """Takes messages as Slack's webhook does, and refuses them when told to."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.refuses = False
        slack = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not slack.refuses:
                    slack.posts.append(json.loads(body))
                self.send_response(403 if slack.refuses else 200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", any_free()), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    @property
    def titles(self) -> list[str]:
        return [str(a["title"]) for post in self.posts for a in post["attachments"]]

    def __enter__(self) -> Slack:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Mailbox:
    """An SMTP server, and the letters that it was handed."""

    def __init__(self) -> None:
        self.letters: list[str] = []
        self.port = any_free()
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port, ready_timeout=60)

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802
        self.letters.append(envelope.content.decode())
        return "250 taken"

    @property
    def subjects(self) -> list[str]:
        found = (re.search(r"^Subject: (.*)\r?$", letter, re.MULTILINE) for letter in self.letters)
        return [match[1].strip() for match in found if match]

    def __enter__(self) -> Mailbox:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()


@dataclass
class Watched:
    """The running service and all that watches it."""

    folder: Path
    repository: Path
    backend: str
    triton: TritonServer
    slack: Slack
    mail: Mailbox
    scan: dict[str, Path]
    prometheus: str = ""
    alertmanager: str = ""
    usual: float = 0.0
    limit: float = 0.0
    held: ExitStack = field(default_factory=ExitStack)

    @property
    def brake(self) -> Path:
        """Seconds that the network takes longer for a patch, or ``fail``."""
        return self.folder / "brake"

    def job(self, *, state: str = "done") -> float:
        """Send the scan, wait for its end; how many seconds it took."""
        began = time.monotonic()
        with ExitStack() as files:
            parts = {role: files.enter_context(path.open("rb")) for role, path in self.scan.items()}
            answer = httpx.post(f"{self.backend}/api/v1/reconstruct", files=parts, timeout=PATIENCE)
        assert answer.status_code == 202, answer.text
        address = f"{self.backend}/api/v1/jobs/{answer.json()['id']}"

        def ended() -> Any:
            record = httpx.get(address, timeout=PATIENCE).json()
            return record if record["state"] in {"done", "failed", "cancelled"} else None

        record = until(ended, lambda: httpx.get(address, timeout=PATIENCE).text, PATIENCE + 2 * self.limit)
        assert record["state"] == state, record
        return time.monotonic() - began

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that Prometheus gives to a query; not those without a value."""
        address = f"{self.prometheus}/api/v1/query"
        answer = httpx.get(address, params={"query": query}, timeout=PATIENCE).json()
        assert answer["status"] == "success", (query, answer)
        series: list[dict[str, Any]] = answer["data"]["result"]
        return [one for one in series if one["value"][1] != "NaN"]

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        return {one["metric"]["alertname"] for one in self.ask('ALERTS{alertstate="firing"}')}

    def log(self, name: str) -> str:
        """The log of a program."""
        return (self.folder / f"{name}.log").read_text(errors="replace")


def shortened(text: str) -> str:
    """The same configuration, with seconds instead of minutes: what comes first still comes first."""
    text = re.sub(r"(?m)\bfor: (\d+)m$", r"for: \1s", text)
    text = re.sub(r"(?m)\bgroup_wait: \d+s$", "group_wait: 3s", text)
    text = re.sub(r"(?m)\b(interval|group_interval): \d+[smh]$", r"\1: 1s", text)
    return re.sub(r"\[(?:5|10)m\]", f"[{WINDOW}s]", text)


@pytest.fixture(scope="session")
def watched(
    files: Files, tool: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """All of it, for all tests of this folder."""
    prometheus = tool("prometheus", get="apt-get install prometheus")
    alertmanager = tool("prometheus-alertmanager", get="apt-get install prometheus-alertmanager")
    blackbox = tool("prometheus-blackbox-exporter", get="apt-get install prometheus-blackbox-exporter")
    openssl = tool("openssl", get="apt-get install openssl")
    folder = tmp_path_factory.mktemp("watched")
    repository = _repository(folder)
    with ExitStack() as held:
        server = TritonServer(repository, precision="f32", threads=1)
        server.start()
        held.callback(lambda: stack.triton.stop())  # noqa: PLW0108 - a test may put another in its place
        port = any_free()
        held.enter_context(
            process(
                "backend", folder, sys.executable, "-m", "qsm_ai.api",
                QSM_DATA_DIR=str(folder / "data"), QSM_PORT=str(port), QSM_TRITON_URL=server.grpc_url,
                QSM_TRITON_TIMEOUT_S="900",
            )
        )  # fmt: skip
        stack = Watched(
            folder, repository, f"http://127.0.0.1:{port}", server,
            held.enter_context(Slack()), held.enter_context(Mailbox()),
            {"local_field": files.local_field, "mask": files.mask}, held=held,
        )  # fmt: skip
        until(lambda: answers(f"{stack.backend}/readyz"), lambda: stack.log("backend"))
        stack.job()
        stack.usual = stack.job()
        # As the limits are where they belong: well above what is usual here, and an end of a bucket.
        stack.limit = next(float(end) for end in DURATIONS if end > 4 * stack.usual)
        page = any_free()
        certificate = _certificate(openssl, folder)
        held.enter_context(_tls_server(page, certificate))
        probe = any_free()
        held.enter_context(_blackbox(blackbox, folder, probe))
        _watch(held, stack, prometheus, alertmanager, probe=probe, page=page)
        yield stack


def _repository(folder: Path) -> Path:
    """The model repository with known arithmetic for a network, and a brake."""
    target = write_known_repository(folder / "repository")
    model = target / "qsm_vit/1/model.py"
    model.write_text(model.read_text() + BRAKE.format(brake=str(folder / "brake")))
    return target


def _certificate(openssl: str, folder: Path) -> Path:
    both = folder / "certificate.pem"
    command = [
        *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "90", "-subj", "/CN=localhost"),
        *("-keyout", str(folder / "key.pem"), "-out", str(both)),
    ]
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(both.read_text() + (folder / "key.pem").read_text())
    return both


@contextmanager
def _tls_server(port: int, certificate: Path) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _blackbox(program: str, folder: Path, port: int) -> Iterator[None]:
    shipped = yaml.safe_load((MONITORING / "blackbox/blackbox.yml").read_text())
    # The test's own certificate is vouched for by nobody.
    shipped["modules"]["ready"]["http"]["tls_config"] = {"insecure_skip_verify": True}
    (folder / "blackbox.yml").write_text(yaml.safe_dump(shipped))
    options = (f"--config.file={folder / 'blackbox.yml'}", f"--web.listen-address=127.0.0.1:{port}")
    with process("blackbox", folder, program, *options):
        yield


def _watch(
    held: ExitStack, stack: Watched, prometheus: str, alertmanager: str, *, probe: int, page: int
) -> None:
    folder, manager, watcher = stack.folder, any_free(), any_free()
    stack.prometheus, stack.alertmanager = f"http://127.0.0.1:{watcher}", f"http://127.0.0.1:{manager}"
    (folder / "rules").mkdir()
    for file in (MONITORING / "prometheus/rules").glob("*.yml"):
        (folder / "rules" / file.name).write_text(shortened(file.read_text()))
    limits = (MONITORING / "prometheus/thresholds/gpu.yml").read_text()
    for what in ("inference", "job"):
        shipped = rf"(?<=record: qsm:threshold:{what}_p99_seconds\n        expr: )vector\(\d+\)"
        limits, found = re.subn(shipped, f"vector({stack.limit:g})", limits)
        assert found == 1
    (folder / "thresholds.yml").write_text(limits)
    (folder / "prometheus.yml").write_text(json.dumps(_scraping(stack, manager, probe, page)))
    (folder / "alertmanager.yml").write_text(_routes(stack))
    held.enter_context(
        process(
            "alertmanager",
            folder,
            alertmanager,
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'manager'}",
            f"--web.listen-address=127.0.0.1:{manager}",
            "--cluster.listen-address=",
        )
    )
    held.enter_context(
        process(
            "prometheus",
            folder,
            prometheus,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'series'}",
            f"--web.listen-address=127.0.0.1:{watcher}",
        )
    )
    until(lambda: answers(f"{stack.prometheus}/-/ready"), lambda: stack.log("prometheus"))
    until(lambda: answers(f"{stack.alertmanager}/-/ready"), lambda: stack.log("alertmanager"))
    until(lambda: len(stack.ask("up == 1")) == 3, lambda: stack.ask("up"))


def _scraping(stack: Watched, manager: int, probe: int, page: int) -> dict[str, Any]:
    shipped = yaml.safe_load((MONITORING / "prometheus/prometheus.yml").read_text())
    probes = next(job for job in shipped["scrape_configs"] if job["job_name"] == "probes")
    probes.pop("file_sd_configs")
    probes["static_configs"] = [{"targets": [f"https://localhost:{page}/"]}]
    probes["relabel_configs"][-1]["replacement"] = f"127.0.0.1:{probe}"
    backend, triton = stack.backend.removeprefix("http://"), f"127.0.0.1:{stack.triton.ports.metrics}"
    return {
        "global": {"scrape_interval": "3s", "scrape_timeout": "3s", "evaluation_interval": "1s"},
        "rule_files": [str(stack.folder / "rules/*.yml"), str(stack.folder / "thresholds.yml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{manager}"]}]}]},
        "scrape_configs": [
            {"job_name": "fastapi-be", "static_configs": [{"targets": [backend]}]},
            {"job_name": "triton-is", "static_configs": [{"targets": [triton]}]},
            probes,
        ],
    }


def _routes(stack: Watched) -> str:
    (stack.folder / "webhook").write_text(stack.slack.url)
    text = shortened((MONITORING / "alertmanager/alertmanager.yml").read_text())
    for shipped, here in {
        "/run/secrets/slack_webhook_url": str(stack.folder / "webhook"),
        "/etc/alertmanager/": f"{MONITORING / 'alertmanager'}/",
        "smtp.example.org:587": f"127.0.0.1:{stack.mail.port}",
        "smtp_require_tls: true": "smtp_require_tls: false",
        "  smtp_auth_username: qsm-ai@example.org\n": "",
        "  smtp_auth_password_file: /run/secrets/smtp_password\n": "",
    }.items():
        assert shipped in text
        text = text.replace(shipped, here)
    return text
