"""Waiting for a job's news, for as long as the client may and this process serves."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Request

from qsm_ai.api.context import Context, permit_of
from qsm_ai.jobs.records import Event, Job
from qsm_ai.jobs.service import Permit


class _EndingError(Exception):
    """This process has been told to end; whoever waits for a job's news asks another."""


def _while_serving(request: Request) -> Permit:
    """The request's permit, for as long as this process is not told to end.

    Whoever waits would otherwise use up the time that is left to uploads, and be cut off at its end.
    """
    lets_in = permit_of(request)

    async def permit() -> None:
        if getattr(request.app.state, "is_ending", False):
            raise _EndingError
        await lets_in()

    return permit


async def wait_for(context: Context, request: Request, job: Job, seconds: float) -> Job:
    """The job, when it has ended, ``seconds`` have passed, or this process is told to end.

    Parameters
    ----------
    context : Context
    request : Request
    job : Job
    seconds : s

    Returns
    -------
    Job
        As it stands then.

    Raises
    ------
    AccessDenied
        When the key or token is worth nothing any more, meanwhile.
    """
    try:
        return await context.jobs.wait(job.id, seconds, _while_serving(request))
    except _EndingError:
        return await context.jobs.get(job.id, job.owner)


async def events_of(context: Context, request: Request, job: Job, after: int) -> AsyncIterator[Event]:
    """A job's events, until it ends or this process is told to.

    Parameters
    ----------
    context : Context
    request : Request
    job : Job
    after : int
        The last event that is known.

    Yields
    ------
    Event

    Raises
    ------
    AccessDenied
        When the key or token is worth nothing any more, meanwhile.
    """
    try:
        async for event in context.jobs.follow(job.id, after, _while_serving(request)):
            yield event
    except _EndingError:
        return
