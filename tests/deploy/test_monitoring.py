"""Rules, routes and logs: right on paper by the tools' own checks, and alive from a metric to a mailbox."""

import asyncio
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

from qsm_ai.api.metrics import Metrics
from qsm_ai.jobs.records import State

HERE = Path(__file__).parent
GET_PROMETHEUS = "apt-get install prometheus"
GET_ALERTMANAGER = "apt-get install prometheus-alertmanager"

# Metrics that others make: Triton, Prometheus itself, the FastAPI instrumentator.
FOREIGN = {
    "nv_gpu_utilization", "nv_inference_count", "nv_inference_exec_count", "nv_inference_request_failure",
    "up", "http_requests_total",
}  # fmt: skip


@pytest.fixture(scope="module")
def monitoring(deploy: Path) -> Path:
    return deploy / "monitoring"


@pytest.fixture(scope="module")
def rules(monitoring: Path) -> list[dict[str, str]]:
    files = sorted((monitoring / "prometheus/rules").glob("*.yml"))
    return [
        rule for f in files for group in yaml.safe_load(f.read_text())["groups"] for rule in group["rules"]
    ]


def run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_every_alert_fires_when_it_must_and_only_then(tool: Callable[..., str]) -> None:
    report = run(tool("promtool", get=GET_PROMETHEUS), "test", "rules", "alerts.yml", cwd=HERE)
    assert report.returncode == 0, report.stdout + report.stderr


def test_every_alert_is_tested_and_has_its_paragraph_in_the_runbook(rules: list[dict[str, str]]) -> None:
    alerts = {rule["alert"] for rule in rules if "alert" in rule}
    tested = yaml.safe_load((HERE / "alerts.yml").read_text())["tests"]
    fired = {t["alertname"] for test in tested for t in test["alert_rule_test"] if t["exp_alerts"]}
    runbook = (HERE.parents[1] / "docs/runbook.md").read_text()
    assert alerts == fired
    assert alerts == set(re.findall(r"^## (Qsm\w+)$", runbook, re.MULTILINE))


def test_an_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(rules: list[dict[str, str]]) -> None:
    for rule in (r for r in rules if "alert" in r):
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


class NoJobs:
    """A job store in which nothing ever happened."""

    def counts(self) -> dict[State, int]:
        return dict.fromkeys(State, 0)

    def oldest_queued(self) -> None:
        return None


def test_rules_ask_only_for_metrics_that_somebody_exposes(rules: list[dict[str, str]]) -> None:
    text = Metrics(NoJobs()).render().decode()  # type: ignore[arg-type]
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    parts = {"histogram": ("_bucket", "_count", "_sum")}
    own = {name + part for name, kind in kinds.items() for part in parts.get(kind, ("",))}
    recorded = {rule["record"] for rule in rules if "record" in rule}
    asked = set()
    for rule in rules:
        expression = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|on|group_left)\s*\([^)]*\)", "", rule["expr"])
        asked |= set(re.findall(r"\b(?:qsm|nv|http|up)[\w:]*", expression))
    assert len(asked) > 10
    assert asked - own - recorded - FOREIGN == set()


def test_the_configuration_of_prometheus_is_valid(tool: Callable[..., str], monitoring: Path) -> None:
    configuration = str(monitoring / "prometheus/prometheus.yml")
    report = run(tool("promtool", get=GET_PROMETHEUS), "check", "config", "--syntax-only", configuration)
    assert report.returncode == 0, report.stdout + report.stderr


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=QsmTritonDown", "severity=page"], "page"),
        (["alertname=QsmGpuSaturated", "severity=ticket"], "ticket"),
        (["alertname=SomethingElse"], "ticket"),
    ],
)
def test_pages_and_tickets_take_their_routes(
    tool: Callable[..., str], monitoring: Path, labels: list[str], receiver: str
) -> None:
    configuration = f"--config.file={monitoring / 'alertmanager/alertmanager.yml'}"
    amtool = tool("amtool", get=GET_ALERTMANAGER)
    assert run(amtool, "check-config", configuration.split("=")[1]).returncode == 0
    assert run(amtool, "config", "routes", "test", configuration, *labels).stdout.strip() == receiver


@contextmanager
def web_server(port: int, answer: Callable[[bytes], bytes]) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - a name that http.server calls

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def mail_server(port: int, letters: list[str]) -> Iterator[None]:
    """Enough of SMTP to be handed a letter."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                writer.write(b"354 go on\r\n")
                await writer.drain()
                letters.append((await reader.readuntil(b"\r\n.\r\n")).decode())
            writer.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
            await writer.drain()
            if verb == b"QUIT":
                break
        writer.close()

    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with await asyncio.start_server(talk, "127.0.0.1", port):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@contextmanager
def process(*command: str, log: Path) -> Iterator[None]:
    with log.open("w") as sink:
        child = subprocess.Popen(command, stdout=sink, stderr=sink)
        try:
            yield
        finally:
            child.terminate()
            child.wait(20)


def until(found: Callable[[], bool], seconds: float, what: Callable[[], object]) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, what()
        time.sleep(0.2)


def shortened(text: str, seconds: int = 1) -> str:
    """The same configuration, with waiting times of seconds instead of minutes."""
    return re.sub(r"(?m)(for|interval|\w+_interval|group_wait): \d+[smh]$", rf"\1: {seconds}s", text)


def test_a_lost_inference_server_reaches_slack_and_the_mailbox_and_is_taken_back(
    tool: Callable[..., str], monitoring: Path, free_port: Callable[[], int], tmp_path: Path
) -> None:
    prometheus = tool("prometheus", get=GET_PROMETHEUS)
    alertmanager = tool("prometheus-alertmanager", get=GET_ALERTMANAGER)
    triton, slack, mail, manager, watcher = (free_port() for _ in range(5))
    posts: list[dict[str, object]] = []
    letters: list[str] = []

    (tmp_path / "rules").mkdir()
    for file in (monitoring / "prometheus/rules").glob("*.yml"):
        (tmp_path / "rules" / file.name).write_text(shortened(file.read_text()))
    (tmp_path / "webhook").write_text(f"http://127.0.0.1:{slack}/")
    (tmp_path / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(tmp_path / "rules/*.yml")],
                "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{manager}"]}]}]},
                "scrape_configs": [
                    {"job_name": "triton-is", "static_configs": [{"targets": [f"127.0.0.1:{triton}"]}]},
                    {"job_name": "fastapi-be", "static_configs": [{"targets": [f"127.0.0.1:{watcher}"]}]},
                ],
            }
        )
    )
    routes = shortened((monitoring / "alertmanager/alertmanager.yml").read_text())
    for shipped, here in {
        "/run/secrets/slack_webhook_url": str(tmp_path / "webhook"),
        "/etc/alertmanager/": f"{monitoring / 'alertmanager'}/",
        "smtp.example.org:587": f"127.0.0.1:{mail}",
        "smtp_require_tls: true": "smtp_require_tls: false",
        "  smtp_auth_username: qsm-ai@example.org\n": "",
        "  smtp_auth_password_file: /run/secrets/smtp_password\n": "",
    }.items():
        assert shipped in routes
        routes = routes.replace(shipped, here)
    (tmp_path / "alertmanager.yml").write_text(routes)

    def take(body: bytes) -> bytes:
        posts.append(json.loads(body))
        return b"ok"

    def titles() -> str:
        return json.dumps(posts)

    with (
        web_server(slack, take),
        mail_server(mail, letters),
        process(
            alertmanager,
            f"--config.file={tmp_path / 'alertmanager.yml'}",
            f"--storage.path={tmp_path / 'manager'}",
            f"--web.listen-address=127.0.0.1:{manager}",
            "--cluster.listen-address=",
            log=tmp_path / "alertmanager.log",
        ),
        process(
            prometheus,
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'series'}",
            f"--web.listen-address=127.0.0.1:{watcher}",
            log=tmp_path / "prometheus.log",
        ),
    ):
        log = tmp_path / "alertmanager.log"
        until(lambda: "PAGE: No inference server answers" in titles(), 40, log.read_text)
        until(lambda: any("No inference server answers" in letter for letter in letters), 20, log.read_text)
        assert any("Subject: PAGE: No inference server answers" in letter for letter in letters)
        assert "docs/runbook.md#qsmtritondown" in titles()
        series = httpx.get(f"http://127.0.0.1:{watcher}/api/v1/query", params={"query": "ALERTS"}).json()
        firing = {s["metric"]["alertname"] for s in series["data"]["result"]}
        assert firing == {"QsmTritonDown"}
        with web_server(triton, lambda _: b"nv_gpu_utilization 0.5\n"):
            until(lambda: "Resolved: No inference server answers" in titles(), 40, log.read_text)


@pytest.mark.parametrize("where", ["stdout", "cloudwatch", "cloud-logging"])
def test_logs_of_all_tiers_are_read_as_json_and_go_to_one_place(monitoring: Path, where: str) -> None:
    shipped = yaml.safe_load((monitoring / f"fluent-bit/{where}.yaml").read_text())
    parsers = yaml.safe_load((monitoring / "fluent-bit/parsers.yaml").read_text())["parsers"]
    (source,), (destination,) = shipped["pipeline"]["inputs"], shipped["pipeline"]["outputs"]
    assert source["db"], "without a position on disk, logs would be lost or doubled at a restart"
    assert {f["parser"] for f in shipped["pipeline"]["filters"]} <= {p["name"] for p in parsers}
    assert destination["match"].split(".")[0] == source["tag"].split(".")[0]
