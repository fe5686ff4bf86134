"""What gateways and workers both stand on: database, storage, scratch folder and their metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

import structlog

from qsm_ai.api.metrics import Metrics
from qsm_ai.api.settings import Settings
from qsm_ai.jobs.scratch import Scratch
from qsm_ai.jobs.store import JobStore
from qsm_ai.observe.database import watch_database
from qsm_ai.observe.users import use_key
from qsm_ai.storage import Storage

log = structlog.get_logger("qsm_ai.api")

ANSWER_WITHIN = 4.0
"""Seconds in which a part that is well answers."""


@dataclass(frozen=True)
class Parts:
    """Opened once a process.

    Attributes
    ----------
    store : JobStore
    storage : Storage
        Its calls, and those of the database, are counted in ``metrics``.
    metrics : Metrics
    scratch : Scratch
        Swept: what an earlier process left there is gone.
    """

    store: JobStore
    storage: Storage
    metrics: Metrics
    scratch: Scratch

    @classmethod
    def open(cls, settings: Settings) -> Parts:
        """Open what the settings name.

        Parameters
        ----------
        settings : Settings

        Returns
        -------
        Parts

        Raises
        ------
        DatabaseMismatchError
            If the database is not of this version and may not be migrated.
        """
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        stated = settings.log_user_key
        use_key(stated.get_secret_value() if stated else None, settings.data_dir)
        scratch = Scratch(settings.data_dir.absolute() / "scratch")
        scratch.sweep()
        store = JobStore(settings.database, migrate=settings.migrate)
        storage = Storage.from_url(settings.storage)
        metrics = Metrics(store, settings.data_dir)
        storage.watch = metrics.storage_called
        watch_database(store.engine, metrics.database_called)
        return cls(store, storage, metrics, scratch)


async def reason(name: str, look: Awaitable[str | None]) -> str | None:
    """Why something does not work, in a sentence; ``None`` if it does.

    Parameters
    ----------
    name : str
        Such as "database".
    look : awaitable
        Gives a reason, raises, or does not come back in time.

    Returns
    -------
    str or None
    """
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            return await look
    except TimeoutError:
        return f"The {name} does not answer in time."
    except Exception as error:  # the reason is for the operator; the kind of error says enough
        log.warning("readiness.trouble", check=name, error=type(error).__name__)
        return f"The {name} fails ({type(error).__name__})."
