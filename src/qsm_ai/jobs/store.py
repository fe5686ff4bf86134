"""The durable record of every job: SQLite by default, PostgreSQL by URL.

The database is the queue. A worker *claims* a queued job in one transaction and from then on *holds* it by a
heartbeat; a job whose worker has fallen silent goes back to the queue. Every later write of a worker names
the attempt that it holds, so that a worker that was given up by mistake can change nothing any more: a job
finishes once.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from qsm_ai.jobs import schema
from qsm_ai.jobs.database import Database
from qsm_ai.jobs.figures import Figures
from qsm_ai.jobs.fleet import Fleet
from qsm_ai.jobs.holding import Holding
from qsm_ai.jobs.intake import Intake


class JobStore(Intake, Holding, Fleet, Figures):
    """Synchronous; call it from threads. Every method is one transaction.

    Parameters
    ----------
    url : str
        SQLAlchemy database URL: ``sqlite:////folder/jobs.db``, ``postgresql+psycopg://…``.
    clock : callable
        Seconds since 1970; for tests.
    migrate : bool
        Whether to bring an older database up to date.

    Raises
    ------
    DatabaseMismatchError
        If the database has another schema than this program, and it may or can not be migrated.
    """

    def __init__(self, url: str, clock: Callable[[], float] | None = None, *, migrate: bool = True) -> None:
        database = Database(url, clock)
        super().__init__(database)
        try:
            schema.prepare(database, migrate=migrate)
        except BaseException:
            database.close()
            raise

    @property
    def engine(self) -> sa.Engine:
        """The database, for records that live beside the jobs."""
        return self._database.engine

    @property
    def database(self) -> Database:
        """The database with its clock and its two kinds of transactions."""
        return self._database

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def now(self) -> float:
        """Seconds since 1970, by the store's clock."""
        return self._database.now()

    def check(self) -> None:
        """Read from the database; raises whatever goes wrong."""
        with self._database.reading() as connection:
            connection.execute(sa.text("SELECT 1 FROM owners")).first()
