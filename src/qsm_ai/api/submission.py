"""From files on disk and parameters to a job in the queue, whichever way both came."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import structlog
from fastapi import Header, Request, Response

from qsm_ai.access.denial import not_an_administrator
from qsm_ai.access.identity import Role
from qsm_ai.api.context import Context
from qsm_ai.api.negotiation import negotiate
from qsm_ai.api.parameters import Parameters, parse
from qsm_ai.api.problems import RETRY_AFTER, ProblemError
from qsm_ai.api.representations import OFFERS, not_acceptable, represent, view
from qsm_ai.api.uploads import ReceivedFile
from qsm_ai.api.waiting import wait_for
from qsm_ai.jobs.errors import IdempotencyConflictError, QueueFullError
from qsm_ai.jobs.problem import Problem, worker_lost
from qsm_ai.jobs.process import ProcessDiedError
from qsm_ai.jobs.records import OURS, Job, State, Upload
from qsm_ai.observe import tracing

log = structlog.get_logger("qsm_ai.api")

Found = TypeVar("Found")
Use = tuple[str, str]
"""What an upload is for, and its id."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=64,
        pattern="^[!-~]+$",
        description="Your word for this request: the same scan sent again with it makes no second job.",
        examples=["0b7f3c5e-6a41-4b52-9d3e-2f1c8a7d9e10"],
    ),
]


async def admit(context: Context, request: Request, owner: str, idempotency_key: str | None) -> Job | None:
    """Refuse what could not be answered anyway, before a body is taken in.

    Returns
    -------
    Job or None
        That an earlier request with this key has made.

    Raises
    ------
    ProblemError
        406.
    QueueFullError
    """
    if negotiate(request.headers.get("accept"), OFFERS) is None:
        raise not_acceptable()
    earlier = None
    if idempotency_key is not None:
        earlier = await context.jobs.find(owner, idempotency_key)
    if earlier is None and not await context.jobs.has_room():
        raise QueueFullError
    return earlier


async def counted(context: Context, work: Awaitable[Found]) -> Found:
    """Do it, and count the refusal if it is refused."""
    try:
        return await work
    except ProblemError as error:
        context.metrics.refusals.labels(error.problem.code).inc()
        raise


async def submit(
    context: Context,
    request: Request,
    owner: str,
    files: Sequence[ReceivedFile],
    fields: Mapping[str, Sequence[str]],
    idempotency_key: str | None = None,
    *,
    uses: Sequence[Use] = (),
) -> tuple[Job, float]:
    """Check a scan and queue its job.

    Parameters
    ----------
    context : Context
    request : Request
        For its id.
    owner : str
    files : ReceivedFile
        May be gone when this returns.
    fields : name: values in order
    idempotency_key : str or None
    uses : (role, upload id)
        What the files were sent as before; none, if they came with this request.

    Returns
    -------
    Job
        An earlier one, if the same scan came before under this key.
    float
        For how many seconds the client wants to wait for the result.

    Raises
    ------
    ProblemError
        What is wrong with the input.
    QueueFullError, OwnerLimitError, OwnerStorageError, IdempotencyConflictError, TooLargeForWorkersError
    UploadGoneError
        If another request has used them meanwhile.
    AccessDenied
        A high priority, for who is no administrator.
    """
    parameters, summary = await counted(context, _checked(context, files, fields))
    if parameters.priority > 0 and request.state.identity.role is not Role.ADMIN:
        raise not_an_administrator()
    deadline_at = None
    if parameters.deadline is not None:
        deadline_at = await asyncio.to_thread(context.store.now) + parameters.deadline
    job = Job(
        id=secrets.token_hex(16),
        owner=owner,
        state=State.QUEUED,
        parameters={**parameters.values, "limits": _limits(context), **_trace(), **_sent_before(uses)},
        uploads=tuple(
            Upload(file.role, file.name, f"uploads/{number}", file.size, file.sha256)
            for number, file in enumerate(files)
        ),
        summary=summary,
        request_id=request.state.request_id,
        idempotency_key=idempotency_key,
        priority=parameters.priority,
        deadline_at=deadline_at,
    )
    paths = {upload.key: file.path for upload, file in zip(job.uploads, files, strict=True)}
    made = await context.jobs.submit(
        job,
        paths,
        consumes=[upload_id for _, upload_id in uses],
        max_stored=context.quotas.stored or None,
    )
    if made.id == job.id:
        context.metrics.uploads.inc(sum(file.size for file in files))
    return made, parameters.wait


async def made_before(
    context: Context,
    owner: str,
    idempotency_key: str | None,
    uses: Sequence[Use],
    fields: Mapping[str, Sequence[str]],
) -> tuple[Job, float] | None:
    """The job that the same request has made of uploads which are not there any more for that.

    Parameters
    ----------
    context : Context
    owner : str
    idempotency_key : str or None
    uses : (role, upload id)
    fields : name: values in order

    Returns
    -------
    Job
    float
        For how many seconds the client wants to wait for the result.

    Raises
    ------
    ProblemError
        A parameter that cannot be.
    IdempotencyConflictError
        If another request has made it under this key.
    """
    earlier = None if idempotency_key is None else await context.jobs.find(owner, idempotency_key)
    if earlier is None:
        return None
    parameters = parse(fields, max_wait=context.settings.max_wait_s)
    asked = {name: value for name, value in earlier.parameters.items() if name not in OURS}
    if asked != parameters.values or earlier.parameters.get("uploads") != _sent_before(uses)["uploads"]:
        raise IdempotencyConflictError(earlier.id)
    return earlier, parameters.wait


def _sent_before(uses: Sequence[Use]) -> dict[str, list[list[str]]]:
    """What tells a request from another one when its uploads are gone."""
    return {"uploads": [[role, upload_id] for role, upload_id in uses]} if uses else {}


def _trace() -> dict[str, dict[str, str]]:
    """What continues this request's trace in the job, where there is one."""
    carried = tracing.carry()
    return {"trace": carried} if carried else {}


async def answer(context: Context, request: Request, job: Job, wait: float) -> Response:
    """202 with the job, or 200 with its result if that is ready within ``wait`` seconds.

    Raises
    ------
    ProblemError
        What became of the job, if it failed in time.
    AccessDenied
        When the key or token is worth nothing any more, meanwhile.
    """
    if wait:
        job = await wait_for(context, request, job, wait)
        if job.state.is_final:
            return await represent(context, job, request.headers.get("accept"))
    body = await view(context, job)
    return Response(
        body.model_dump_json(),
        status_code=202,
        media_type="application/json",
        headers={"Location": f"/api/v1/jobs/{job.id}", "Retry-After": "1"},
    )


async def _checked(
    context: Context, files: Sequence[ReceivedFile], fields: Mapping[str, Sequence[str]]
) -> tuple[Parameters, dict[str, Any]]:
    parameters = parse(fields, max_wait=context.settings.max_wait_s)
    return parameters, await _check(context, files, parameters)


async def _check(context: Context, files: Sequence[ReceivedFile], parameters: Parameters) -> dict[str, Any]:
    """Have the upload read and checked in a process of its own."""
    task = {
        "task": "validate",
        "sources": [{"role": f.role, "name": f.name, "path": str(f.path)} for f in files],
        "parameters": {**parameters.values, "limits": _limits(context)},
        "trace": tracing.carry(),
        "log": structlog.contextvars.get_contextvars(),
    }
    seconds = context.settings.validate_timeout_s
    try:
        async with asyncio.timeout(seconds), context.checking, context.pool.lease() as process:
            async for message in process.perform(task):
                if message["kind"] == "problem":
                    raise ProblemError(Problem(**message["problem"]))
                if message["kind"] == "result":
                    summary: dict[str, Any] = message["result"]
                    return summary
        raise ProcessDiedError(None)
    except TimeoutError:
        raise ProblemError(
            Problem(
                code="check-timeout",
                title="The upload could not be checked in time",
                status=503,
                detail=f"Reading the images took longer than {seconds:.0f} s.",
                mend="Send the scan again when the server is less busy, or crop it to the head.",
            ),
            headers={"Retry-After": str(RETRY_AFTER)},
        ) from None
    except ProcessDiedError as error:
        log.error("check.process_died", status=error.returncode)
        raise ProblemError(worker_lost("The process that reads the images ended unexpectedly.")) from error


def _limits(context: Context) -> dict[str, int]:
    return {"stored": context.settings.max_upload_bytes, "unpacked": context.settings.max_unpacked_mb << 20}
