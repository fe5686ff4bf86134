"""The store keeps what it is given, gives parts of it, and forgets completely."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from qsm_ai.storage import CHUNK, PART, ObjectNotFoundError, Storage


@pytest.fixture(params=["folder", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    if request.param == "folder":
        return Storage.from_url(str(tmp_path / "objects"))
    if request.param == "memory":
        return Storage.from_url("memory:///")
    s3: Any = request.getfixturevalue("s3")
    for variable, value in s3.environment.items():
        monkeypatch.setenv(variable, value)
    return Storage.from_url(s3.new_bucket())


def test_an_object_comes_back_as_it_was_stored(storage: Storage) -> None:
    async def scenario() -> None:
        await storage.put("jobs/a/uploads/0", b"phase")
        assert await storage.get("jobs/a/uploads/0") == b"phase"
        assert (await storage.head("jobs/a/uploads/0")).size == 5

    asyncio.run(scenario())


def test_a_stream_is_stored_piece_by_piece_and_read_in_parts(storage: Storage, tmp_path: Path) -> None:
    content = bytes(range(256)) * (2 * CHUNK // 256) + b"end"

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]

    async def scenario() -> None:
        await storage.put("big", pieces())
        assert b"".join([part async for part in storage.stream("big")]) == content
        assert (
            b"".join([part async for part in storage.stream("big", 5, CHUNK + 9)]) == content[5 : CHUNK + 9]
        )
        await storage.fetch("big", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == content
        await storage.put_file("again", tmp_path / "copy")
        assert await storage.get("again") == content

    asyncio.run(scenario())


def test_what_is_not_there_is_said_to_be_missing(storage: Storage) -> None:
    async def scenario() -> None:
        with pytest.raises(ObjectNotFoundError):
            await storage.get("nothing")
        with pytest.raises(ObjectNotFoundError):
            await storage.head("nothing")
        with pytest.raises(ObjectNotFoundError):
            _ = [part async for part in storage.stream("nothing")]
        await storage.delete("nothing")

    asyncio.run(scenario())


def test_deleting_a_prefix_spares_its_neighbours(storage: Storage) -> None:
    async def scenario() -> None:
        for key in ("jobs/a/uploads/0", "jobs/a/results/1/0", "jobs/ab/uploads/0"):
            await storage.put(key, b"x")
        assert await storage.children("jobs") == ["a", "ab"]
        assert await storage.delete_prefix("jobs/a") == 2
        assert [info.key for info in await storage.entries("jobs")] == ["jobs/ab/uploads/0"]
        assert await storage.children("jobs") == ["ab"]

    asyncio.run(scenario())


def test_a_killed_writer_leaves_nothing_behind_once_its_prefix_is_deleted(tmp_path: Path) -> None:
    storage = Storage.from_url(str(tmp_path))
    (tmp_path / "jobs/a").mkdir(parents=True)
    # How the local store names a file that it has not finished.
    (tmp_path / "jobs/a/results#1").write_bytes(b"half")
    assert asyncio.run(storage.entries("jobs")) == []
    assert asyncio.run(storage.children("jobs")) == ["a"]
    asyncio.run(storage.delete_prefix("jobs/a"))
    assert list((tmp_path / "jobs").iterdir()) == []


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a"])
def test_a_key_cannot_lead_elsewhere(storage: Storage, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        asyncio.run(storage.put(key, b"x"))
    with pytest.raises(ValueError, match="key"):
        asyncio.run(storage.delete_prefix(key))


def test_the_check_leaves_no_trace_and_tells_of_a_broken_store(tmp_path: Path) -> None:
    storage = Storage.from_url(str(tmp_path / "objects"))
    asyncio.run(storage.check())
    assert [p for p in (tmp_path / "objects").rglob("*") if p.is_file()] == []
    shutil.rmtree(tmp_path / "objects")
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects/checks").write_text("a file where a folder must be")
    with pytest.raises(Exception, match=r".+"):
        asyncio.run(storage.check())


def test_the_last_change_is_the_youngest_objects(storage: Storage) -> None:
    async def scenario() -> None:
        assert await storage.last_change("jobs/a") is None
        await storage.put("jobs/a/uploads/0", b"x")
        changed = await storage.last_change("jobs/a")
        assert changed is not None
        assert abs(datetime.now(UTC) - changed) < timedelta(minutes=5)

    asyncio.run(scenario())


def test_a_write_that_is_under_way_counts_as_a_change(tmp_path: Path) -> None:
    """Else an upload would look like nobody's leftovers while its first file comes in."""
    storage = Storage.from_url(str(tmp_path))
    (tmp_path / "jobs/a/uploads").mkdir(parents=True)
    (tmp_path / "jobs/a/uploads/0#1").write_bytes(b"half")
    assert asyncio.run(storage.entries("jobs/a")) == []
    assert asyncio.run(storage.last_change("jobs/a")) is not None


def test_an_s3_store_can_be_looked_at_from_behind_and_is_empty_after_all(
    s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable, value in s3.environment.items():
        monkeypatch.setenv(variable, value)
    bucket = s3.new_bucket()
    storage = Storage.from_url(bucket)
    # In several parts, as S3 takes large objects.
    (tmp_path / "scan").write_bytes(bytes(3 * CHUNK + 5))

    async def scenario() -> None:
        await storage.put_file("jobs/a/uploads/0", tmp_path / "scan")
        assert [path.stat().st_size for path in s3.files(bucket)] == [3 * CHUNK + 5]
        await storage.delete_prefix("jobs/a")

    asyncio.run(scenario())
    assert s3.files(bucket) == []


def use(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_large_objects_go_in_parts_that_amazon_takes(
    strict_s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, strict_s3.environment)
    storage = Storage.from_url("s3://bucket")
    pieces = [secrets.token_bytes(1 << 16) for _ in range(2 * PART // (1 << 16) + 1)]
    (tmp_path / "scan").write_bytes(b"".join(pieces))

    async def come_in() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def scenario() -> None:
        await storage.put_file("file", tmp_path / "scan")
        await storage.put("stream", come_in())

    asyncio.run(scenario())
    assert strict_s3.objects == dict.fromkeys(("/bucket/file", "/bucket/stream"), b"".join(pieces))


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"])
def test_an_endpoint_without_tls_needs_no_further_leave(
    strict_s3: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As where the addresses of clients are signed: one of the two alone would be of no use."""
    environment = dict(strict_s3.environment)
    environment[name] = environment.pop("AWS_ENDPOINT_URL")
    use(monkeypatch, environment)
    asyncio.run(Storage.from_url("s3://bucket").put("small", b"x"))
    assert strict_s3.objects == {"/bucket/small": b"x"}


def test_variables_that_are_set_to_nothing_are_as_if_not_set(
    strict_s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = dict.fromkeys(("AWS_ENDPOINT", "AWS_SESSION_TOKEN", "AWS_ALLOW_HTTP", "AWS_SKIP_SIGNATURE"), "")
    use(monkeypatch, {**nothing, **strict_s3.environment})
    asyncio.run(Storage.from_url("s3://bucket").put("small", b"x"))
    assert strict_s3.objects == {"/bucket/small": b"x"}
    assert os.environ["AWS_ALLOW_HTTP"] == ""
