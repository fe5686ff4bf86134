"""Keys that were shown lately are believed for a second, and not longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from qsm_ai.access.key_ring import BELIEVED_FOR, KEPT_FOR, KeyRing
from qsm_ai.access.keys import NOTED_EVERY, KeyRefusedError, KeyStore
from qsm_ai.jobs.store import JobStore


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Room:
    """A ring on a database, both by the same clock, and how often the database was asked."""

    def __init__(self, store: JobStore, clock: Clock) -> None:
        self.clock = clock
        self.keys = KeyStore(store.database)
        self.ring = KeyRing(self.keys, clock)
        self.asked = 0
        sa.event.listen(store.engine, "before_cursor_execute", self._count)

    def _count(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.asked += statement.startswith("SELECT")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    clock = Clock()
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.db'}", clock)
    yield Room(store, clock)
    store.close()


def played(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def test_a_key_in_use_asks_the_database_once_a_second_however_many_there_are(room: Room) -> None:
    texts = [room.keys.create(f"user-{number}")[1] for number in range(20)]

    async def scenario() -> None:
        for text in texts:
            await room.ring.verify(text)
        room.asked = 0
        for _ in range(5):
            owners = [(await room.ring.verify(text)).owner for text in texts]
            assert owners == [f"user-{number}" for number in range(20)]
        assert room.asked == 0
        room.clock.now += BELIEVED_FOR + 0.01
        await asyncio.gather(*(room.ring.verify(text) for text in texts))
        assert room.asked == 1

    played(scenario)


def test_a_revoked_key_is_refused_when_its_second_is_over_also_if_it_never_rests(room: Room) -> None:
    made, text = room.keys.create("alice")
    other = room.keys.create("bob")[1]

    async def scenario() -> None:
        await room.ring.verify(text)
        room.keys.revoke(made.id)  # as another process would: the ring is not told
        began, reason = room.clock.now, ""
        while not reason:
            room.clock.now += 0.1
            assert room.clock.now - began <= BELIEVED_FOR + 0.2
            await room.ring.verify(other)
            try:
                await room.ring.verify(text)
            except KeyRefusedError as refusal:
                reason = refusal.reason
        assert reason == "revoked"
        assert (await room.ring.verify(other)).owner == "bob"

    played(scenario)


def test_a_key_expires_within_the_second(room: Room) -> None:
    text = room.keys.create("alice", lifetime=10)[1]

    async def scenario() -> None:
        await room.ring.verify(text)
        room.clock.now += 10
        with pytest.raises(KeyRefusedError, match="expired"):
            await room.ring.verify(text)

    played(scenario)


def test_what_is_no_key_is_never_remembered(room: Room) -> None:
    text = room.keys.create("alice")[1]

    async def scenario() -> None:
        await room.ring.verify(text)
        for _ in range(2):
            with pytest.raises(KeyRefusedError, match="mismatch"):
                await room.ring.verify(text[:15] + "A" * 43)

    played(scenario)


def test_the_last_use_of_a_key_that_never_rests_is_noted(room: Room) -> None:
    text = room.keys.create("alice")[1]

    async def scenario() -> None:
        for _ in range(int(NOTED_EVERY) + 5):
            await room.ring.verify(text)
            room.clock.now += 1.1
        for _ in range(1000):  # notes are written beside the calls
            noted = room.keys.list()[0].last_used_at
            if noted is not None and room.clock.now - noted < NOTED_EVERY:
                return
            await asyncio.sleep(0.01)
        pytest.fail("the last use was not noted")

    played(scenario)


def test_a_key_that_rests_is_forgotten(room: Room) -> None:
    resting, busy = (room.keys.create(owner)[1] for owner in ("alice", "bob"))

    async def scenario() -> None:
        await room.ring.verify(resting)
        for _ in range(int(KEPT_FOR) + 5):
            await room.ring.verify(busy)
            room.clock.now += 1.1
        assert len(room.ring) == 1
        assert (await room.ring.verify(resting)).owner == "alice"

    played(scenario)
