"""Following, stopping, repeating and deleting jobs, and fetching what they made."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from qsm_ai.access.denial import AccessDenied
from qsm_ai.api.context import InContext, OwnedJob, Owner, context_of
from qsm_ai.api.paging import address, cursor_behind, link_header, place_of
from qsm_ai.api.parameters import invalid
from qsm_ai.api.problems import NOT_FOUND, ProblemError, responses
from qsm_ai.api.quota import place_for_job
from qsm_ai.api.ranges import UNSATISFIABLE, invalid_range, parse_range
from qsm_ai.api.representations import (
    RESULT_CONTENT,
    artefact_of,
    attachment,
    represent,
    view,
    volume_of,
)
from qsm_ai.api.schemas import PAGE, JobList, JobRequest, JobView, Statistics
from qsm_ai.api.slices import render
from qsm_ai.api.statistics import sphere, statistics
from qsm_ai.api.submission import IdempotencyKey, admit, answer, counted, made_before, submit
from qsm_ai.api.waiting import events_of, wait_for
from qsm_ai.io.canonical import PLANES, Plane
from qsm_ai.jobs.errors import UploadGoneError
from qsm_ai.jobs.records import State, StoredArtefact, StoredFile
from qsm_ai.reconstruction.stages import ARTEFACTS

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])

_PNG: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The slice.",
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_FILE = {"schema": {"type": "string", "format": "binary"}}
_NUMBER = re.compile("[0-9]{1,20}")
LAST_EVENT = 2**31 - 1
"""PostgreSQL counts no further, and refuses to compare with more."""

PRIVATE = "private, max-age=3600"
"""Results never change; they may stay in the browser, and nowhere between."""


def _event_number(text: str | None) -> int:
    """Of the last event that a client has seen; 0, from which all follow, where it says anything else."""
    if text is None or _NUMBER.fullmatch(text) is None:
        return 0
    return min(int(text), LAST_EVENT)


@router.get(
    "",
    operation_id="list_jobs",
    summary="List jobs",
    responses={
        200: {
            "headers": {
                "Link": {
                    "description": "Addresses of the first and the next page.",
                    "schema": {"type": "string"},
                }
            }
        },
        **responses(422),
    },
)
async def list_jobs(
    context: InContext,
    owner: Owner,
    response: Response,
    state: State | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[
        str | None, Query(max_length=200, description="From `next` of the page before.")
    ] = None,
) -> JobList:
    """Your jobs, newest first. `next` and the header `Link` lead to the next page."""
    before, before_id = (None, "") if cursor is None else place_of(cursor)
    jobs = await context.store.database.look_up(
        context.store.page,
        owner=owner,
        state=state,
        limit=limit + 1,
        before=before,
        before_id=before_id,
    )
    page = jobs[:limit]
    views = await asyncio.gather(*(view(context, job) for job in page))
    wanted = state.value if state else None
    first = address("/api/v1/jobs", limit=limit, state=wanted)
    following = None
    if len(jobs) > limit:
        following = address("/api/v1/jobs", limit=limit, state=wanted, cursor=cursor_behind(page[-1]))
    response.headers["Link"] = link_header(first, following)
    return JobList(jobs=list(views), next=following)


@router.post(
    "",
    operation_id="create_job",
    summary="Reconstruct uploaded files",
    response_model=JobView,
    status_code=202,
    responses={
        200: {"description": "The result: it was ready within `wait` seconds.", "content": RESULT_CONTENT},
        202: {
            "description": "The job was accepted.",
            "headers": {"Location": {"description": "Address of the job.", "schema": {"type": "string"}}},
        },
        **responses(400, 406, 409, 413, 415, 422, 429, 500, 502, 503, 504, 507),
    },
)
async def create_job(
    wanted: JobRequest,
    request: Request,
    context: InContext,
    owner: Owner,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """As `/api/v1/reconstruct`, with files that were sent to `/api/v1/uploads` before.

    The uploads become the job's; if the scan is refused, they stay, and the corrected request may name them
    again.
    """
    earlier = await admit(context, request, owner, idempotency_key)
    uses = [(use.role, use.upload) for use in wanted.files]
    fields = wanted.fields()
    try:
        place = place_for_job(context, owner, earlier, size=None)
        async with place, context.scratch.folder() as folder:
            files = await counted(context, context.pending.collect(owner, uses, folder))
            job, wait = await submit(context, request, owner, files, fields, idempotency_key, uses=uses)
    except UploadGoneError:
        made = await made_before(context, owner, idempotency_key, uses, fields)
        if made is None:
            context.metrics.refusals.labels("unknown-upload").inc()
            raise
        job, wait = made
    else:
        await context.pending.discard([upload for _, upload in uses])
    return await answer(context, request, job, wait)


@router.get(
    "/{job_id}",
    operation_id="show_job",
    summary="Show a job",
    response_model=JobView,
    responses=responses(404, 422),
)
async def show_job(
    request: Request,
    job: OwnedJob,
    wait: Annotated[
        float, Query(ge=0, allow_inf_nan=False, description="Seconds to wait for the job's end.")
    ] = 0.0,
) -> Response:
    """State, stage, place in the queue, time left; the result's addresses once it is done.

    With `wait` the answer comes when the job has ended, or after so many seconds: one request for many.
    """
    context = await context_of(request)
    if wait and not job.state.is_final:
        job = await wait_for(context, request, job, min(wait, context.settings.max_wait_s))
    # The view is what the model says; to have it checked again and taken apart costs more than making it.
    found = await view(context, job)
    return Response(found.model_dump_json(), media_type="application/json")


@router.get(
    "/{job_id}/result",
    operation_id="get_result",
    summary="Get the susceptibility map",
    response_model=JobView,
    responses={
        200: {"description": "The result.", "content": RESULT_CONTENT},
        **responses(404, 406, 409, 422, 500, 502, 503, 504, 507),
    },
)
async def get_result(request: Request, job: OwnedJob, context: InContext) -> Response:
    """The result as JSON, NIfTI or PNG by `Accept`; a failed job answers with its problem."""
    return await represent(context, job, request.headers.get("accept"))


@router.get(
    "/{job_id}/events",
    operation_id="follow_job",
    summary="Follow a job",
    response_class=EventSourceResponse,
    responses=responses(404, 422),
)
async def follow_job(
    request: Request,
    job: OwnedJob,
    context: InContext,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events `state` (state, problem) and `progress` (stage, fraction, note), until the job ends.

    A comment comes every 15 s while nothing happens. `Last-Event-ID` continues where a broken stream ended.
    The stream ends when the key or token that it was opened with is worth nothing any more.
    """
    after = _event_number(last_event_id)
    with suppress(AccessDenied):
        async for event in events_of(context, request, job, after):
            yield ServerSentEvent(id=str(event.id), event=event.kind, data=event.data, retry=2000)


@router.post(
    "/{job_id}/cancel", operation_id="cancel_job", summary="Cancel a job", responses=responses(404, 422)
)
async def cancel_job(job: OwnedJob, context: InContext) -> JobView:
    """Stop a queued or running job; an ended one stays as it is."""
    return await view(context, await context.jobs.cancel(job.id))


@router.post(
    "/{job_id}/retry",
    operation_id="retry_job",
    summary="Retry a job",
    status_code=202,
    responses=responses(404, 409, 422, 503),
)
async def retry_job(job: OwnedJob, context: InContext) -> JobView:
    """Queue a failed or cancelled job again, with the upload that is still there."""
    return await view(context, await context.jobs.retry(job.id))


@router.delete(
    "/{job_id}",
    operation_id="delete_job",
    summary="Delete a job",
    status_code=204,
    responses=responses(404, 422),
)
async def delete_job(job: OwnedJob, context: InContext) -> None:
    """Stop the job and delete its record, its upload and its results for good."""
    await context.jobs.delete(job.id)


@router.get(
    "/{job_id}/artefacts/{name}",
    operation_id="get_artefact",
    summary="Download a file",
    response_class=Response,
    responses={
        200: {
            "description": "The file.",
            "content": {"application/gzip": _FILE, "application/json": {"schema": {}}},
        },
        206: {"description": "The part asked for.", "content": {"application/gzip": _FILE}},
        304: {"description": "Not changed since."},
        307: {
            "description": "The file is at this address of the object store for a while.",
            "headers": {"Location": {"description": "Where it is.", "schema": {"type": "string"}}},
        },
        **responses(404, 416, 422),
    },
)
async def get_artefact(
    request: Request,
    job: OwnedJob,
    name: str,
    context: InContext,
    direct: Annotated[
        bool, Query(description="Redirect to the object store where that serves clients itself.")
    ] = False,
) -> Response:
    """A volume (`chi`, `mask`, ...) as `.nii.gz`, `report` as JSON, `picture` as PNG, quality `page` as HTML.

    `Range` is understood here and at the object store.
    """
    found, media_type = _file(job.artefacts, job.others, name)
    if found is None:
        raise ProblemError(NOT_FOUND, job=job.id)
    if direct and (signed := await context.pending.presigner.sign("GET", f"{job.prefix}/{found.key}")):
        return Response(status_code=307, headers={"Location": signed})
    etag = f'"{job.id}-{job.attempt}-{name}"'
    headers = {"Accept-Ranges": "bytes", "ETag": etag, "Cache-Control": PRIVATE}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = attachment(found.file)
    asked = request.headers.get("range")
    if request.headers.get("if-range", etag) != etag:
        asked = None
    part = parse_range(asked, found.size)
    if part is UNSATISFIABLE:
        raise ProblemError(
            invalid_range(found.size), job=job.id, headers={"Content-Range": f"bytes */{found.size}"}
        )
    start, end = part if isinstance(part, tuple) else (0, found.size)
    headers["Content-Length"] = str(end - start)
    status = 200
    if part is not None:
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.size}"
    content = context.jobs.read(job, found.key, start, end)
    return StreamingResponse(content, status, media_type=media_type, headers=headers)


@router.get(
    "/{job_id}/slices/{artefact}.png",
    operation_id="get_slice",
    summary="Show a slice",
    response_class=Response,
    responses={**_PNG, **responses(404, 422)},
)
async def get_slice(
    job: OwnedJob,
    artefact: str,
    context: InContext,
    axis: Plane = "axial",
    index: Annotated[int | None, Query(ge=0, description="Along the axis; the middle when left out.")] = None,
    low: Annotated[float | None, Query(allow_inf_nan=False, description="Shown black.")] = None,
    high: Annotated[float | None, Query(allow_inf_nan=False, description="Shown white.")] = None,
    square_pixels: Annotated[bool, Query(description="Stretch to square millimetres.")] = False,
) -> Response:
    """One slice as grey PNG, one pixel per voxel, in radiological orientation.

    The patient's right is on the left of axial and coronal slices, the front on the left of sagittal ones;
    the front (axial) or the top is up. `index` counts to the right (sagittal), to the front (coronal) or
    upwards (axial), as the artefact's `shape` does.
    """
    found = artefact_of(job, artefact)
    size = found.shape[PLANES.index(axis)]
    number = size // 2 if index is None else index
    if number >= size:
        raise ProblemError(invalid(f"index {number} lies outside.", f"Choose 0 to {size - 1}."), job=job.id)
    usual = ARTEFACTS[artefact].window
    window = (usual[0] if low is None else low, usual[1] if high is None else high)
    if not window[0] < window[1]:
        raise ProblemError(invalid("low is not below high.", "Give a window with low < high."), job=job.id)
    volume = await volume_of(context, job, found)
    picture = await asyncio.to_thread(render, volume, axis, number, window, square_pixels=square_pixels)
    return Response(picture, media_type="image/png", headers={"Cache-Control": PRIVATE})


@router.get(
    "/{job_id}/statistics/{artefact}",
    operation_id="get_statistics",
    summary="Measure an artefact",
    responses=responses(404, 422),
)
async def get_statistics(
    job: OwnedJob,
    artefact: str,
    context: InContext,
    x: Annotated[
        float | None, Query(allow_inf_nan=False, description="Centre of a sphere, voxels to the right.")
    ] = None,
    y: Annotated[float | None, Query(allow_inf_nan=False, description="Voxels to the front.")] = None,
    z: Annotated[float | None, Query(allow_inf_nan=False, description="Voxels upwards.")] = None,
    radius: Annotated[float, Query(gt=0, le=500, description="Of the sphere, mm.")] = 5.0,
    bins: Annotated[int, Query(ge=2, le=512)] = 64,
) -> Statistics:
    """Mean, spread, percentiles and histogram in the brain mask, or in a sphere (within the mask)."""
    found = artefact_of(job, artefact)
    volume = await volume_of(context, job, found)
    mask = await volume_of(context, job, artefact_of(job, "mask"))

    def measure() -> Statistics | None:
        region = mask.volume > 0.5
        if x is not None and y is not None and z is not None:
            region &= sphere(volume, (x, y, z), radius)
        return statistics(artefact, ARTEFACTS[artefact].unit, volume, region, bins)

    if (x is None, y is None, z is None).count(True) not in (0, 3):
        raise ProblemError(
            invalid("The centre is incomplete.", "Give x, y and z, or none of them."), job=job.id
        )
    measured = await asyncio.to_thread(measure)
    if measured is None:
        raise ProblemError(
            invalid("The region holds no voxel of the brain.", "Move or enlarge it."), job=job.id
        )
    return measured


def _file(
    artefacts: tuple[StoredArtefact, ...], others: tuple[StoredFile, ...], name: str
) -> tuple[StoredArtefact | StoredFile | None, str]:
    for artefact in artefacts:
        if artefact.name == name:
            return artefact, "application/gzip"
    kinds = {"report": "application/json", "picture": "image/png", "page": PAGE}
    for other in others:
        if kinds.get(name) == other.media_type:
            return other, other.media_type
    return None, ""
