"""Files can be sent before their job: in parts or whole, to the backend or straight to the object store."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from qsm_ai.api.uploads import drain, safe_name

FORM = {"te_ms": [4, 8, 12], "b0": 3, "method": "tkd"}
UPLOADS = "/api/v1/uploads"


def announce(client: Any, path: Path, **more: Any) -> dict[str, Any]:
    answer = client.post(UPLOADS, json={"name": path.name, "size": path.stat().st_size, **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"{UPLOADS}/{found['id']}"
    return found


def send(client: Any, path: Path) -> dict[str, Any]:
    """Announce a file and put it where the answer says."""
    upload = announce(client, path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    target = upload["target"]
    if target["direct"]:
        answer = httpx.put(target["href"], content=path.read_bytes())
    else:
        answer = client.put(target["href"], content=path.read_bytes())
    assert answer.is_success, answer.text
    found: dict[str, Any] = client.get(f"{UPLOADS}/{upload['id']}").json()
    assert found["complete"]
    return found


@pytest.fixture
def upload(client: Any, files: Any) -> Iterator[dict[str, Any]]:
    found = announce(client, files.phase)
    yield found
    client.delete(f"{UPLOADS}/{found['id']}")


def test_files_sent_before_give_the_job_that_a_form_gives(client: Any, backend: Any, files: Any) -> None:
    sent = [("phase", send(client, files.phase)), ("mask", send(client, files.mask))]
    body = {"files": [{"upload": upload["id"], "role": role} for role, upload in sent], "wait": 60, **FORM}
    answer = client.post("/api/v1/jobs", json=body)
    assert answer.status_code == 200, answer.text
    job = answer.json()
    assert job["state"] == "done"
    form = {"te_ms": "4 8 12", "b0": "3", "method": "tkd", "wait": "60"}
    other = client.submit({"phase": files.phase, "mask": files.mask}, expect=200, **form).json()
    assert job["files"] == other["files"]
    assert job["parameters"] == other["parameters"]
    assert (
        client.get(job["artefacts"][0]["href"]).content == client.get(other["artefacts"][0]["href"]).content
    )
    assert client.get(UPLOADS).json()["uploads"] == []
    assert list((backend.folder / "data/objects/uploads").glob("*")) == []


def test_a_file_comes_in_parts_and_goes_on_where_it_was_broken(
    client: Any, upload: dict[str, Any], files: Any
) -> None:
    content = files.phase.read_bytes()
    size, half = len(content), len(content) // 2
    first = client.put(
        upload["content"],
        content=content[:half],
        headers={"Content-Range": f"bytes 0-{half - 1}/{size}"},
    ).json()
    assert (first["received"], first["complete"], first["sha256"]) == (half, False, None)
    wrong = client.put(
        upload["content"], content=b"x", headers={"Content-Range": f"bytes {half + 1}-{half + 1}/{size}"}
    )
    assert wrong.status_code == 409
    assert wrong.json()["code"] == "wrong-offset"
    assert str(half) in wrong.json()["mend"]
    incomplete = client.post(
        "/api/v1/jobs", json={"files": [{"upload": upload["id"], "role": "phase"}], **FORM}
    )
    assert incomplete.status_code == 409
    assert incomplete.json()["code"] == "upload-incomplete"
    rest = {"Content-Range": f"bytes {half}-{size - 1}/{size}"}
    assert client.put(upload["content"], content=content[half:], headers=rest).json()["complete"]
    job = client.post("/api/v1/jobs", json={"files": [{"upload": upload["id"], "role": "phase"}], **FORM})
    assert job.status_code == 202, job.text
    assert job.json()["files"][0]["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_broken_connection_leaves_nothing_of_its_part(
    client: Any, backend: Any, upload: dict[str, Any]
) -> None:
    def breaking() -> Iterator[bytes]:
        yield b"a" * 200_000
        raise InterruptedError

    with pytest.raises(InterruptedError):
        client.put(upload["content"], content=breaking())
    deadline = time.monotonic() + 20
    folder = backend.folder / "data/objects/uploads"
    while list(folder.rglob("*.*")) or [path for path in folder.rglob("*") if path.is_file()]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.get(f"{UPLOADS}/{upload['id']}").json()["received"] == 0


def test_a_connection_that_died_unnoticed_takes_nothing_of_its_successors(
    start_backend: Any, files: Any
) -> None:
    """The client has sent the part again over another one before the service gives up waiting."""
    content = files.phase.read_bytes()
    size, half = len(content), len(content) // 2
    with start_backend(QSM_UPLOAD_STALL_S="3", QSM_WORKERS="0") as backend, backend.client() as client:
        upload = announce(client, files.phase, sha256=hashlib.sha256(content).hexdigest())
        head = (
            f"PUT {upload['content']} HTTP/1.1\r\nHost: here\r\nContent-Length: {half}\r\n"
            f"Content-Range: bytes 0-{half - 1}/{size}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", backend.port), timeout=60) as dead:
            dead.sendall(head.encode() + content[:1000])
            for start, end in ((0, half), (half, size)):
                sent = client.put(
                    upload["content"],
                    content=content[start:end],
                    headers={"Content-Range": f"bytes {start}-{end - 1}/{size}"},
                )
                assert sent.status_code == 200, sent.text
            assert b"408" in dead.recv(30)
        assert client.get(f"{UPLOADS}/{upload['id']}").json()["complete"]
        body = {"files": [{"upload": upload["id"], "role": "phase"}], **FORM}
        job = client.post("/api/v1/jobs", json=body)
        assert job.status_code == 202, job.text
        assert job.json()["files"][0]["sha256"] == upload["sha256"]
        assert backend.stored("uploads") == []


def test_of_two_that_send_a_file_at_once_the_first_to_end_is_kept(
    client: Any, backend: Any, upload: dict[str, Any], files: Any
) -> None:
    content = files.phase.read_bytes()

    def slowly() -> Iterator[bytes]:
        yield b"x" * 1000
        assert client.put(upload["content"], content=content).json()["complete"]
        yield b"x" * (len(content) - 1000)

    with backend.client() as other:
        late = other.put(upload["content"], content=slowly())
    assert (late.status_code, late.json()["code"]) == (409, "wrong-offset")
    assert len(backend.stored(f"uploads/{upload['id']}")) == 1
    job = client.post("/api/v1/jobs", json={"files": [{"upload": upload["id"], "role": "phase"}], **FORM})
    assert job.json()["files"][0]["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_file_sent_whole_replaces_another(
    client: Any, backend: Any, upload: dict[str, Any], files: Any
) -> None:
    content = files.phase.read_bytes()
    for sent in (content[::-1], content):
        answer = client.put(upload["content"], content=sent)
        assert answer.status_code == 200, answer.text
        assert answer.json()["sha256"] == hashlib.sha256(sent).hexdigest()
    assert len(backend.stored(f"uploads/{upload['id']}")) == 1


@pytest.mark.parametrize("declared", [True, False])
def test_no_more_is_taken_than_announced(
    client: Any, backend: Any, upload: dict[str, Any], declared: bool
) -> None:
    content = bytes(upload["size"] + 1)
    answer = client.put(upload["content"], content=content if declared else iter([content]))
    assert answer.status_code == 413
    assert answer.json()["code"] == "too-large"
    assert [path for path in (backend.folder / "data/objects/uploads").rglob("*") if path.is_file()] == []


def test_other_bytes_than_announced_are_refused(client: Any, files: Any) -> None:
    upload = announce(client, files.mask, sha256="0" * 64)
    answer = client.put(upload["content"], content=files.mask.read_bytes())
    assert answer.status_code == 422
    assert answer.json()["code"] == "checksum-mismatch"
    assert client.delete(f"{UPLOADS}/{upload['id']}").status_code == 204


def test_a_refused_scan_keeps_its_uploads_for_another_try(client: Any, files: Any) -> None:
    upload = send(client, files.phase)
    body = {"files": [{"upload": upload["id"], "role": "phase"}], "te_ms": [4, 8], "b0": 3, "method": "tkd"}
    refused = client.post("/api/v1/jobs", json=body)
    assert refused.status_code == 422
    assert refused.json()["code"] == "echo-times"
    assert client.post("/api/v1/jobs", json={**body, "te_ms": [4, 8, 12]}).status_code == 202
    again = client.post("/api/v1/jobs", json={**body, "te_ms": [4, 8, 12]})
    assert again.status_code == 422
    assert again.json()["code"] == "unknown-upload"


def test_uploads_named_by_many_requests_at_once_become_one_job(client: Any, backend: Any, files: Any) -> None:
    sent = send(client, files.phase)
    body = {"files": [{"upload": sent["id"], "role": "phase"}], **FORM}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.post("/api/v1/jobs", json=body), range(6)))
    assert sorted(answer.status_code for answer in answers) == [202] + [422] * 5
    assert {answer.json().get("code") for answer in answers} == {None, "unknown-upload"}
    (made,) = (answer.json()["id"] for answer in answers if answer.status_code == 202)
    assert [job["id"] for job in client.get("/api/v1/jobs").json()["jobs"]] == [made]
    assert len([key for key in backend.stored("jobs") if "/uploads/" in key]) == 1
    assert backend.stored("uploads") == []


def test_one_request_sent_many_times_at_once_makes_one_job(client: Any, files: Any) -> None:
    body = {"files": [{"upload": send(client, files.phase)["id"], "role": "phase"}], **FORM}
    key = {"Idempotency-Key": secrets.token_hex(8)}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.post("/api/v1/jobs", json=body, headers=key), range(4)))
    assert [answer.status_code for answer in answers] == [202] * 4
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_used_uploads_find_their_job_again_and_no_others_do(client: Any, files: Any) -> None:
    uses = [
        {"upload": send(client, files.phase)["id"], "role": "phase"},
        {"upload": send(client, files.mask)["id"], "role": "mask"},
    ]
    key = {"Idempotency-Key": secrets.token_hex(8)}
    made = client.post("/api/v1/jobs", json={"files": uses, **FORM}, headers=key)
    assert made.status_code == 202, made.text
    assert set(made.json()["parameters"]) == {"method", "reference", "te_ms", "b0"}
    again = client.post("/api/v1/jobs", json={"files": uses, **FORM}, headers=key)
    assert (again.status_code, again.json()["id"]) == (202, made.json()["id"])
    others = (
        {"files": uses[:1], **FORM},
        {"files": [{"upload": "f" * 32, "role": "phase"}], **FORM},
        {"files": [{**uses[0], "role": "magnitude"}, uses[1]], **FORM},
        {"files": uses, **FORM, "method": "tv"},
        {"files": uses, **FORM, "te_ms": [4, 8, 13]},
    )
    for other in others:
        refused = client.post("/api/v1/jobs", json=other, headers=key)
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-conflict")
        assert refused.json()["job"] == made.json()["id"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "x.nii", "size": 41 << 20}, 413, "too-large"),
        ({"name": "x.nii", "size": 0}, 422, "invalid-parameter"),
        ({"name": "", "size": 5}, 422, "invalid-parameter"),
        ({"name": "x.nii", "size": 5, "sha256": "short"}, 422, "invalid-parameter"),
        ({"name": "x.nii", "size": 5, "colour": "red"}, 422, "invalid-parameter"),
    ],
)
def test_what_cannot_be_taken_is_refused_when_announced(
    client: Any, body: dict[str, Any], status: int, code: str
) -> None:
    answer = client.post(UPLOADS, json=body)
    assert answer.status_code == status
    assert answer.json()["code"] == code
    assert client.get(UPLOADS).json()["uploads"] == []


@pytest.mark.parametrize("header", ["bytes 0-9/5", "bytes 9-0/*", "bytes */5", "lines 0-1/2", "bytes 0-5/*"])
def test_a_range_that_cannot_be_is_refused(client: Any, upload: dict[str, Any], header: str) -> None:
    answer = client.put(upload["content"], content=b"abc", headers={"Content-Range": header})
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid-parameter"


def test_names_lose_their_folders(client: Any) -> None:
    upload = client.post(UPLOADS, json={"name": "../../etc/passwd.nii", "size": 5}).json()
    assert upload["name"] == "passwd.nii"
    client.delete(f"{UPLOADS}/{upload['id']}")


def test_what_nobody_makes_a_job_of_goes_when_its_time_is_over(start_backend: Any, files: Any) -> None:
    with (
        start_backend(QSM_PENDING_HOURS="0.0006", QSM_SWEEP_EVERY_S="0.2", QSM_WORKERS="0") as backend,
        backend.client() as client,
    ):
        upload = announce(client, files.phase)
        client.put(upload["content"], content=files.phase.read_bytes())
        deadline = time.monotonic() + 20
        # SQLite's journal is emptied a moment after the record has gone.
        while (
            client.get(f"{UPLOADS}/{upload['id']}").status_code != 404
            or backend.files
            or backend.in_database(upload["id"])
        ):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_one_user_cannot_fill_the_store(start_backend: Any) -> None:
    with start_backend(QSM_MAX_PENDING_MB="2", QSM_WORKERS="0") as backend, backend.client() as client:
        first = client.post(UPLOADS, json={"name": "a.nii", "size": 1 << 20})
        assert first.status_code == 201
        refused = client.post(UPLOADS, json={"name": "b.nii", "size": (1 << 20) + 1})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["code"] == "too-many-uploads"
        client.delete(first.headers["location"])
        assert client.post(UPLOADS, json={"name": "b.nii", "size": 2 << 20}).status_code == 201


def test_memory_stays_flat_while_a_large_file_comes_in(start_backend: Any) -> None:
    """A file far larger than what the process may grow by."""
    size, piece = 384 << 20, secrets.token_bytes(1 << 20)
    with start_backend(QSM_WORKERS="0") as backend, backend.client() as client:
        upload = client.post(UPLOADS, json={"name": "large.nii", "size": size}).json()
        before = peak_memory(backend.process.pid)
        answer = client.put(upload["content"], content=(piece for _ in range(size >> 20)))
        assert answer.json()["complete"]
        assert peak_memory(backend.process.pid) - before < 160 << 20


def peak_memory(pid: int) -> int:
    """Bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("phase.nii.gz", "phase.nii.gz"),
        ("/home/doe/phase.nii", "phase.nii"),
        (r"C:\Doe\phase.nii", "phase.nii"),
        ("../../x", "x"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("a\x00b\n.nii", "ab.nii"),
        ("x" * 300 + ".nii.gz", "x" * 193 + ".nii.gz"),
    ],
)
def test_file_names_lose_whatever_is_no_name(given: str, kept: str) -> None:
    assert safe_name(given) == kept


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({}, 0),
        ({"content-length": "1000", "expect": "100-continue"}, 0),
        ({"content-length": "1000"}, 5),
        ({"transfer-encoding": "chunked"}, 5),
    ],
)
def test_of_a_refused_body_no_more_is_taken_than_the_answer_needs(
    headers: dict[str, str], taken: int
) -> None:
    asked = 0

    async def endless() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": bytes(100), "more_body": True}

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(drain(Request({"type": "http", "headers": raw}, endless), most=500))
    assert asked == taken


def test_a_client_that_stops_sending_is_not_waited_for() -> None:
    async def stalled() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    request = Request({"type": "http", "headers": [(b"content-length", b"1000")]}, stalled)
    began = time.monotonic()
    asyncio.run(drain(request, seconds=0.1))
    assert time.monotonic() - began < 5
