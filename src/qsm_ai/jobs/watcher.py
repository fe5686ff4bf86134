"""Brings news that other processes recorded in the database to the hub of this one.

PostgreSQL tells of them (LISTEN); SQLite, and a PostgreSQL whose connection broke, is asked.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from qsm_ai.jobs.database import CHANNEL
from qsm_ai.jobs.hub import Hub
from qsm_ai.jobs.store import JobStore

log = structlog.get_logger("qsm_ai.watcher")

ASK_EVERY = 0.25
"""Seconds between questions, where the database does not tell by itself."""

LISTEN_FOR = 5.0
"""Seconds of listening, after which the connection is looked at."""


class Watcher:
    """Runs until its task is cancelled.

    Parameters
    ----------
    store : JobStore
    hub : Hub
    """

    def __init__(self, store: JobStore, hub: Hub) -> None:
        self._store = store
        self._hub = hub
        self._seen: int | None = None

    async def run(self) -> None:
        """Pass on whatever is recorded, by whichever process."""
        while True:
            try:
                if not self._store.database.is_sqlite:
                    await self._listen()
                await self._ask()
            except Exception as error:
                log.warning("watcher.trouble", error=type(error).__name__)
                await asyncio.sleep(1.0)
            await asyncio.sleep(ASK_EVERY)

    async def _ask(self) -> None:
        if self._seen is None:
            self._seen = await asyncio.to_thread(self._store.latest_event)
        found = await asyncio.to_thread(self._store.news, self._seen)
        for number, job_id in found:
            self._seen = number
            self._hub.notify(job_id)
        if found:
            self._hub.notify(Hub.QUEUE)

    async def _listen(self) -> None:
        import psycopg

        url = self._store.engine.url.set(drivername="postgresql")
        connection = await psycopg.AsyncConnection.connect(
            url.render_as_string(hide_password=False), autocommit=True, connect_timeout=5
        )
        try:
            await connection.execute(f"LISTEN {CHANNEL}".encode())
            # What was told while nobody listened, workers find by looking; who waits for a job looks anyway.
            self._hub.notify(Hub.QUEUE)
            while True:
                async for notice in connection.notifies(timeout=LISTEN_FOR):
                    self._hub.notify(notice.payload)
                await connection.execute(b"SELECT 1")
        finally:
            with suppress(Exception):
                await connection.close()
