"""A place for a job, held while its upload comes in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from qsm_ai.api.context import Context
from qsm_ai.api.problems import ProblemError
from qsm_ai.jobs.figures import Usage
from qsm_ai.jobs.records import Job


@asynccontextmanager
async def place_for_job(
    context: Context, owner: str, earlier: Job | None = None, *, size: int | None = 0
) -> AsyncIterator[int]:
    """Hold a place for a job of a user.

    Parameters
    ----------
    context : Context
    owner : str
    earlier : Job or None
        That the same request has made already; it needs no other place.
    size : int or None
        Bytes that are to come, as far as the request says so, for which room is held as well; None where
        nothing comes but uploads that are there.

    Yields
    ------
    int
        Largest upload in bytes: what the service takes, or what the user has left.

    Raises
    ------
    LimitReached
        When the user has as many jobs, or takes up as much, as one user may; also when the upload turns out
        to be larger than what was left.
    """
    largest = context.settings.max_upload_bytes
    quotas = context.quotas
    if earlier is not None or not (quotas.jobs or quotas.stored):
        yield largest
        return
    with quotas.arriving(owner, await usage(context, owner), size) as room:
        limit = largest if room is None or size is None else min(largest, room)
        try:
            yield limit
        except ProblemError as error:
            if error.problem.code == "too-large" and limit < largest:
                raise quotas.full() from None
            raise


async def usage(context: Context, owner: str) -> Usage:
    """What a user takes up, files included that are no job yet."""
    taken, pending = await asyncio.gather(
        context.store.database.look_up(context.store.usage, owner), context.pending.of(owner)
    )
    return Usage(taken.unfinished, taken.stored_bytes + sum(upload.size for upload in pending))
