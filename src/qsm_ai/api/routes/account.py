"""Who one is here, and what one takes up."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from qsm_ai.access.identity import Role, Way
from qsm_ai.api.context import InContext, Visitor
from qsm_ai.api.problems import responses
from qsm_ai.api.quota import usage
from qsm_ai.api.schemas import moment

router = APIRouter(prefix="/api/v1", tags=["account"])


class AccountView(BaseModel):
    """The user who asks."""

    alias: str = Field(description="How administrators and logs name this user.", examples=["0f343b0931cd"])
    role: Role
    way: Way = Field(description="How the user came in: by a key, a token, or without either.")
    expires_at: datetime | None = Field(description="When the key or token ends.")
    jobs: int = Field(description="Queued or running.")
    max_jobs: int | None = Field(description="As many may be; null for any number.")
    stored: int = Field(description="Bytes of uploads and results.")
    max_stored: int | None = Field(description="As many bytes may be; null for any number.")


@router.get("/me", operation_id="show_account", summary="Who am I?", responses=responses(401))
async def show_account(context: InContext, visitor: Visitor) -> AccountView:
    """Whether a key or token is good, whom it lets in, until when, and what is left of the quotas."""
    taken = await usage(context, visitor.owner)
    return AccountView(
        alias=visitor.alias,
        role=visitor.role,
        way=visitor.way,
        expires_at=None if visitor.expires_at is None else moment(visitor.expires_at),
        jobs=taken.unfinished,
        max_jobs=context.quotas.jobs or None,
        stored=taken.stored_bytes,
        max_stored=context.quotas.stored or None,
    )
