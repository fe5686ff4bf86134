"""What an administrator sees of everybody's jobs: how many and how old, never what is in them."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from pydantic import BaseModel, Field

from qsm_ai.access.overview import by_owner, on_their_way
from qsm_ai.api.context import Administrator, InContext
from qsm_ai.api.problems import responses
from qsm_ai.jobs.records import State

router = APIRouter(prefix="/api/v1/admin", tags=["admin"])

_ALIAS = Field(description="The same for the same user, without saying who it is.", examples=["0f343b0931cd"])


class OwnerView(BaseModel):
    """What one user has on its way."""

    owner: str = _ALIAS
    queued: int
    running: int
    oldest_wait_s: float | None = Field(description="Null without a queued job.")


class QueuedJobView(BaseModel):
    """A job on its way."""

    owner: str = _ALIAS
    state: State
    priority: int
    attempt: int = Field(description="How many times it was started.")
    age_s: float = Field(description="Since it was queued.")
    running_for_s: float | None = Field(description="Null until a worker takes it.")
    stage: str | None
    fraction: float


class QueueView(BaseModel):
    """Everybody's jobs in numbers."""

    counts: dict[State, int] = Field(description="Jobs on record, by state.")
    oldest_wait_s: float = Field(description="Of the job that waits longest; 0 without any.")
    owners: list[OwnerView] = Field(description="Who has jobs on their way; who waits longest comes first.")
    jobs: list[QueuedJobView] = Field(description="On their way, oldest first.")


@router.get(
    "/queue", operation_id="show_queue", summary="Show everybody's queue", responses=responses(401, 403)
)
async def show_queue(context: InContext, _administrator: Administrator) -> QueueView:
    """Counts and ages. Users are named by an alias; ids, files, parameters and images are not to be had."""
    counts, jobs = await asyncio.gather(
        context.jobs.counts(), asyncio.to_thread(on_their_way, context.store.database)
    )
    return QueueView(
        counts=counts,
        oldest_wait_s=max((job.age for job in jobs if job.state is State.QUEUED), default=0.0),
        owners=[
            OwnerView(owner=o.alias, queued=o.queued, running=o.running, oldest_wait_s=o.oldest_wait)
            for o in by_owner(jobs)
        ],
        jobs=[
            QueuedJobView(
                owner=job.alias,
                state=job.state,
                priority=job.priority,
                attempt=job.attempt,
                age_s=job.age,
                running_for_s=job.running_for,
                stage=job.stage,
                fraction=job.fraction,
            )
            for job in jobs
        ],
    )
