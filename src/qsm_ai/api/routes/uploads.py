"""Files before their job: announced, sent straight to the object store or in parts through here."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request, Response

from qsm_ai.api.context import Context, InContext, Owner
from qsm_ai.api.parameters import invalid
from qsm_ai.api.problems import ProblemError, responses
from qsm_ai.api.schemas import UploadList, UploadRequest, UploadTarget, UploadView, moment
from qsm_ai.api.upload_records import PendingUpload

router = APIRouter(prefix="/api/v1/uploads", tags=["uploads"])

UploadId = Annotated[
    str, Path(pattern="^[0-9a-f]{32}$", description="Id of the upload.", examples=["0" * 32])
]
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


async def _view(context: Context, upload: PendingUpload) -> UploadView:
    content = f"/api/v1/uploads/{upload.id}/content"
    present = await context.pending.present(upload)
    signed = await context.pending.presigner.sign("PUT", upload.direct_key) if not upload.received else None
    lifetime = context.pending.presigner.lifetime
    ends = upload.expires_at
    if signed is not None:
        ends = min(ends, await asyncio.to_thread(context.store.now) + lifetime)
    return UploadView(
        id=upload.id,
        name=upload.name,
        size=upload.size,
        received=present,
        complete=present == upload.size,
        sha256=upload.digest,
        created_at=moment(upload.created_at),
        expires_at=moment(upload.expires_at),
        target=UploadTarget(href=signed or content, direct=signed is not None, expires_at=moment(ends)),
        content=content,
    )


@router.post(
    "",
    operation_id="announce_upload",
    summary="Announce a file",
    status_code=201,
    responses={
        201: {
            "description": "There is a place for it.",
            "headers": {"Location": {"description": "Address of the upload.", "schema": {"type": "string"}}},
        },
        **responses(400, 413, 422, 429),
    },
)
async def announce_upload(
    wanted: UploadRequest, context: InContext, owner: Owner, response: Response
) -> UploadView:
    """Ask for a place for one file, send it to `target` with PUT, then name it in `POST /api/v1/jobs`.

    Where the object store takes files itself, `target` lies there, and neither the size of a request nor its
    time is limited by what stands in front of this service. Otherwise, or where the store cannot be reached,
    `content` takes the file, whole or in parts.
    """
    most = context.quotas.stored or None
    upload = await context.pending.announce(owner, wanted.name, wanted.size, wanted.sha256, most)
    response.headers["Location"] = f"/api/v1/uploads/{upload.id}"
    return await _view(context, upload)


@router.get("", operation_id="list_uploads", summary="List uploads")
async def list_uploads(context: InContext, owner: Owner) -> UploadList:
    """Your files that are no job yet, newest first."""
    found = await context.pending.of(owner)
    return UploadList(uploads=list(await asyncio.gather(*(_view(context, upload) for upload in found))))


@router.get(
    "/{upload_id}", operation_id="show_upload", summary="Show an upload", responses=responses(404, 422)
)
async def show_upload(upload_id: UploadId, context: InContext, owner: Owner) -> UploadView:
    """How much of it is there, and where the rest goes."""
    return await _view(context, await context.pending.get(upload_id, owner))


@router.put(
    "/{upload_id}/content",
    operation_id="send_upload",
    summary="Send a file",
    openapi_extra=_BODY,
    responses=responses(404, 408, 409, 413, 422),
)
async def send_upload(
    upload_id: UploadId,
    request: Request,
    context: InContext,
    owner: Owner,
    content_range: Annotated[str | None, Header(max_length=80, examples=["bytes 0-1048575/41943040"])] = None,
) -> UploadView:
    """The whole file, or with `Content-Range` the part that follows what is there.

    After a broken connection, ask for the upload: `received` says where to go on. A file without
    `Content-Range` replaces what is there.
    """
    upload = await context.pending.get(upload_id, owner)
    start = None if content_range is None else _start(content_range, upload, request)
    return await _view(context, await context.pending.receive(request, upload, start))


@router.delete(
    "/{upload_id}",
    operation_id="delete_upload",
    summary="Delete an upload",
    status_code=204,
    responses=responses(404, 422),
)
async def delete_upload(upload_id: UploadId, context: InContext, owner: Owner) -> None:
    """Delete a file that has become no job."""
    await context.pending.remove(await context.pending.get(upload_id, owner))


def _start(header: str, upload: PendingUpload, request: Request) -> int:
    match = _CONTENT_RANGE.fullmatch(header)
    declared = request.headers.get("content-length", "")
    if (
        match is None
        or int(match[2]) < int(match[1])
        or (match[3] != "*" and int(match[3]) != upload.size)
        or (declared.isdigit() and int(declared) != int(match[2]) - int(match[1]) + 1)
    ):
        raise ProblemError(
            invalid(
                "Content-Range does not fit the file or the body.",
                f"Send 'bytes <first>-<last>/{upload.size}', counting from 0, with exactly those bytes.",
            )
        )
    return int(match[1])
