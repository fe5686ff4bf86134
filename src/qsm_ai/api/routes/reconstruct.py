"""Sending a scan."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from fastapi import APIRouter, Request, Response

from qsm_ai.api import uploads
from qsm_ai.api.context import Context, InContext, Owner
from qsm_ai.api.negotiation import negotiate
from qsm_ai.api.parameters import FIELDS, Parameters, parse
from qsm_ai.api.problems import RETRY_AFTER, ProblemError, responses
from qsm_ai.api.representations import OFFERS, RESULT_CONTENT, not_acceptable, represent, view
from qsm_ai.api.schemas import JobView
from qsm_ai.jobs.problem import Problem
from qsm_ai.jobs.process import ProcessDiedError
from qsm_ai.jobs.records import Job, State, Upload
from qsm_ai.jobs.store import QueueFullError
from qsm_ai.reconstruction.options import BACKGROUNDS, METHODS, REFERENCES, UNWRAPPINGS

router = APIRouter(prefix="/api/v1", tags=["reconstruct"])

_FILE = {"type": "string", "format": "binary"}
_FILES = {"type": "array", "items": _FILE}
_FORM: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "phase": {**_FILES, "description": "Wrapped phase: one 4D NIfTI, or one 3D NIfTI per echo."},
        "magnitude": {**_FILES, "description": "Magnitude on the same grid, as the phase."},
        "mask": {**_FILE, "description": "Brain mask (NIfTI); made from the images when left out."},
        "sidecar": {**_FILES, "description": "JSON sidecars with EchoTime and MagneticFieldStrength."},
        "total_field": {**_FILE, "description": "Instead of the phase: total field in ppm, with a mask."},
        "local_field": {**_FILE, "description": "Instead of the phase: local field in ppm, with a mask."},
        "te_ms": {
            "type": "string",
            "description": "Echo times in ms; override sidecars.",
            "example": "4 12 20 28",
        },
        "b0": {"type": "string", "description": "Field strength in tesla.", "example": "3.0"},
        "b0_direction": {
            "type": "string",
            "description": "Direction of B0 in voxel axes; overrides the image's orientation.",
            "example": "0 0 1",
        },
        "method": {"type": "string", "enum": list(METHODS), "default": "qsm-vit"},
        "reference": {"type": "string", "enum": list(REFERENCES), "default": "mean"},
        "unwrapping": {"type": "string", "enum": list(UNWRAPPINGS), "default": "path"},
        "background": {"type": "string", "enum": list(BACKGROUNDS), "default": "pdf"},
        "phase_sign": {
            "type": "string",
            "enum": ["auto", "positive", "negative", "1", "-1"],
            "default": "auto",
            "description": "negative (-1) where the phase falls as the field rises.",
        },
        "wait": {"type": "string", "description": "Seconds to wait for the result.", "example": "60"},
    },
}


@router.post(
    "/reconstruct",
    operation_id="reconstruct",
    summary="Reconstruct a susceptibility map",
    response_model=JobView,
    status_code=202,
    responses={
        200: {"description": "The result: it was ready within `wait` seconds.", "content": RESULT_CONTENT},
        202: {
            "description": "The job was accepted.",
            "headers": {"Location": {"description": "Address of the job.", "schema": {"type": "string"}}},
        },
        **responses(400, 406, 408, 413, 415, 422, 429, 500, 503, 504, 507),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": _FORM,
                    "encoding": {"phase": {"contentType": "application/gzip, application/octet-stream"}},
                }
            },
        }
    },
)
async def reconstruct(request: Request, context: InContext, owner: Owner) -> Response:
    """Upload a scan; it is checked before it is accepted.

    The answer is 202 with the job, or, if the result is ready within `wait` seconds, 200 with the result as
    JSON (default), NIfTI (`Accept: application/gzip`) or PNG (`Accept: image/png`).
    """
    accept = request.headers.get("accept")
    if negotiate(accept, OFFERS) is None:
        raise not_acceptable()
    if not await context.jobs.has_room():
        raise QueueFullError
    settings = context.settings
    async with context.scratch.folder() as folder:
        try:
            received = await uploads.receive(
                request, folder, limit=settings.max_upload_bytes, stall=settings.upload_stall_s
            )
            parameters = parse(received.fields, max_wait=settings.max_wait_s)
            summary = await _check(context, received, parameters)
        except ProblemError as error:
            context.metrics.refusals.labels(error.problem.code).inc()
            raise
        job = Job(
            id=secrets.token_hex(16),
            owner=owner,
            state=State.QUEUED,
            parameters={**parameters.values, "limits": _limits(context)},
            uploads=tuple(
                Upload(file.role, file.name, f"uploads/{number}", file.size, file.sha256)
                for number, file in enumerate(received.files)
            ),
            summary=summary,
            request_id=request.state.request_id,
        )
        job = await context.jobs.submit(
            job, {upload.key: file.path for upload, file in zip(job.uploads, received.files, strict=True)}
        )
        context.metrics.uploads.inc(received.size)
    if parameters.wait:
        job = await context.jobs.wait(job.id, parameters.wait)
        if job.state.is_final:
            return await represent(context, job, accept)
    body = await view(context, job)
    return Response(
        body.model_dump_json(),
        status_code=202,
        media_type="application/json",
        headers={"Location": f"/api/v1/jobs/{job.id}", "Retry-After": "1"},
    )


async def _check(context: Context, received: uploads.Received, parameters: Parameters) -> dict[str, Any]:
    """Have the upload read and checked in a process of its own."""
    task = {
        "task": "validate",
        "sources": [{"role": f.role, "name": f.name, "path": str(f.path)} for f in received.files],
        "parameters": {**parameters.values, "limits": _limits(context)},
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
        raise ProblemError(
            Problem(
                code="out-of-memory",
                title="Not enough memory",
                status=507,
                detail="Reading the images needed more than this server has.",
                mend="Crop the scan to the head, or send fewer echoes.",
            )
        ) from error


def _limits(context: Context) -> dict[str, int]:
    return {"stored": context.settings.max_upload_bytes, "unpacked": context.settings.max_unpacked_mb << 20}


assert set(_FORM["properties"]) == {*FIELDS, *uploads.FILE_ROLES}  # noqa: S101 - documentation and parser agree
