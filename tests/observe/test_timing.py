"""Calls to storage and database are timed by name; what fails is told, what is an answer is not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from qsm_ai.observe.database import watch_database
from qsm_ai.storage import ObjectNotFoundError, Storage

Told = list[tuple[str, str | None]]


def test_every_call_to_the_storage_is_told_by_its_name(tmp_path: Path) -> None:
    told: Told = []

    async def scenario() -> None:
        storage = Storage.from_url(str(tmp_path / "objects"))
        storage.watch = lambda operation, seconds, error: told.append((operation, error))
        await storage.put("a/b", b"12345")
        assert [part async for part in storage.stream("a/b")] == [b"12345"]
        assert await storage.delete_prefix("a") == 1
        with pytest.raises(ObjectNotFoundError):
            await storage.get("a/b")

    asyncio.run(scenario())
    assert told == [
        ("put", None),
        ("head", None),
        ("get", None),
        ("list", None),
        ("delete", None),
        ("get", None),
    ]


def test_a_storage_that_fails_is_told_with_the_kind_of_error(tmp_path: Path) -> None:
    told: Told = []

    async def scenario() -> None:
        storage = Storage.from_url(str(tmp_path / "objects"))
        storage.watch = lambda operation, seconds, error: told.append((operation, error))
        (tmp_path / "objects").rmdir()
        (tmp_path / "objects").write_text("no folder")
        with pytest.raises(Exception, match=r"."):
            await storage.put("a/b", b"12345")

    asyncio.run(scenario())
    ((operation, error),) = told
    assert operation == "put"
    assert error is not None
    assert "/" not in error


def test_statements_are_told_by_their_first_word_and_failures_as_such() -> None:
    told: Told = []
    engine = sa.create_engine("sqlite://")
    watch_database(engine, lambda operation, seconds, error: told.append((operation, error)))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (x INTEGER)"))
        connection.execute(sa.text("INSERT INTO t VALUES (1)"))
        connection.execute(sa.text("SELECT x FROM t")).all()
        connection.execute(sa.text("UPDATE t SET x = 2"))
        connection.execute(sa.text("DELETE FROM t"))
    with pytest.raises(sa.exc.OperationalError), engine.begin() as connection:
        connection.execute(sa.text("SELECT y FROM nowhere"))
    engine.dispose()
    assert told == [
        ("other", None),
        ("insert", None),
        ("select", None),
        ("update", None),
        ("delete", None),
        ("select", "OperationalError"),
    ]
