"""A job or its result in the form that the client accepts: JSON, NIfTI or PNG."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

from fastapi import Response
from fastapi.responses import StreamingResponse

from qsm_ai.api.context import Context
from qsm_ai.api.negotiation import negotiate
from qsm_ai.api.problems import NOT_FOUND, RETRY_AFTER, ProblemError
from qsm_ai.api.schemas import JobView, job_view
from qsm_ai.io.canonical import Canonical
from qsm_ai.jobs.problem import Problem
from qsm_ai.jobs.records import Job, State, StoredArtefact
from qsm_ai.storage import ObjectNotFoundError

JSON = "application/json"
NIFTI = ("application/gzip", "application/x-nifti", "application/octet-stream")
PNG = "image/png"
OFFERS = (JSON, *NIFTI, PNG)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
RESULT_CONTENT: dict[str, Any] = {
    JSON: {"schema": {"$ref": "#/components/schemas/JobView"}},
    **dict.fromkeys((*NIFTI, PNG), _BINARY),
}


async def view(context: Context, job: Job) -> JobView:
    """The job as JSON, with its place in the queue and the time left."""
    return job_view(job, await context.jobs.outlook(job))


def not_acceptable() -> ProblemError:
    """Nothing that the client accepts is on offer."""
    return ProblemError(
        Problem(
            code="not-acceptable",
            title="No such representation",
            status=406,
            detail="The result is not to be had in any of the accepted media types.",
            mend=f"Accept one of: {', '.join(OFFERS)}.",
        )
    )


async def represent(context: Context, job: Job, accept: str | None) -> Response:
    """The result of an ended job, in the form that the client accepts.

    Raises
    ------
    ProblemError
        The job's own problem if it failed; 409 if there is no result (yet); 406.
    """
    offer = negotiate(accept, OFFERS)
    if offer is None:
        raise not_acceptable()
    if job.state is State.FAILED and job.problem is not None:
        problem = Problem(**job.problem)
        headers = {"Retry-After": str(RETRY_AFTER)} if problem.status == 503 else {}
        raise ProblemError(problem, job=job.id, headers={"Location": f"/api/v1/jobs/{job.id}", **headers})
    if job.state is not State.DONE:
        raise ProblemError(
            Problem(
                code="no-result",
                title="There is no result",
                status=409,
                detail=f"The job is {job.state.value}.",
                mend="Follow the job until it is done, or retry it.",
            ),
            job=job.id,
        )
    headers = {"Content-Location": f"/api/v1/jobs/{job.id}", "Vary": "Accept"}
    if offer == JSON:
        body = await view(context, job)
        return Response(body.model_dump_json(), media_type=JSON, headers=headers)
    if offer == PNG:
        picture = next(other for other in job.others if other.media_type == PNG)
        content = b"".join([chunk async for chunk in context.jobs.read(job, picture.key)])
        return Response(content, media_type=PNG, headers=headers)
    chi = artefact_of(job, "chi")
    headers |= {"Content-Disposition": attachment(chi.file), "Content-Length": str(chi.size)}
    return StreamingResponse(context.jobs.read(job, chi.key), media_type=offer, headers=headers)


def artefact_of(job: Job, name: str) -> StoredArtefact:
    """A volume of a job; 404 if it made none of this name."""
    for artefact in job.artefacts:
        if artefact.name == name:
            return artefact
    raise ProblemError(NOT_FOUND, job=job.id)


async def volume_of(context: Context, job: Job, artefact: StoredArtefact) -> Canonical:
    """The decoded volume, from the cache or from the store."""

    async def load() -> Canonical:
        async with context.scratch.folder() as folder:
            path = folder / "volume.nii.gz"
            try:
                await context.jobs.fetch(job, artefact.key, path)
            except ObjectNotFoundError as error:
                raise ProblemError(NOT_FOUND, job=job.id) from error
            return await asyncio.to_thread(Canonical.read, path)

    return await context.volumes.get(job.id, f"{artefact.name}/{job.attempt}", load)


def attachment(name: str) -> str:
    """``Content-Disposition`` for a download with any name."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"
