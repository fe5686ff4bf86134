"""What operators, browsers and Prometheus see."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from qsm_ai.reconstruction.stages import STAGES

FORM = {"te_ms": "4 8 12", "b0": "3", "method": "tkd"}
PAGE = "http://page.example"


def test_it_is_alive_whatever_is_missing(client: Any) -> None:
    answer = client.get("/healthz")
    assert answer.json()["status"] == "alive"


def test_it_is_not_ready_without_triton_and_says_why(client: Any) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    checks = answer.json()["checks"]
    assert checks["triton"] == {"ok": False, "reason": "The inference server cannot be reached."}
    assert checks["storage"]["ok"]
    assert checks["database"]["ok"]
    assert checks["worker"]["ok"]


def test_a_check_may_be_left_out_of_the_verdict_but_not_of_the_answer(client: Any) -> None:
    """A gateway whose jobs are computed elsewhere takes scans while Triton is away."""
    answer = client.get("/readyz", params={"exclude": "triton"})
    assert answer.status_code == 200
    assert answer.json()["ready"]
    assert not answer.json()["checks"]["triton"]["ok"]
    assert client.get("/readyz", params={"exclude": ["storage", "database"]}).status_code == 503
    assert client.get("/readyz", params={"exclude": "everything"}).status_code == 422


def test_a_broken_store_is_told_by_readiness(start_backend: Any) -> None:
    with start_backend() as backend, backend.client() as client:
        objects = backend.folder / "data/objects"
        objects.rename(objects.with_name("elsewhere"))
        objects.write_text("no folder")
        check = client.get("/readyz").json()["checks"]["storage"]
        assert not check["ok"]
        assert check["reason"]


def test_metrics_show_jobs_stages_and_requests(client: Any, files: Any) -> None:
    client.submit({"phase": files.phase, "mask": files.mask}, expect=200, wait="60", **FORM)
    families = {f.name: f for f in text_string_to_metric_families(client.get("/metrics").text)}
    jobs = {s.labels["state"]: s.value for s in families["qsm_jobs"].samples}
    assert set(jobs) == {"queued", "running", "done", "failed", "cancelled"}
    assert jobs["done"] == 1
    stages = families["qsm_stage_duration_seconds"].samples
    assert {s.labels["stage"] for s in stages} == {stage.name for stage in STAGES}
    counted = {
        s.labels["stage"]: s.value
        for s in stages
        if s.name.endswith("_count") and s.labels["method"] == "tkd"
    }
    assert counted["background"] >= 1
    assert counted["network"] == 0
    limits = {float(s.labels["le"]) for s in stages if s.name.endswith("_bucket")}
    assert {0.1, 600.0} <= limits
    requests = families["http_requests"].samples
    routes = {s.labels["handler"] for s in requests}
    assert "/api/v1/reconstruct" in routes
    assert not any(re.search(r"[0-9a-f]{32}", route) for route in routes)
    assert {"qsm_queue_depth", "qsm_queue_oldest_seconds", "qsm_physics_score", "qsm_upload_bytes"} <= set(
        families
    )


def test_a_listed_origin_may_call_and_another_may_not(client: Any) -> None:
    allowed = client.get("/healthz", headers={"Origin": PAGE})
    assert allowed.headers["access-control-allow-origin"] == PAGE
    assert allowed.headers["access-control-allow-credentials"] == "true"
    other = client.get("/healthz", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "DELETE"}
    assert client.options("/api/v1/jobs", headers=asked).status_code == 200
    assert (
        client.options("/api/v1/jobs", headers={**asked, "Origin": "http://evil.example"}).status_code == 400
    )


def test_a_browser_may_read_refusals_too(client: Any) -> None:
    answer = client.post("/api/v1/reconstruct", headers={"Origin": PAGE})
    assert answer.status_code == 415
    assert answer.headers["access-control-allow-origin"] == PAGE


def test_every_answer_carries_security_headers_and_a_request_id(client: Any) -> None:
    for path in ("/healthz", "/nothing", "/api/v1/jobs", "/docs"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-request-id"]
    assert (
        client.get("/healthz", headers={"X-Request-ID": "mine-12345"}).headers["x-request-id"] == "mine-12345"
    )
    assert client.get("/healthz", headers={"X-Request-ID": "x y"}).headers["x-request-id"] != "x y"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("PUT", "/api/v1/jobs", 405)]
)
def test_wrong_addresses_and_methods_are_problems(client: Any, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["mend"]


def test_logs_are_json_and_hold_nothing_of_a_patient(
    client: Any, backend: Any, files: Any, tmp_path: Any
) -> None:
    named = tmp_path / "Doe_Jane_19700101.nii.gz"
    named.write_bytes(files.phase.read_bytes())
    answer = client.submit({"phase": named, "mask": files.mask}, expect=200, wait="60", **FORM)
    client.submit({"phase": named}, expect=422)
    text = backend.log.read_text()
    events = [json.loads(line) for line in text.splitlines()]
    request_id = answer.headers["x-request-id"]
    assert {e["event"] for e in events if e.get("request_id") == request_id} >= {
        "request",
        "job.started",
        "job.ended",
    }
    assert "Doe" not in text
    assert "19700101" not in text
    assert str(tmp_path) not in text


def test_a_full_queue_says_when_to_come_again(start_backend: Any, files: Any) -> None:
    with start_backend(QSM_WORKERS="0", QSM_MAX_QUEUED="2") as backend, backend.client() as client:
        for _ in range(2):
            client.submit({"phase": files.phase}, **FORM)
        refused = client.submit({"phase": files.phase}, expect=503, **FORM)
        assert refused.json()["code"] == "queue-full"
        assert int(refused.headers["retry-after"]) > 0
        assert len(client.get("/api/v1/jobs").json()["jobs"]) == 2


def test_ended_jobs_are_deleted_after_their_time(start_backend: Any, files: Any) -> None:
    with (
        start_backend(QSM_RETENTION_HOURS="0.0001", QSM_SWEEP_EVERY_S="0.2") as backend,
        backend.client() as client,
    ):
        answer = client.submit({"phase": files.phase, "mask": files.mask}, expect=None, wait="60", **FORM)
        assert answer.status_code in (200, 202)
        job_id = answer.json()["id"]
        deadline = time.monotonic() + 10
        while client.get(f"/api/v1/jobs/{job_id}").status_code != 404:
            assert time.monotonic() < deadline
        assert backend.files == []
