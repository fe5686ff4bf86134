"""How much of the store one owner takes up, counted inside the transaction that adds to it."""

from __future__ import annotations

import sqlalchemy as sa

from qsm_ai.jobs.errors import OwnerStorageError
from qsm_ai.jobs.tables import JOBS, UPLOADS

ADDING = 0x51534D02
"""The lock of whoever adds something that is limited."""


def refuse_too_much(connection: sa.Connection, owner: str, more: int, most: int, now: float) -> None:
    """Refuse files for which an owner has no room.

    Parameters
    ----------
    connection : Connection
        Of a transaction that holds ``ADDING``: nobody else adds meanwhile.
    owner : str
    more, most : bytes
        That are to be added, and that there may be in all.
    now : float
        Seconds since 1970; uploads that have expired count nothing.

    Raises
    ------
    OwnerStorageError
    """
    kept = sa.select(sa.func.coalesce(sa.func.sum(JOBS.c.stored_bytes), 0)).where(JOBS.c.owner == owner)
    pending = sa.select(sa.func.coalesce(sa.func.sum(UPLOADS.c.size), 0)).where(
        UPLOADS.c.owner == owner, UPLOADS.c.expires_at > now
    )
    taken = sum(int(connection.execute(query).scalar_one()) for query in (kept, pending))
    if taken + more > most:
        raise OwnerStorageError
