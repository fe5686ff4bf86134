"""``qsm-ai doctor`` before services that really run, well and broken ones."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from real_services import S3
from typer.testing import CliRunner

from qsm_ai import __version__
from qsm_ai.cli import app
from qsm_ai.inference.ports import any_free
from qsm_ai.inference.repository import model_repository
from qsm_ai.inference.server import TritonServer

Findings = dict[str, dict[str, Any]]

JOB = f"/api/v1/jobs/{'a' * 32}"

DEAD = """
    def _run(self, patch):
        return np.zeros((1, 1, *patch.shape[2:]), np.float32)
"""


def ask(url: str, *options: str, key: str = "", **environment: str) -> tuple[int, Findings]:
    """Exit status and findings by name."""
    given = {"QSM_API_KEY": key, **environment}
    result = CliRunner().invoke(app, ["doctor", url, "--json", *options], env=given)
    report = json.loads(result.stdout)
    assert report["healthy"] == (result.exit_code == 0)
    return result.exit_code, {finding["name"]: finding for finding in report["findings"]}


def wrongs(findings: Findings) -> set[str]:
    return {name for name, finding in findings.items() if finding["verdict"] == "wrong"}


def test_a_service_that_is_well_passes_and_keeps_nothing(service: str, triton: TritonServer) -> None:
    metrics = f"http://127.0.0.1:{triton.ports.metrics}/metrics"
    status, found = ask(service, f"--triton-metrics={metrics}")
    assert status == 0, {n: f for n, f in found.items() if f["verdict"] == "wrong"}
    assert wrongs(found) == set()
    verdicts = {name: finding["verdict"] for name, finding in found.items()}
    assert verdicts == {
        "reachability": "ok", "certificate": "skipped", "clock": "ok", "version": "ok", "access": "ok",
        "readiness": "ok", "network": "ok", "storage": "ok", "gpu": "warning", "alerts": "skipped",
    }  # fmt: skip
    assert found["network"]["facts"]["error"] < 0.005
    assert httpx.get(f"{service}/api/v1/jobs").json()["jobs"] == []


def test_people_read_a_line_for_each_thing_and_the_mend_below(service: str) -> None:
    result = CliRunner().invoke(app, ["doctor", service, "--no-scan"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("ok    reachability The service answers in ")
    assert "-     certificate  The address is http: there is none." in lines
    assert lines[-1] == "Nothing is wrong."


def test_a_triton_that_is_away_is_told_and_the_storage_is_looked_at_all_the_same(
    start_backend: Any,
) -> None:
    with start_backend(QSM_TRITON_URL=f"127.0.0.1:{any_free()}") as url:
        status, found = ask(url, "--patience=60")
    assert status == 1
    assert wrongs(found) == {"readiness"}
    assert found["readiness"]["said"] == "The inference server cannot be reached."
    assert "QsmTritonDown" in found["readiness"]["mend"]
    assert found["network"]["verdict"] == "skipped"
    assert found["storage"]["verdict"] == "ok"


@pytest.mark.slow
def test_a_network_that_answers_without_values_is_found_out(start_backend: Any, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(model_repository(), repository)
    model = repository / "qsm_vit/1/model.py"
    model.write_text(model.read_text() + DEAD)
    with TritonServer(repository, threads=1) as dead, start_backend(QSM_TRITON_URL=dead.grpc_url) as url:
        status, found = ask(url)
    assert status == 1
    assert wrongs(found) == {"network"}
    assert "not that of this version's network" in found["network"]["said"]
    assert found["network"]["facts"]["error"] > 0.03
    assert found["storage"]["verdict"] == "ok"


def test_a_bucket_that_cannot_be_written_is_told(
    start_backend: Any, triton: TritonServer, tmp_path: Path
) -> None:
    bucket = S3(tmp_path)
    url = bucket.new_bucket()
    here = tmp_path / "buckets" / url.removeprefix("s3://")
    here.mkdir(parents=True)
    (here / "here").write_text("before")
    read_only = {**bucket.environment, "RCLONE_READ_ONLY": "true"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in read_only.items():
            patch.setenv(name, value)
        bucket.start()
    try:
        settings = {**bucket.environment, "QSM_TRITON_URL": triton.grpc_url, "QSM_STORAGE_URL": url}
        with start_backend(**settings) as service:
            status, found = ask(service)
    finally:
        bucket.stop()
    assert status == 1
    assert wrongs(found) == {"readiness", "storage"}
    assert found["readiness"]["facts"]["storage"] is False
    assert "QsmStorageErrors" in found["storage"]["mend"]
    assert found["network"]["verdict"] == "skipped"


@pytest.mark.parametrize(
    ("ahead", "verdict", "where"),
    [(0, "ok", "agree"), (20, "warning", "20 s ahead"), (-900, "wrong", "s behind")],
)
def test_a_clock_that_differs_is_told(
    service: str, serve: Any, proxy: Any, ahead: float, verdict: str, where: str
) -> None:
    with serve(proxy(service, seconds_ahead=ahead)) as url:
        _, found = ask(url, "--no-scan")
    assert found["clock"]["verdict"] == verdict
    if verdict != "warning":  # a slow machine may say 19
        assert where in found["clock"]["said"]
    assert abs(found["clock"]["facts"]["seconds_ahead"] - ahead) < 5


@pytest.mark.parametrize(("days", "verdict"), [(2, "wrong"), (10, "warning"), (300, "ok")])
def test_a_certificate_is_told_by_the_days_it_has_left(
    service: str, serve: Any, proxy: Any, certified: Callable[[int], Path], days: int, verdict: str
) -> None:
    both = certified(days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    with serve(proxy(service), context) as url:
        _, found = ask(url, "--no-scan", SSL_CERT_FILE=str(both))
    assert found["reachability"]["verdict"] == "ok"
    assert found["certificate"]["verdict"] == verdict
    assert found["certificate"]["facts"]["days"] == pytest.approx(days, abs=0.01)


def test_a_certificate_that_nobody_vouches_for_is_told(
    service: str, serve: Any, proxy: Any, certified: Callable[[int], Path]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certified(300))
    with serve(proxy(service), context) as url:
        status, found = ask(url)
    assert status == 1
    assert wrongs(found) == {"reachability", "certificate"}
    assert "not trusted" in found["certificate"]["said"]
    assert "SSL_CERT_FILE" in found["certificate"]["mend"]


def test_nobody_there_and_somebody_else_there_are_told_apart(serve: Any, answers: Any) -> None:
    status, found = ask(f"http://127.0.0.1:{any_free()}")
    assert status == 1
    assert found["reachability"]["said"] == "Nothing answers at this address."
    assert "network" not in found
    with serve(answers("<html>a page</html>")) as url:
        status, found = ask(url)
    assert status == 1
    assert "is not QSM-AI" in found["reachability"]["said"]
    _, found = ask("http://no-such-name.invalid")
    assert found["reachability"]["said"] == "The service's name has no address."


@pytest.mark.parametrize("variable", ["QSM_URL", "QSM_API_URL"])
def test_the_address_may_stand_where_the_other_commands_read_it(
    serve: Any, answers: Any, variable: str
) -> None:
    with serve(answers('{"version": "0", "status": "alive"}')) as url:
        result = CliRunner().invoke(app, ["doctor", "--json", "--no-scan"], env={variable: url})
    found = {f["name"]: f for f in json.loads(result.stdout)["findings"]}
    assert found["reachability"]["verdict"] == "ok"


@pytest.mark.parametrize("url", ["http://host:port", "http://host:99999", "http://[::1"])
def test_what_is_no_address_is_one_sentence(url: str) -> None:
    result = CliRunner().invoke(app, ["doctor", url, "--json"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "This is no address." in result.stderr


@pytest.mark.parametrize("option", ["--timeout", "--patience"])
def test_a_time_that_is_none_is_refused(option: str) -> None:
    result = CliRunner().invoke(app, ["doctor", "http://127.0.0.1:9", option, "-1"])
    assert result.exit_code == 2
    assert option in result.stderr


def test_a_name_that_no_host_can_have_is_a_finding() -> None:
    _, found = ask("http://a..b")
    assert found["reachability"]["said"] == "The service's name has no address."


def test_a_key_that_cannot_be_sent_is_one_sentence_and_not_told() -> None:
    url = f"http://127.0.0.1:{any_free()}"
    result = CliRunner().invoke(app, ["doctor", url], env={"QSM_API_KEY": "qsm_schlüssel"})
    assert result.exit_code == 2
    assert "The key holds characters" in result.stderr
    assert "schlüssel" not in result.output


def test_an_interrupted_doctor_leaves_no_scan_behind(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.command, self.path))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.dumps({"version": __version__, "way": "none", "checks": {}, "id": "a" * 32}).encode()
            self.send_response(404 if ("DELETE", JOB) in asked[:-1] else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_GET  # noqa: N815 - names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qsm_ai.doctor.reconstruction._wait", interrupted)
    with serve(Service) as url:
        result = CliRunner().invoke(app, ["doctor", url])
    assert result.exit_code == 130
    assert ("POST", "/api/v1/reconstruct") in asked
    assert ("DELETE", JOB) in asked


def test_without_a_good_key_no_scan_is_sent_and_the_key_is_not_told(
    start_backend: Any, triton: TritonServer
) -> None:
    with start_backend(QSM_TRITON_URL=triton.grpc_url, QSM_ACCESS="keys") as url:
        result = CliRunner().invoke(app, ["doctor", url, "--json"], env={"QSM_API_KEY": "qsm_not_a_real_key"})
    found = {f["name"]: f for f in json.loads(result.stdout)["findings"]}
    assert result.exit_code == 1
    assert wrongs(found) == {"access"}
    assert "QSM_API_KEY" in found["access"]["mend"]
    assert found["network"]["verdict"] == "skipped"
    assert "qsm_not_a_real_key" not in result.output


def test_the_gpu_is_read_from_tritons_metrics(service: str, serve: Any, answers: Any) -> None:
    told = (
        'nv_inference_count{model="qsm_vit"} 3\nnv_gpu_utilization{gpu_uuid="a"} 0.42\n'
        'nv_gpu_memory_total_bytes{gpu_uuid="a"} 16e9\nnv_gpu_memory_used_bytes{gpu_uuid="a"} 4e9\n'
    )
    with serve(answers(told)) as metrics:
        _, found = ask(service, "--no-scan", f"--triton-metrics={metrics}")
    assert found["gpu"]["verdict"] == "ok"
    assert found["gpu"]["facts"] == {"gpus": 1, "utilization": 0.42, "memory_used": 0.25}
    _, found = ask(service, "--no-scan", f"--triton-metrics=http://127.0.0.1:{any_free()}/metrics")
    assert found["gpu"]["verdict"] == "wrong"
    _, found = ask(service, "--no-scan", f"--triton-metrics={service}/metrics")
    assert "not Triton's" in found["gpu"]["said"]


def test_a_page_in_place_of_tritons_metrics_is_a_finding(serve: Any, answers: Any) -> None:
    with serve(answers("Welcome to our page\n")) as metrics:
        _, found = ask(f"http://127.0.0.1:{any_free()}", f"--triton-metrics={metrics}")
    assert "not Triton's" in found["gpu"]["said"]


def test_the_command_needs_no_servers_libraries() -> None:
    servers = ("fastapi", "torch", "openvino", "tritonclient", "sqlalchemy")
    code = (
        "import sys; from qsm_ai.doctor import commands, examination;"
        f"print([m for m in {servers} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
