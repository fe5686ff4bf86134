"""Errors as RFC 9457 problem documents, each with a code for programs and a mend for people."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from qsm_ai.api.upload_records import NoRoomForUploadError, UploadNotFoundError
from qsm_ai.jobs.errors import (
    IdempotencyConflictError,
    JobNotFoundError,
    QueueFullError,
    TooLargeForWorkersError,
    UploadGoneError,
    WrongStateError,
)
from qsm_ai.jobs.problem import Problem, too_large_for_workers

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 15
"""Seconds, where something is full or down."""


class ProblemDocument(BaseModel):
    """What is wrong, and how to mend it (RFC 9457)."""

    type: str = Field(description="URN of the kind of problem.", examples=["urn:qsm-ai:problem:echo-times"])
    title: str = Field(description="The kind of problem.", examples=["Input refused: echo times"])
    status: int = Field(description="HTTP status.", examples=[422])
    detail: str = Field(description="What is wrong this time.", examples=["3 echo times for 4 echoes."])
    code: str = Field(description="Stable short name, for programs.", examples=["echo-times"])
    mend: str = Field(description="What can be done.", examples=["Give one echo time per echo with te_ms."])
    file: str | None = Field(None, description="Name of the file concerned.")
    job: str | None = Field(None, description="Id of the job concerned.")
    request_id: str | None = Field(None, description="For whoever reads the logs.")


class ProblemError(Exception):
    """Raised anywhere in a request to answer with a problem."""

    def __init__(
        self, problem: Problem, *, job: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(problem.code)
        self.problem = problem
        self.job = job
        self.headers = headers or {}


def problem_document(problem: Problem, *, job: str | None = None) -> dict[str, Any]:
    """A problem as it goes over the wire."""
    document = {"type": f"urn:qsm-ai:problem:{problem.code}", **problem.to_dict()}
    if job is not None:
        document["job"] = job
    if request_id := structlog.contextvars.get_contextvars().get("request_id"):
        document["request_id"] = request_id
    return document


class ProblemResponse(JSONResponse):
    """A problem document; leaves its code where log and metrics find it."""

    media_type = MEDIA_TYPE
    code = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        scope.setdefault("state", {})["problem"] = self.code
        await super().__call__(scope, receive, send)


def problem_response(
    problem: Problem, *, job: str | None = None, headers: dict[str, str] | None = None
) -> ProblemResponse:
    """A problem as a response."""
    response = ProblemResponse(
        problem_document(problem, job=job), status_code=problem.status, headers=headers
    )
    response.code = problem.code
    return response


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the problems that a route answers with."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in statuses
    }


NOT_FOUND = Problem(
    code="not-found",
    title="Not found",
    status=404,
    detail="There is nothing here.",
    mend="Check the address; a deleted job and its results are gone for good.",
)

NO_ROOM = Problem(
    code="too-many-uploads",
    title="Too much is waiting to become a job",
    status=429,
    detail="You have announced as many bytes as may wait.",
    mend="Make jobs of the uploads, delete some, or try again after the time in Retry-After.",
)

BODY_TOO_LARGE = Problem(
    code="too-large",
    title="The request is too large",
    status=413,
    detail="The body of this request is larger than 1 MiB.",
    mend="Send files to /api/v1/reconstruct or /api/v1/uploads; everything else is small.",
)

QUEUE_FULL = Problem(
    code="queue-full",
    title="The queue is full",
    status=503,
    detail="As many jobs wait as may wait.",
    mend="Send the request again after the time in Retry-After.",
)


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""

    @app.exception_handler(ProblemError)
    async def _problem(_request: Request, error: ProblemError) -> JSONResponse:
        return problem_response(error.problem, job=error.job, headers=error.headers)

    @app.exception_handler(JobNotFoundError)
    async def _no_job(_request: Request, _error: JobNotFoundError) -> JSONResponse:
        return problem_response(NOT_FOUND)

    @app.exception_handler(UploadNotFoundError)
    async def _no_upload(_request: Request, _error: UploadNotFoundError) -> JSONResponse:
        return problem_response(NOT_FOUND)

    @app.exception_handler(UploadGoneError)
    async def _gone(_request: Request, error: UploadGoneError) -> JSONResponse:
        return problem_response(
            Problem(
                code="unknown-upload",
                title="There is no such upload",
                status=422,
                detail=f"The upload {error.upload_id} does not exist, is used already, or has expired.",
                mend="Announce and send the file again.",
            )
        )

    @app.exception_handler(NoRoomForUploadError)
    async def _no_room(_request: Request, _error: NoRoomForUploadError) -> JSONResponse:
        return problem_response(NO_ROOM, headers={"Retry-After": str(RETRY_AFTER)})

    @app.exception_handler(QueueFullError)
    async def _full(_request: Request, _error: QueueFullError) -> JSONResponse:
        return problem_response(QUEUE_FULL, headers={"Retry-After": str(RETRY_AFTER)})

    @app.exception_handler(WrongStateError)
    async def _state(_request: Request, error: WrongStateError) -> JSONResponse:
        return problem_response(
            Problem(
                code="wrong-state",
                title="Not possible in this state",
                status=409,
                detail=f"The job is {error.state.value}.",
                mend="Look at the job's state first.",
            )
        )

    @app.exception_handler(IdempotencyConflictError)
    async def _conflict(_request: Request, error: IdempotencyConflictError) -> JSONResponse:
        return problem_response(
            Problem(
                code="idempotency-conflict",
                title="The key is taken",
                status=422,
                detail="This Idempotency-Key came before with another scan or other parameters.",
                mend="Use a new key for a new request.",
            ),
            job=error.job_id,
        )

    @app.exception_handler(TooLargeForWorkersError)
    async def _no_worker(_request: Request, error: TooLargeForWorkersError) -> JSONResponse:
        return problem_response(too_large_for_workers(error.needed_mb, error.largest_mb))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        whole_body = any(tuple(e["loc"]) == ("body",) for e in error.errors())
        if whole_body and kind and kind != "application/json" and not kind.endswith("+json"):
            return problem_response(
                Problem(
                    code="media-type",
                    title="Another media type is expected",
                    status=415,
                    detail="The body of this request is a JSON document.",
                    mend="Send it with Content-Type: application/json.",
                )
            )
        # Name the parameter and the rule, never the value.
        found = [(".".join(str(part) for part in e["loc"][1:]), e["msg"]) for e in error.errors()]
        return problem_response(
            Problem(
                code="invalid-parameter",
                title="A parameter is not valid",
                status=422,
                detail="; ".join(f"{name}: {message}" for name, message in found)[:500],
                mend="Correct the parameter; /docs lists what each takes.",
            )
        )

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == HTTPStatus.NOT_FOUND:
            return problem_response(NOT_FOUND)
        if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return problem_response(BODY_TOO_LARGE, headers={"Connection": "close"})
        phrase = HTTPStatus(error.status_code).phrase
        return problem_response(
            Problem(
                code=phrase.lower().replace(" ", "-"),
                title=phrase,
                status=error.status_code,
                detail=f"The request was answered with {error.status_code} {phrase}.",
                mend="See /docs for how to call this service.",
            ),
            headers=dict(error.headers) if error.headers else None,
        )
