"""Whether the service is well, for probes, people and Prometheus."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from qsm_ai import __version__
from qsm_ai.api.context import InContext
from qsm_ai.api.schemas import Health, Readiness

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="health", summary="Is it alive?")
async def health() -> Health:
    """The process answers; nothing else is looked at, so that a sick neighbour does not get it restarted."""
    return Health(version=__version__)


@router.get(
    "/readyz",
    operation_id="readiness",
    summary="Can it reconstruct?",
    responses={503: {"model": Readiness, "description": "Something that is needed does not work."}},
)
async def readiness(
    context: InContext,
    response: Response,
    exclude: Annotated[
        list[Literal["triton", "storage", "database", "worker"]] | None,
        Query(description="Checks that shall not decide, such as `triton` where others compute the jobs."),
    ] = None,
) -> Readiness:
    """Inference server and model, storage, database and worker, each with the reason why it does not work."""
    checks = await context.checks()
    ready = all(check.ok for name, check in checks.items() if name not in (exclude or ()))
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, checks=checks)


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Metrics."}},
)
async def metrics(context: InContext, request: Request) -> Response:
    """Requests, jobs, stages, refusals and scores, in Prometheus' text format or as OpenMetrics."""
    text, kind = await asyncio.to_thread(context.metrics.answer, request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": kind})
