"""While a database or a store is away everybody is told to come again, and Prometheus goes on seeing why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from real_services import Postgres

from qsm_ai.access.keys import KeyStore
from qsm_ai.jobs.store import JobStore

FORM = {"te_ms": "4 8 12", "b0": "3", "method": "tkd"}


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """One that may be killed."""
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.stop()


def is_told_to_come_again(answer: Any, code: str) -> bool:
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    assert answer.json()["mend"]
    return int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("access", ["", "keys"])
def test_while_the_database_is_away_everybody_is_told_to_come_again(
    start_backend: Any, own_postgres: Postgres, files: Any, access: str
) -> None:
    url = own_postgres.new_database()
    store = JobStore(url)
    headers = {"Authorization": f"Bearer {KeyStore(store.database).create('ann')[1]}"} if access else {}
    store.close()
    with (
        start_backend(QSM_DATABASE_URL=url, QSM_WORKERS="0", QSM_ACCESS=access) as backend,
        backend.client() as client,
    ):
        client.headers.update(headers)
        job = client.submit({"phase": files.phase, "mask": files.mask}, **FORM).json()
        own_postgres.kill()
        for path in ("/api/v1/jobs", f"/api/v1/jobs/{job['id']}", "/api/v1/me"):
            assert is_told_to_come_again(client.get(path), "database-down")
        assert is_told_to_come_again(client.post(f"/api/v1/jobs/{job['id']}/cancel"), "database-down")
        refused = client.submit({"phase": files.phase, "mask": files.mask}, expect=None, **FORM)
        assert is_told_to_come_again(refused, "database-down")
        told = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
        assert sum(sample.value for sample in told["qsm_database_errors"].samples) > 0
        problems = {sample.labels["code"] for sample in told["qsm_problems"].samples}
        assert "database-down" in problems
        assert "qsm_jobs" not in told
        own_postgres.start()
        assert client.job(job["id"])["state"] == "queued"
        assert "qsm_jobs{" in client.get("/metrics").text
    events = [json.loads(line) for line in backend.log.read_text().splitlines()]
    assert "request.error" not in {event["event"] for event in events}


def test_while_the_store_is_away_a_scan_is_to_be_sent_again(start_backend: Any, files: Any) -> None:
    with start_backend(QSM_WORKERS="0") as backend, backend.client() as client:
        objects: Path = backend.folder / "data/objects"
        objects.rename(objects.with_name("elsewhere"))
        objects.write_text("no folder")
        refused = client.submit({"phase": files.phase, "mask": files.mask}, expect=None, **FORM)
        assert is_told_to_come_again(refused, "storage-down")
        assert client.get("/api/v1/jobs").json()["jobs"] == []
