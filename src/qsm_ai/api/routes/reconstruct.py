"""Sending a scan."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request, Response

from qsm_ai.access.limits import LimitReached
from qsm_ai.api import uploads
from qsm_ai.api.context import InContext, Owner
from qsm_ai.api.parameters import FIELDS, PRIORITIES
from qsm_ai.api.problems import responses
from qsm_ai.api.quota import place_for_job
from qsm_ai.api.representations import RESULT_CONTENT
from qsm_ai.api.schemas import JobView
from qsm_ai.api.submission import IdempotencyKey, admit, answer, counted, submit
from qsm_ai.reconstruction.options import BACKGROUNDS, METHODS, REFERENCES, UNWRAPPINGS, Options

router = APIRouter(prefix="/api/v1", tags=["reconstruct"])

_FILE = {"type": "string", "format": "binary"}
_FILES = {"type": "array", "items": _FILE}
_FORM: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "phase": {**_FILES, "description": "Wrapped phase: one 4D NIfTI, or one 3D NIfTI per echo."},
        "magnitude": {
            **_FILES,
            "description": "Magnitude on the same grid, as the phase; also beside a field.",
        },
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
        "method": {"type": "string", "enum": list(METHODS), "default": Options.method},
        "reference": {"type": "string", "enum": list(REFERENCES), "default": Options.reference},
        "unwrapping": {"type": "string", "enum": list(UNWRAPPINGS), "default": Options.unwrapping},
        "background": {"type": "string", "enum": list(BACKGROUNDS), "default": Options.background},
        "phase_sign": {
            "type": "string",
            "enum": ["auto", "positive", "negative", "1", "-1"],
            "default": "auto",
            "description": "negative (-1) where the phase falls as the field rises.",
        },
        "priority": {
            "type": "string",
            "enum": list(PRIORITIES),
            "default": "normal",
            "description": "Before or after other jobs, whoever they belong to; high is for administrators.",
        },
        "deadline": {
            "type": "string",
            "description": "Seconds from now after which the job is given up.",
            "example": "3600",
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
        **responses(400, 406, 408, 413, 415, 422, 429, 500, 502, 503, 504, 507),
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
async def reconstruct(
    request: Request, context: InContext, owner: Owner, idempotency_key: IdempotencyKey = None
) -> Response:
    """Upload a scan; it is checked before it is accepted.

    The answer is 202 with the job, or, if the result is ready within `wait` seconds, 200 with the result as
    JSON (default), NIfTI (`Accept: application/gzip`) or PNG (`Accept: image/png`).
    """
    earlier = await admit(context, request, owner, idempotency_key)
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdigit() else 0
    async with AsyncExitStack() as held:
        try:
            largest = await held.enter_async_context(place_for_job(context, owner, earlier, size=size))
        except LimitReached:
            await uploads.drain(request)
            raise
        folder = await held.enter_async_context(context.scratch.folder())
        received = await counted(
            context,
            uploads.receive(
                request,
                folder,
                limit=largest,
                stall=context.settings.upload_stall_s,
            ),
        )
        job, wait = await submit(context, request, owner, received.files, received.fields, idempotency_key)
    return await answer(context, request, job, wait)


assert set(_FORM["properties"]) == {*FIELDS, *uploads.FILE_ROLES}  # noqa: S101 - documentation and parser agree
