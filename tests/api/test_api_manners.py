"""Idempotency keys, pages, heartbeats, and problems wherever something is wrong."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

FORM = {"te_ms": "4 8 12", "b0": "3", "method": "tkd"}
JSON = {"te_ms": [4, 8, 12], "b0": 3, "method": "tkd"}


def key(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


def sent(client: Any, path: Any) -> str:
    """Id of an upload."""
    upload = client.post("/api/v1/uploads", json={"name": path.name, "size": path.stat().st_size}).json()
    client.put(upload["content"], content=path.read_bytes()).raise_for_status()
    return str(upload["id"])


def test_the_same_request_twice_is_one_job(client: Any, files: Any) -> None:
    first, second = (client.submit({"phase": files.phase}, headers=key("a"), **FORM).json() for _ in range(2))
    assert first["id"] == second["id"]
    other = client.submit({"phase": files.phase}, headers=key("b"), **FORM).json()
    assert other["id"] != first["id"]
    assert len(client.get("/api/v1/jobs").json()["jobs"]) == 2


def test_eight_at_once_with_one_key_are_one_job(backend: Any, client: Any, files: Any) -> None:
    def send(_: int) -> str:
        with backend.client() as other:
            return str(other.submit({"phase": files.phase}, headers=key("race"), **FORM).json()["id"])

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(send, range(8)))) == 1
    assert len(client.get("/api/v1/jobs").json()["jobs"]) == 1


def test_a_key_cannot_stand_for_two_requests(client: Any, files: Any) -> None:
    job = client.submit({"phase": files.phase}, headers=key("c"), **FORM).json()
    for given, form in (
        ({"phase": files.phase}, {**FORM, "b0": "7"}),
        ({"phase": files.phase, "mask": files.mask}, FORM),
    ):
        answer = client.submit(given, expect=422, headers=key("c"), **form)
        assert answer.json()["code"] == "idempotency-conflict"
        assert answer.json()["job"] == job["id"]


def test_a_job_of_uploads_is_found_again_though_the_uploads_are_used(client: Any, files: Any) -> None:
    body = {"files": [{"upload": sent(client, files.phase), "role": "phase"}], **JSON}
    first = client.post("/api/v1/jobs", json=body, headers=key("d"))
    assert first.status_code == 202
    again = client.post("/api/v1/jobs", json=body, headers=key("d"))
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


def test_a_request_sent_again_is_answered_though_the_queue_is_full(start_backend: Any, files: Any) -> None:
    with start_backend(QSM_WORKERS="0", QSM_MAX_QUEUED="1") as backend, backend.client() as client:
        job = client.submit({"phase": files.phase}, headers=key("e"), **FORM).json()
        client.submit({"phase": files.phase}, expect=503, headers=key("f"), **FORM)
        assert client.submit({"phase": files.phase}, headers=key("e"), **FORM).json()["id"] == job["id"]


@pytest.mark.parametrize("name", ["x" * 65, "two words", ""])
def test_a_key_is_a_word(client: Any, files: Any, name: str) -> None:
    assert client.submit({"phase": files.phase}, expect=422, headers=key(name), **FORM)


def test_pages_lead_to_each_other_and_leave_nothing_out(client: Any, files: Any) -> None:
    made = [client.submit({"phase": files.phase}, **FORM).json()["id"] for _ in range(5)]
    address, found, pages = "/api/v1/jobs?limit=2", [], 0
    while address:
        answer = client.get(address)
        found += [job["id"] for job in answer.json()["jobs"]]
        links = answer.links
        assert links["first"]["url"] == "/api/v1/jobs?limit=2"
        address = answer.json()["next"]
        assert links.get("next", {}).get("url") == address
        pages += 1
    assert found == made[::-1]
    assert pages == 3


@pytest.mark.parametrize("cursor", ["nonsense", "MTIz", "bmFuIHg", "%00", "é"])
def test_a_cursor_that_is_none_is_refused(client: Any, cursor: str) -> None:
    answer = client.get("/api/v1/jobs", params={"cursor": cursor})
    assert answer.status_code in (200, 422)
    if answer.status_code == 422:
        assert answer.json()["code"] == "invalid-parameter"


def test_a_silent_stream_beats_every_fifteen_seconds(start_backend: Any, files: Any) -> None:
    with start_backend(QSM_WORKERS="0") as backend, backend.client() as client:
        job = client.submit({"phase": files.phase}, **FORM).json()
        began, beats = time.monotonic(), 0.0
        with client.stream("GET", job["links"]["events"], timeout=40) as stream:
            for line in stream.iter_lines():
                if line.startswith(":"):
                    beats = time.monotonic() - began
                    break
        assert 13 < beats < 35


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/api/v1/nothing", {}, 404, "not-found"),
        ("PATCH", "/api/v1/jobs", {}, 405, "method-not-allowed"),
        ("POST", "/api/v1/jobs", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 422,
         "invalid-parameter"),
        ("POST", "/api/v1/jobs", {"content": b"<a/>", "headers": {"Content-Type": "text/xml"}}, 415,
         "media-type"),
        ("POST", "/api/v1/jobs", {"json": {"files": []}}, 422, "invalid-parameter"),
        ("POST", "/api/v1/jobs", {"json": {"files": [{"upload": "0" * 32, "role": "phase"}], "b0": "x"}}, 422,
         "invalid-parameter"),
        ("POST", "/api/v1/jobs", {"json": {"files": [{"upload": "0" * 32, "role": "phase"}]}}, 422,
         "unknown-upload"),
        ("POST", "/api/v1/jobs", {"content": b" " * (2 << 20),
         "headers": {"Content-Type": "application/json"}}, 413, "too-large"),
        ("POST", "/api/v1/jobs", {"content": iter([b" " * (2 << 20)]),
         "headers": {"Content-Type": "application/json"}}, 413, "too-large"),
        ("POST", "/api/v1/reconstruct", {"json": {}}, 415, "media-type"),
        ("GET", "/api/v1/jobs?limit=0", {}, 422, "invalid-parameter"),
        ("GET", "/api/v1/uploads/" + "0" * 32, {}, 404, "not-found"),
        ("PUT", f"/api/v1/uploads/{'0' * 32}/content", {"content": b"x"}, 404, "not-found"),
    ],
)  # fmt: skip
def test_whatever_is_wrong_is_a_problem_with_a_mend(
    client: Any, method: str, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    answer: httpx.Response = client.request(method, path, **options)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = json.loads(answer.text)
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["mend"]
    assert problem["request_id"] == answer.headers["x-request-id"]
