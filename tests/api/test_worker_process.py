"""Gateways take scans, workers of their own compute them, and an operator brings the database up to date."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from qsm_ai.inference.ports import any_free
from qsm_ai.jobs import schema
from qsm_ai.jobs.database import Database

QSM_AI = str(Path(sys.executable).parent / "qsm-ai")
PATIENCE = 120.0
FORM = {"b0": "3", "method": "tkd"}

pytestmark = pytest.mark.parametrize(
    "deployment", [pytest.param("sqlite-folder", marks=pytest.mark.slow), "postgres-s3"], indirect=True
)


@contextmanager
def worker(backend: Any, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A worker on the database and the store of a gateway, and its health."""
    port = any_free()
    with (backend.folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [QSM_AI, "worker", "--slots", "1", "--port", str(port), *options],
            env=backend.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as health:
        try:
            until(lambda: answers(health))
            yield process, health
        finally:
            process.kill()
            process.wait()


def answers(health: httpx.Client) -> bool:
    try:
        return health.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def until(holds: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_worker_of_its_own_does_what_a_gateway_takes_in(start_backend: Any, files: Any) -> None:
    given = {"local_field": files.local_field, "mask": files.mask}
    with start_backend(QSM_WORKERS="0") as gateway, gateway.client() as client:
        job = client.submit(given, **FORM).json()
        assert job["state"] == "queued"
        assert job["queue_position"] == 1
        with worker(gateway) as (process, health):
            # Progress that another process recorded reaches who follows here.
            told = list(client.events(job["id"]))
            states = [event["data"]["state"] for event in told if event["event"] == "state"]
            assert states == ["queued", "running", "done"]
            assert any(event["event"] == "progress" for event in told)
            done = client.job(job["id"])
            assert client.get(done["artefacts"][0]["href"]).status_code == 200

            ready = health.get("/readyz").json()
            assert ready["ready"], ready
            assert not ready["checks"]["triton"]["ok"], "nothing listens where Triton should be"
            assert {name for name, check in ready["checks"].items() if check["ok"]} == {
                "worker", "database", "storage",
            }  # fmt: skip
            metrics = health.get("/metrics").text
            assert "qsm_worker_slots 1.0" in metrics
            assert "qsm_circuit_open 1.0" in metrics
            assert 'qsm_job_duration_seconds_count{method="tkd",state="done"} 1.0' in metrics

            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        client.delete(f"/api/v1/jobs/{job['id']}")
        assert gateway.files == []


def test_a_worker_told_to_end_hands_its_job_to_another(start_backend: Any, large: Any) -> None:
    with start_backend(QSM_WORKERS="0") as gateway, gateway.client() as client:
        with worker(gateway, "--grace", "0.5") as (process, _):
            job = client.submit(large, method="tv").json()
            client.until(job["id"], "running", within=PATIENCE)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
            assert client.job(job["id"])["state"] == "queued"
        with worker(gateway):
            client.until(job["id"], "running", within=PATIENCE)
            assert client.delete(f"/api/v1/jobs/{job['id']}").status_code == 204
        assert gateway.files == []


def test_the_database_is_migrated_by_a_command_where_backends_must_not(make_backend: Any) -> None:
    backend = make_backend(QSM_MIGRATE="false")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=backend.environment, capture_output=True, text=True, check=False)

    for command in ([QSM_AI, "worker"], [sys.executable, "-m", "qsm_ai.api"]):
        refused = run(*command)
        assert refused.returncode == 2, refused.stderr
        assert "qsm-ai migrate" in refused.stderr
        assert "Traceback" not in refused.stderr
    done = run(QSM_AI, "migrate")
    assert done.returncode == 0, done.stderr
    assert schema.HEAD in done.stdout
    assert "already" in run(QSM_AI, "migrate").stdout
    assert run(QSM_AI, "migrate", "--to", "0042").returncode == 2
    backend.start()
    backend.stop()

    url = backend.environment.get("QSM_DATABASE_URL", f"sqlite:///{backend.folder / 'data/jobs.db'}")
    database = Database(url)
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    for command in ([QSM_AI, "migrate"], [QSM_AI, "worker"], [sys.executable, "-m", "qsm_ai.api"]):
        refused = run(*command)
        assert refused.returncode == 2
        assert "newer version of QSM-AI" in refused.stderr
