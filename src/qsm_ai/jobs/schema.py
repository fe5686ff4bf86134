"""Bringing a database to the schema that this program needs, and refusing one that it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from qsm_ai.jobs.database import Database
from qsm_ai.jobs.errors import DatabaseMismatchError

HEAD = "0005"
"""The newest migration."""

BEFORE_MIGRATIONS = "0001"
"""The schema of databases that were made before there were migrations."""

_LOCK = 0x51534D01

_VERSION = sa.table("alembic_version", sa.column("version_num"))


def prepare(database: Database, *, migrate: bool = True) -> None:
    """Make sure that the database has the schema of this program.

    Parameters
    ----------
    database : Database
    migrate : bool
        Whether to bring an older or empty one up to date; whoever comes second waits for the first.

    Raises
    ------
    DatabaseMismatchError
        If it is newer than the program, or older and ``migrate`` is not set.
    """
    found = revision(database)
    if found == HEAD:
        return
    if not migrate:
        _refuse_unknown(found)
        raise DatabaseMismatchError(
            f"The database has the schema {found or 'of before migrations'}, this program needs {HEAD}. "
            "Run `qsm-ai migrate` once, or set QSM_MIGRATE=true."
        )
    move(database, HEAD)


def move(database: Database, target: str) -> str:
    """Migrate up or down, in one transaction under a lock.

    Parameters
    ----------
    database : Database
    target : str
        A revision, or ``base`` for an empty database.

    Returns
    -------
    str
        Where it was before; empty for an empty database.

    Raises
    ------
    DatabaseMismatchError
        If the database is of a revision that this program does not know.
    """
    # Not every start migrates: Alembic takes a while to import.
    from alembic import command

    with database.writing() as connection:
        database.take_time(connection)
        database.one_at_a_time(connection, _LOCK)
        found = _revision(connection)
        _refuse_unknown(found)
        config = _config(connection)
        if found is None and sa.inspect(connection).has_table("jobs"):
            command.stamp(config, BEFORE_MIGRATIONS)
            found = BEFORE_MIGRATIONS
        order = ["", *revisions()]
        upwards = order.index("" if target == "base" else target) >= order.index(found or "")
        (command.upgrade if upwards else command.downgrade)(config, target)
        return found or ""


def revision(database: Database) -> str | None:
    """The revision of the database; ``None`` if it has none yet."""
    with database.reading() as connection:
        return _revision(connection)


def revisions() -> list[str]:
    """All revisions that this program knows, oldest first."""
    names = (path.stem for path in (Path(__file__).parent / "migrations/versions").glob("[0-9]*.py"))
    return sorted(name.partition("_")[0] for name in names)


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sa.select(_VERSION.c.version_num)).scalar_one_or_none()
    return None if found is None else str(found)


def _refuse_unknown(found: str | None) -> None:
    if found is not None and found not in revisions():
        raise DatabaseMismatchError(
            f"The database was made by a newer version of QSM-AI (its schema is {found}, this program knows "
            f"{HEAD} and older). Start the newer version, or restore the backup from before its migration."
        )


def _config(connection: sa.Connection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "qsm_ai.jobs:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
