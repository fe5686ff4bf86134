"""One database, SQLite or PostgreSQL, and its two kinds of transactions."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy import event

CHANNEL = "qsm_jobs"
"""Where PostgreSQL tells of news about jobs."""

LOCK_WAIT_MS = 30_000

READERS = 2
"""Threads in which a process looks things up; those that write are others."""

PAUSES = (0.05, 0.2, 0.5)
"""Seconds before a transaction whose connection broke is begun again."""

P = ParamSpec("P")
R = TypeVar("R")


class Database:
    """Connections, and the clock that all machines share.

    Parameters
    ----------
    url : str
        SQLAlchemy database URL: ``sqlite:////folder/jobs.db``, ``postgresql+psycopg://…``.
    clock : callable
        Seconds since 1970, for tests; the database server's own clock where it is left out.
    """

    def __init__(self, url: str, clock: Callable[[], float] | None = None) -> None:
        self.engine = _engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._reader = self.engine.execution_options(reading=True)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="database-reader")
        self._writer = threading.Lock()
        self.now = clock or (time.time if self.is_sqlite else _ServerClock(self.engine))

    def close(self) -> None:
        """Close all connections."""
        self._readers.shutdown(wait=False)
        self.engine.dispose()

    async def look_up(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call what only reads, in a thread kept for that.

        Whoever writes waits for the others who do. Whoever only looks must not wait with them.
        """
        call = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._readers, call)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that only reads."""
        with self._reader.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that may write: all of it happens, or nothing."""
        with ExitStack() as held:
            if self.is_sqlite:
                # SQLite lets one write, and the others look again after a while: in turns, nobody sleeps.
                held.enter_context(self._writer)
            yield held.enter_context(self.engine.begin())

    def one_at_a_time(self, connection: sa.Connection, what: int) -> None:
        """Let nobody else pass this point until the transaction ends.

        SQLite has one writer at a time as it is. What is counted before it is added to needs this.
        """
        if not self.is_sqlite:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:what)"), {"what": what})

    def take_time(self, connection: sa.Connection) -> None:
        """Let the transaction wait and work for as long as it needs, as a migration of many rows may."""
        if not self.is_sqlite:
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            connection.execute(sa.text("SET LOCAL lock_timeout = 0"))

    def tell(self, connection: sa.Connection, topic: str) -> None:
        """Wake processes that listen to PostgreSQL, once the transaction has happened."""
        if not self.is_sqlite:
            connection.execute(
                sa.text("SELECT pg_notify(:channel, :topic)"), {"channel": CHANNEL, "topic": topic}
            )

    def empty_journal(self) -> None:
        """Make sure that what was deleted is not in the journal of SQLite any more either."""
        if not self.is_sqlite:
            return
        connection = self.engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()


def persistent(method: Callable[P, R]) -> Callable[P, R]:
    """Begin a transaction anew when its connection breaks; for methods that may happen twice.

    Whether what was told to commit did so is not known when the connection breaks at that moment.
    """

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        for pause in PAUSES:
            try:
                return method(*args, **kwargs)
            except sa.exc.DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            time.sleep(pause)
        return method(*args, **kwargs)

    return wrapper


class _ServerClock:
    """PostgreSQL's clock: machines whose clocks differ must agree on who has been silent for how long."""

    ASK_EVERY = 60.0

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._ahead = 0.0
        self._asked_at: float | None = None
        self._lock = threading.Lock()

    def __call__(self) -> float:
        with self._lock:
            if self._asked_at is None or time.monotonic() - self._asked_at > self.ASK_EVERY:
                self._ask()
            return time.monotonic() + self._ahead

    def _ask(self) -> None:
        with self._engine.connect() as connection:
            before = time.monotonic()
            there = connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
            # Half of the way there and back; the rest is too little to care about. Nobody sets this clock.
            self._ahead = float(there) - (before + time.monotonic()) / 2
        self._asked_at = time.monotonic()


def _engine(url: str) -> sa.Engine:
    if url.startswith("sqlite"):
        engine = sa.create_engine(url, json_serializer=_json)
        if engine.url.database:
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin)
        return engine
    if url.startswith(("postgresql://", "postgres://")):
        url = "postgresql+psycopg://" + url.partition("://")[2]
    return sa.create_engine(
        url,
        json_serializer=_json,
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=20,
        # A server that does not answer, or a network that loses packets, must not hold a thread for minutes.
        connect_args={
            "connect_timeout": 5,
            "options": "-c statement_timeout=30000 -c lock_timeout=30000",
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 35_000,
        },
    )


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={LOCK_WAIT_MS}")
    with suppress(Exception):
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA secure_delete=ON")


def _begin(connection: sa.Connection) -> None:
    # A transaction that turns from reading to writing half way fails under contention instead of waiting.
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
