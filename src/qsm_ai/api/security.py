"""At the door of every request: who is asking, and whether they ask too much.

Closed by default: what is not in ``OPEN`` needs a known user, whatever routes there are or come to be, and
before a byte of a body is read.
"""

from __future__ import annotations

import ipaddress
import math
from typing import Any, cast
from urllib.parse import urlsplit

import structlog
from fastapi import FastAPI, Request, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from qsm_ai.access.denial import AccessDenied
from qsm_ai.access.identity import Way
from qsm_ai.access.limits import LimitReached, too_many_jobs
from qsm_ai.access.oidc import is_loopback
from qsm_ai.api.context import Context
from qsm_ai.api.problems import problem_response, responses
from qsm_ai.api.uploads import HANG_UP, drain
from qsm_ai.jobs.errors import OwnerLimitError, OwnerStorageError
from qsm_ai.jobs.problem import Problem

log = structlog.get_logger("qsm_ai.access")

OPEN = frozenset(
    {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
)
"""For probes, for Prometheus on the private network, and for reading how to call: nobody's data."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
TITLES = {
    401: "Not signed in",
    403: "Not allowed",
    429: "Too much at once",
    503: "Cannot be checked now",
}
_DRAIN_BYTES, _DRAIN_SECONDS = 4 << 20, 1.0


class SecurityMiddleware:
    """Plain ASGI, so that streams pass through untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # There are no websockets here; were there any, they would have to be let in like requests.
            await send({"type": "websocket.close", "code": 1008})
            return
        context: Context = cast(FastAPI, scope["app"]).state.context
        headers = Headers(scope=scope)
        try:
            if scope["path"] not in OPEN:
                _require_own_page(context, scope, headers)
                identity = await context.gate.admit(headers.get("authorization"))
                scope.setdefault("state", {})["identity"] = identity
                if identity.way is not Way.NONE:
                    structlog.contextvars.bind_contextvars(user=identity.alias)
                    await context.rate_limit.hit(identity.owner)
        except AccessDenied as denial:
            context.metrics.denials.labels(denial.code).inc()
            await drain(Request(scope, receive), _DRAIN_BYTES, _DRAIN_SECONDS)
            await denied(denial, had_credentials="authorization" in headers)(scope, receive, send)
        except LimitReached as limit:
            context.metrics.denials.labels(limit.code).inc()
            await drain(Request(scope, receive), _DRAIN_BYTES, _DRAIN_SECONDS)
            await limited(limit)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def install(app: FastAPI) -> None:
    """Put the door before everything else, and answer those whom a route turns away as the door does."""
    app.add_middleware(SecurityMiddleware)

    @app.exception_handler(AccessDenied)
    async def _denied(_request: Request, denial: AccessDenied) -> Response:
        return denied(denial)

    @app.exception_handler(OwnerLimitError)
    async def _too_many_jobs(_request: Request, error: OwnerLimitError) -> Response:
        return limited(too_many_jobs(error.limit))

    @app.exception_handler(OwnerStorageError)
    async def _too_much(request: Request, _error: OwnerStorageError) -> Response:
        context: Context = cast(FastAPI, request.app).state.context
        return limited(context.quotas.full())

    @app.exception_handler(LimitReached)
    async def _limited(_request: Request, limit: LimitReached) -> Response:
        return limited(limit)


def document(openapi: dict[str, Any]) -> None:
    """Say in the OpenAPI document what the door asks for and how it refuses.

    Parameters
    ----------
    openapi : dict
        Changed in place.
    """
    openapi.setdefault("components", {})["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key (`qsm-ai keys create`) or a token of the identity provider. "
            "Not needed where the service runs for one user on their own machine.",
        }
    }
    for path, operations in openapi["paths"].items():
        for operation in operations.values() if path not in OPEN else ():
            operation["security"] = [{"bearer": []}]
            for status, entry in responses(401, 403, 429, 503).items():
                operation["responses"].setdefault(str(status), entry)


def denied(denial: AccessDenied, *, had_credentials: bool = True) -> Response:
    """The answer to somebody who is not let in.

    Parameters
    ----------
    denial : AccessDenied
    had_credentials : bool
        Whether a key or token came, which then was not good (RFC 6750, section 3.1).

    Returns
    -------
    Response
    """
    headers = dict(HANG_UP)
    if denial.status == 401:
        error = ', error="invalid_token"' if had_credentials else ""
        headers["WWW-Authenticate"] = f'Bearer realm="QSM-AI"{error}'
    if denial.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(denial.retry_after))
    problem = Problem(denial.code, TITLES[denial.status], denial.status, denial.sentence, denial.mend)
    return problem_response(problem, headers=headers)


def limited(limit: LimitReached) -> Response:
    """The answer to somebody who asks too much."""
    problem = Problem(limit.code, TITLES[429], 429, limit.sentence, limit.mend)
    return problem_response(problem, headers={"Retry-After": str(limit.retry_after), **HANG_UP})


def _require_own_page(context: Context, scope: Scope, headers: Headers) -> None:
    """Keep web pages of others out where a browser needs to prove nothing.

    Where there is no access control, a page anywhere in the world could have a visitor's browser talk to this
    machine: by a name that resolves to 127.0.0.1, or by sending a form. The latter holds behind a proxy that
    knows its people by cookies, too. Where a key or token is needed, no browser sends one by itself.
    """
    settings = context.settings
    if not context.gate.is_open:
        return
    if not settings.access:
        if not settings.published_at and not _is_local_socket(scope):
            raise _from_elsewhere("Without access control this service answers on this machine only.")
        host = _parts(f"//{headers.get('host', '')}")[0]
        if not is_loopback(host) and ("." in host or ":" in host):
            raise _from_elsewhere("Without access control this service answers to its own name only.")
    origin = headers.get("origin")
    if origin is None or scope["method"] in SAFE:
        return
    if origin.rstrip("/") not in settings.cors_origins and _parts(origin)[1] != headers.get("host"):
        raise _from_elsewhere("The page that sends this is not one of those that may.")


def _parts(address: str) -> tuple[str, str]:
    """Host without and with its port; what cannot be read is nobody's name."""
    try:
        parts = urlsplit(address)
        return parts.hostname or "", parts.netloc
    except ValueError:
        return "unreadable.invalid", ""


def _is_local_socket(scope: Scope) -> bool:
    """Whether the connection came to an address that other machines do not reach."""
    host = (scope.get("server") or ("",))[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # Not a network socket.
        return True


def _from_elsewhere(sentence: str) -> AccessDenied:
    return AccessDenied(
        "from-elsewhere",
        403,
        sentence,
        "Open it on the machine on which it runs, or have access control set up (QSM_ACCESS).",
    )


__all__ = ["OPEN", "SecurityMiddleware", "document", "install"]
