"""What a client does when the service is busy, breaks off or refuses."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from qsm_ai.client import Retrying, ServiceError

QUICK = {"retrying": Retrying(attempts=4, first=0.01)}
RUNNING = json.dumps({"id": "a" * 32, "state": "running", "fraction": 0.5}).encode()
DONE = json.dumps({"id": "a" * 32, "state": "done", "fraction": 1.0}).encode()
QUEUED = json.dumps({"id": "a" * 32, "state": "queued"}).encode()
BUSY = json.dumps({"code": "queue-full", "detail": "Full.", "mend": "Later."}).encode()
BROKEN = (None, {}, b"")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "phase.nii"
    path.write_bytes(bytes(range(250)))
    return path


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_after_the_time_it_names(
    use: Any, scripted: Any, image: Path, status: int
) -> None:
    server = scripted((status, {"Retry-After": "1"}, BUSY), (202, {}, QUEUED))
    began = time.monotonic()
    assert use(server.url, "submit", phase=[image], options=QUICK).state == "queued"
    assert time.monotonic() - began >= 1.0
    assert [seen.method for seen in server.seen] == ["POST", "POST"]
    assert len({seen.headers["idempotency-key"] for seen in server.seen}) == 1
    assert all(image.read_bytes() in seen.body for seen in server.seen)


def test_a_service_that_stays_busy_is_given_up(use: Any, scripted: Any) -> None:
    server = scripted(*[(503, {}, BUSY)] * 4)
    with pytest.raises(ServiceError) as refusal:
        use(server.url, "job", "a" * 32, options=QUICK)
    assert refusal.value.code == "queue-full"
    assert len(server.seen) == 4


def test_a_service_that_wants_to_be_asked_much_later_is_not_waited_for(use: Any, scripted: Any) -> None:
    server = scripted((503, {"Retry-After": "3600"}, BUSY))
    with pytest.raises(ServiceError):
        use(server.url, "job", "a" * 32, options=QUICK)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 500])
def test_a_refusal_is_not_asked_again(use: Any, scripted: Any, status: int) -> None:
    server = scripted((status, {}, BUSY))
    with pytest.raises(ServiceError) as refusal:
        use(server.url, "job", "a" * 32, options=QUICK)
    assert refusal.value.status == status
    assert len(server.seen) == 1


def test_a_scan_is_sent_again_under_the_same_key_after_a_broken_connection(
    use: Any, scripted: Any, image: Path
) -> None:
    server = scripted(BROKEN, (202, {}, QUEUED))
    job = use(server.url, "submit", phase=[image], idempotency_key="mine", options=QUICK)
    assert job.state == "queued"
    assert [seen.headers["idempotency-key"] for seen in server.seen] == ["mine", "mine"]


def test_what_may_have_been_done_is_not_done_twice(use: Any, scripted: Any) -> None:
    server = scripted(BROKEN)
    with pytest.raises(ServiceError) as failure:
        use(server.url, "retry", "a" * 32, options=QUICK)
    assert failure.value.code == "unreachable"
    assert len(server.seen) == 1


def test_a_broken_download_goes_on_where_it_broke(use: Any, scripted: Any, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40
    server = scripted(
        (200, {"Content-Length": str(len(content)), "ETag": '"v1"'}, content[:3000]),
        (206, {"Content-Range": f"bytes 3000-{len(content) - 1}/{len(content)}", "ETag": '"v1"'},
         content[3000:]),
    )  # fmt: skip
    path = use(server.url, "fetch", "a" * 32, "chi", tmp_path / "chi.nii.gz", options=QUICK)
    assert path.read_bytes() == content
    assert server.seen[1].headers["if-range"] == '"v1"'
    assert server.seen[1].headers["range"].startswith("bytes=")
    assert [found.name for found in tmp_path.iterdir()] == ["chi.nii.gz"]


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(
    use: Any, scripted: Any, tmp_path: Path
) -> None:
    server = scripted(
        (200, {"Content-Length": "5000", "ETag": '"v1"'}, b"old" * 100), (200, {"ETag": '"v2"'}, b"new")
    )
    path = use(server.url, "fetch", "a" * 32, "chi", tmp_path / "chi.nii.gz", options=QUICK)
    assert path.read_bytes() == b"new"


def test_a_download_that_never_ends_well_leaves_nothing(use: Any, scripted: Any, tmp_path: Path) -> None:
    server = scripted(*[(200, {"Content-Length": "5000"}, b"part")] * 4)
    with pytest.raises(ServiceError):
        use(server.url, "fetch", "a" * 32, "chi", tmp_path / "chi.nii.gz", options=QUICK)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_stream_of_events_goes_on_behind_the_last_one(use: Any, scripted: Any) -> None:
    event = b'id: 7\nevent: progress\ndata: {"fraction": 0.5}\n\n: ping\n\n'
    stream = {"Content-Type": "text/event-stream"}
    server = scripted(
        (200, {}, RUNNING),
        (200, {**stream, "Content-Length": "10000"}, event),
        (200, {}, RUNNING),
        (200, {}, RUNNING),
        (200, stream, b'id: 8\nevent: state\ndata: {"state": "done"}\n\n'),
        (200, {}, DONE),
    )
    told = use(server.url, "follow", "a" * 32, options=QUICK)
    assert [job.state for job in told] == ["running", "running", "running", "done"]
    listened = [seen.headers["last-event-id"] for seen in server.seen if seen.path.endswith("/events")]
    assert listened == ["0", "7"]


def test_where_no_stream_gets_through_the_job_is_asked_for(use: Any, scripted: Any) -> None:
    server = scripted((200, {}, QUEUED), (502, {}, b"no streams here"), (200, {}, DONE))
    assert [job.state for job in use(server.url, "follow", "a" * 32, options=QUICK)] == ["queued", "done"]


def announced(complete: bool, received: int, **target: Any) -> bytes:
    content = "/api/v1/uploads/u/content"
    where = {"href": content, "direct": False, **target}
    told = {"id": "u", "complete": complete, "received": received, "target": where, "content": content}
    return json.dumps(told).encode()


def test_an_upload_goes_on_with_what_the_service_does_not_have(use: Any, scripted: Any, image: Path) -> None:
    server = scripted(
        (201, {}, announced(False, 0)),
        BROKEN,
        (200, {}, announced(False, 100)),
        (200, {}, announced(True, 250)),
        (202, {}, QUEUED),
    )
    use(server.url, "submit", phase=[image], upload_first=True, options=QUICK)
    sent = [(seen.headers["content-range"], seen.body) for seen in server.seen if seen.method == "PUT"]
    assert sent == [
        ("bytes 0-249/250", image.read_bytes()),
        ("bytes 100-249/250", image.read_bytes()[100:]),
    ]
    job = json.loads(server.seen[-1].body)
    assert job == {"files": [{"upload": "u", "role": "phase"}]}


def test_a_part_is_sent_again_after_the_time_that_the_service_names(
    use: Any, scripted: Any, image: Path
) -> None:
    server = scripted(
        (201, {}, announced(False, 0)),
        (429, {"Retry-After": "1"}, BUSY),
        (200, {}, announced(False, 0)),
        (200, {}, announced(True, 250)),
        (202, {}, QUEUED),
    )
    began = time.monotonic()
    assert use(server.url, "submit", phase=[image], upload_first=True, options=QUICK).state == "queued"
    assert time.monotonic() - began >= 1.0


def test_a_part_that_the_service_wants_much_later_is_given_up_and_its_upload_removed(
    use: Any, scripted: Any, image: Path
) -> None:
    server = scripted((201, {}, announced(False, 0)), (429, {"Retry-After": "3600"}, BUSY), (204, {}, b""))
    with pytest.raises(ServiceError) as refusal:
        use(server.url, "submit", phase=[image], upload_first=True, options=QUICK)
    assert refusal.value.retry_after == "3600"
    assert [(seen.method, seen.path) for seen in server.seen[1:]] == [
        ("PUT", "/api/v1/uploads/u/content"),
        ("DELETE", "/api/v1/uploads/u"),
    ]


def test_the_object_store_gets_the_file_and_no_key(use: Any, scripted: Any, image: Path) -> None:
    store = scripted((200, {}, b""))
    href = f"{store.url}/bucket/u?signature=1"
    server = scripted((201, {}, announced(False, 0, href=href, direct=True)), (202, {}, QUEUED))
    options = {**QUICK, "api_key": "secret"}
    use(server.url, "submit", phase=[image], upload_first=True, options=options)
    assert [(seen.method, seen.path, seen.body) for seen in store.seen] == [
        ("PUT", "/bucket/u?signature=1", image.read_bytes())
    ]
    assert "authorization" not in store.seen[0].headers
    assert {seen.headers["authorization"] for seen in server.seen} == {"Bearer secret"}


def test_an_object_store_out_of_reach_is_gone_around(use: Any, scripted: Any, image: Path) -> None:
    gone = {"href": "http://127.0.0.1:9/bucket/u", "direct": True}
    server = scripted(
        (201, {}, announced(False, 0, **gone)), (200, {}, announced(True, 250)), (202, {}, QUEUED)
    )
    assert use(server.url, "submit", phase=[image], upload_first=True, options=QUICK).state == "queued"
    assert server.seen[1].body == image.read_bytes()


def test_a_result_is_fetched_from_the_object_store_without_the_key(
    use: Any, scripted: Any, tmp_path: Path
) -> None:
    store = scripted((200, {}, b"volume"))
    server = scripted((307, {"Location": f"{store.url}/bucket/chi"}, b""))
    options = {**QUICK, "api_key": "secret"}
    path = use(server.url, "fetch", "a" * 32, "chi", tmp_path / "c", direct=True, options=options)
    assert path.read_bytes() == b"volume"
    assert "authorization" not in store.seen[0].headers


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "Bearer from-environment"),
        ({"api_key": "given"}, "Bearer given"),
        ({"api_key": ""}, None),
        ({"headers": {"authorization": "Basic x"}}, "Basic x"),
    ],
)
def test_the_key_is_the_one_given_or_that_of_the_environment(
    use: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], expected: str | None
) -> None:
    monkeypatch.setenv("QSM_API_KEY", "from-environment")
    server = scripted((200, {}, DONE))
    use(server.url, "job", "a" * 32, options=options)
    assert server.seen[0].headers.get("authorization") == expected


def test_the_line_break_behind_a_key_is_not_sent(
    use: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QSM_API_KEY", "from-a-file\n")
    server = scripted((200, {}, DONE))
    use(server.url, "job", "a" * 32)
    assert server.seen[0].headers["authorization"] == "Bearer from-a-file"


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines"])
def test_a_key_that_cannot_be_sent_is_refused(use: Any, key: str) -> None:
    with pytest.raises(ServiceError) as failure:
        use("http://127.0.0.1:9", "job", "a" * 32, options={"api_key": key})
    assert failure.value.code == "bad-key"
    assert key not in str(failure.value)


@pytest.mark.parametrize("url", ["http://host:port", "host:8080"])
def test_what_is_no_address_is_refused(use: Any, url: str) -> None:
    with pytest.raises(ServiceError) as failure:
        use(url, "job", "a" * 32)
    assert failure.value.code == "no-address"


def test_what_a_newer_service_adds_is_no_hindrance(use: Any, scripted: Any) -> None:
    server = scripted((200, {}, json.dumps({**json.loads(DONE), "new": {"a": 1}}).encode()))
    assert use(server.url, "job", "a" * 32).raw["new"] == {"a": 1}


def test_uploads_of_a_refused_scan_are_not_left_behind(use: Any, scripted: Any, image: Path) -> None:
    server = scripted((201, {}, announced(True, 250)), (422, {}, BUSY), (204, {}, b""))
    with pytest.raises(ServiceError):
        use(server.url, "submit", phase=[image], upload_first=True, options=QUICK)
    assert [(seen.method, seen.path) for seen in server.seen[1:]] == [
        ("POST", "/api/v1/jobs"),
        ("DELETE", "/api/v1/uploads/u"),
    ]


def test_what_was_uploaded_before_a_refused_file_is_not_left_behind(
    use: Any, scripted: Any, image: Path
) -> None:
    server = scripted((201, {}, announced(True, 250)), (413, {}, BUSY), (204, {}, b""))
    with pytest.raises(ServiceError) as refusal:
        use(server.url, "submit", phase=[image], magnitude=[image], upload_first=True, options=QUICK)
    assert refusal.value.status == 413
    assert (server.seen[-1].method, server.seen[-1].path) == ("DELETE", "/api/v1/uploads/u")


def test_what_was_uploaded_before_a_file_that_cannot_be_read_is_not_left_behind(
    use: Any, scripted: Any, image: Path
) -> None:
    server = scripted((201, {}, announced(True, 250)), (204, {}, b""))
    missing = image.with_name("missing.nii")
    with pytest.raises(FileNotFoundError):
        use(server.url, "submit", phase=[image], magnitude=[missing], upload_first=True, options=QUICK)
    assert (server.seen[-1].method, server.seen[-1].path) == ("DELETE", "/api/v1/uploads/u")


def test_an_upload_whose_file_is_taken_away_is_not_left_behind(use: Any, scripted: Any, image: Path) -> None:
    def take_away() -> tuple[int, dict[str, str], bytes]:
        image.unlink()
        return 201, {}, announced(False, 0)

    server = scripted(take_away, (204, {}, b""))
    with pytest.raises(FileNotFoundError):
        use(server.url, "submit", phase=[image], upload_first=True, options=QUICK)
    assert [(seen.method, seen.path) for seen in server.seen if seen.method != "PUT"][1:] == [
        ("DELETE", "/api/v1/uploads/u")
    ]


def test_a_service_that_has_gone_is_not_asked_to_remove_every_upload(
    use: Any, scripted: Any, image: Path
) -> None:
    server = scripted(
        (201, {}, announced(True, 250)), (201, {}, announced(True, 250)), BROKEN, BROKEN, BROKEN, BROKEN
    )
    with pytest.raises(ServiceError):
        use(server.url, "submit", phase=[image, image], magnitude=[image], upload_first=True, options=QUICK)
    assert [seen.method for seen in server.seen] == ["POST", "POST", "POST", "DELETE"]


def test_uploads_are_kept_where_nobody_knows_whether_there_is_a_job(
    use: Any, scripted: Any, image: Path
) -> None:
    server = scripted((201, {}, announced(True, 250)), *[BROKEN] * 4)
    with pytest.raises(ServiceError):
        use(server.url, "submit", phase=[image], upload_first=True, options=QUICK)
    assert {seen.method for seen in server.seen} == {"POST"}


def test_the_service_is_asked_to_wait_for_the_end_of_a_job(use: Any, scripted: Any) -> None:
    server = scripted((200, {}, DONE))
    assert use(server.url, "wait", "a" * 32, timeout=5, options=QUICK).state == "done"
    assert server.seen[0].path.endswith("?wait=5.0")
    short = scripted((200, {}, DONE))
    use(short.url, "wait", "a" * 32, options={"timeout": 4.0, **QUICK})
    assert short.seen[0].path.endswith("?wait=2.0"), "no longer than the client waits for an answer"


def test_a_service_that_does_not_wait_is_asked_in_pauses(use: Any, scripted: Any) -> None:
    server = scripted((200, {}, RUNNING), (200, {}, RUNNING), (200, {}, DONE))
    began = time.monotonic()
    assert use(server.url, "wait", "a" * 32, options=QUICK).state == "done"
    assert time.monotonic() - began >= 0.3
