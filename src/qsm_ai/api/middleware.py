"""Around every request: an id, security headers, a log line, a count, a problem for what nobody caught."""

from __future__ import annotations

import logging
import random
import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qsm_ai.api.metrics import Metrics
from qsm_ai.api.problems import problem_response
from qsm_ai.jobs.problem import Problem
from qsm_ai.observe.http import method_of

log = structlog.get_logger("qsm_ai.request")

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-site",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
CONTENT_SECURITY_POLICY = "default-src 'none'; frame-ancestors 'none'"
PAGES = ("/docs", "/redoc")
"""The interactive documentation needs scripts; everything else is data."""

QUIET = {"/healthz", "/readyz", "/metrics"}
UNCOUNTED = frozenset({*QUIET, *PAGES, "/docs/oauth2-redirect", "/openapi.json"})
"""What is asked by machines that look after the service, and by who reads how to call it."""

CLIENT_GONE = 499
"""As proxies count a request whose client went before it was answered."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")


class RequestMiddleware:
    """Plain ASGI, so that streams pass through untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        # Nobody is let in by it: it need not be secret, and asking the system for randomness takes a while.
        request_id = given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(64):016x}"
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        began = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if not scope["path"].startswith(PAGES):
                    headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            log.info("request.aborted")
        except Exception as error:  # the last place where a defect can still become an answer
            log.exception("request.error", error=type(error).__name__)
            if status == 0:
                defect = Problem(
                    code="internal",
                    title="The server made an error",
                    status=500,
                    detail=f"The request failed with an unexpected error ({type(error).__name__}).",
                    mend="Try again; if it fails again, report the request id to whoever runs this server.",
                )
                await problem_response(defect)(scope, receive, send_with_headers)
        finally:
            _tell(scope, status, time.perf_counter() - began)


def _tell(scope: Scope, status: int, seconds: float) -> None:
    """Count a request that was answered, and log it."""
    # The template, not the path: that may hold anything a client made up.
    route: str | None = getattr(scope.get("route"), "path", None)
    method, problem = method_of(scope["method"]), scope["state"].get("problem")
    if "app" in scope:
        metrics: Metrics = scope["app"].state.context.metrics
        if scope["path"] not in UNCOUNTED:
            metrics.request_done(method, route or "none", status or CLIENT_GONE, seconds)
        if problem is not None:
            metrics.problem_answered(problem, status)
    log.log(
        level_of(status, scope["path"]),
        "request",
        method=method,
        route=route or "unmatched",
        status=status,
        seconds=round(seconds, 4),
        **({"problem": problem} if problem else {}),
    )


def is_untraced(scope: Scope) -> bool:
    """Whether a request is none of a trace: probes, and what clients ask again and again by themselves."""
    return scope["path"] in QUIET or (
        scope.get("method") in ("GET", "HEAD") and "traceparent" not in Headers(scope=scope)
    )


def level_of(status: int, path: str) -> int:
    """How loud a request is logged: 5xx is our fault, being asked to come again is not yet one.

    Parameters
    ----------
    status : int
        0 when the client went before it was answered.
    path : str

    Returns
    -------
    int
        As ``logging`` has it.
    """
    if path in QUIET:
        return logging.DEBUG
    if status in (401, 403, 429, 503):
        return logging.WARNING
    return logging.ERROR if status >= 500 else logging.INFO
