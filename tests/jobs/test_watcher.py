"""News of jobs reach every process that shares the database, whoever recorded them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qsm_ai.jobs.hub import Hub
from qsm_ai.jobs.records import Job, State
from qsm_ai.jobs.store import JobStore
from qsm_ai.jobs.watcher import Watcher

PATIENCE = 60.0


@pytest.fixture
def here(database_url: str) -> Iterator[JobStore]:
    store = JobStore(database_url)
    yield store
    store.close()


@pytest.fixture
def elsewhere(database_url: str, here: JobStore) -> Iterator[JobStore]:
    """Another process would have connections of its own too."""
    store = JobStore(database_url)
    yield store
    store.close()


def a_job() -> Job:
    return Job(secrets.token_hex(16), "ann", State.QUEUED, {"method": "tkd"}, (), {})


async def woken_by(hub: Hub, topic: str, act: Callable[[], Any]) -> float:
    """Seconds from what happens until who waits for it is woken."""
    waiting = asyncio.create_task(hub.wait(topic, PATIENCE))
    await asyncio.sleep(0)
    began = time.monotonic()
    await asyncio.to_thread(act)
    await waiting
    return time.monotonic() - began


def test_who_waits_is_woken_by_what_another_process_recorded(here: JobStore, elsewhere: JobStore) -> None:
    async def scenario() -> None:
        hub = Hub()
        watching = asyncio.create_task(Watcher(here, hub).run())
        await asyncio.sleep(1.0)
        job = a_job()
        assert await woken_by(hub, Hub.QUEUE, lambda: elsewhere.add(job, max_queued=9)) < PATIENCE / 2
        assert await woken_by(hub, job.id, lambda: elsewhere.claim("there:1")) < PATIENCE / 2
        held = elsewhere.get(job.id)
        told = await woken_by(hub, job.id, lambda: elsewhere.progress(held, stage="mask", fraction=0.5))
        assert told < PATIENCE / 2
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(scenario())


def test_a_broken_connection_is_mended(
    here: JobStore, elsewhere: JobStore, request: pytest.FixtureRequest
) -> None:
    async def scenario() -> None:
        hub = Hub()
        watching = asyncio.create_task(Watcher(here, hub).run())
        await asyncio.sleep(1.0)
        url = here.engine.url.render_as_string(hide_password=False)
        if not here.database.is_sqlite:
            assert request.getfixturevalue("postgres").cut_connections(url) > 0
        job = elsewhere.add(a_job(), max_queued=9)
        held = elsewhere.claim("there:1")
        assert held is not None
        deadline = time.monotonic() + PATIENCE
        # News may be missed while nobody listens; who waits looks by itself then.
        waiting = asyncio.create_task(hub.wait(job.id, PATIENCE))
        while not waiting.done():
            assert time.monotonic() < deadline
            await asyncio.to_thread(elsewhere.progress, held, stage="mask", fraction=0.5)
            await asyncio.sleep(0.2)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(scenario())
    # Stores mend themselves too.
    assert here.counts()[State.RUNNING] == 1
