"""While the database or the object store is away: a problem that says to come again, no defect of ours."""

from __future__ import annotations

import structlog
from obstore.exceptions import BaseError as StoreError
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qsm_ai.api.problems import RETRY_AFTER, problem_response
from qsm_ai.api.uploads import HANG_UP, drain
from qsm_ai.jobs.problem import Problem

log = structlog.get_logger("qsm_ai.request")

DATABASE_ERRORS = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)
"""How a database fails that is away, full, overtaxed or only to be read just now; the rest is our defect."""

DATABASE_DOWN = Problem(
    code="database-down",
    title="Not possible just now",
    status=503,
    detail="The database does not answer.",
    mend="Send the request again after the time in Retry-After; what was recorded is safe.",
)

STORAGE_DOWN = Problem(
    code="storage-down",
    title="Not possible just now",
    status=503,
    detail="The object store does not do what is asked of it.",
    mend="Send the request again after the time in Retry-After; what was stored is safe.",
)


class AwayMiddleware:
    """Plain ASGI, around the door too: it asks the database for keys.

    An answer that has begun can only be broken off.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_read = has_begun = False

        async def listen() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = not message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, listen, answer)
        except (*DATABASE_ERRORS, StoreError) as error:
            if has_begun:
                raise
            problem = STORAGE_DOWN if isinstance(error, StoreError) else DATABASE_DOWN
            log.warning("request.away", problem=problem.code, error=type(error).__name__)
            headers = {"Retry-After": str(RETRY_AFTER)}
            if not is_read:
                await drain(Request(scope, receive))
                headers |= HANG_UP
            await problem_response(problem, headers=headers)(scope, receive, send)
