"""Around every drawing of a page and every call to the API: metrics, spans, and a line of the log."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, StatusCode

from qsm_ai.ui import metrics

log = logging.getLogger("qsm_ai.ui")

OPERATIONS = {
    "cancel": "cancel",
    "retry": "retry",
    "artefacts": "artefact",
    "statistics": "statistics",
    "slices": "slice",
    "events": "events",
    "result": "result",
}
"""What follows a job's id in an address."""

POLLS = ("job", "ready")

_JOB = re.compile(r"/api/v1/jobs/[^/]+(?:/(\w+))?")


@contextmanager
def drawing(page: str) -> Iterator[None]:
    """Around one drawing of a page.

    Parameters
    ----------
    page : str
        One of a few names.
    """
    began = time.perf_counter()
    metrics.RUNS.labels(page).inc()
    # The message of an error may hold a file name: spans get none.
    with trace.get_tracer("qsm_ai.ui").start_as_current_span(
        f"page.{page}", record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield
        except Exception as error:
            # Streamlit runs a page anew by raising; that is no failure.
            if not _is_streamlits(error):
                metrics.ERRORS.labels(page).inc()
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(StatusCode.ERROR)
                log.exception("page.error", extra={"page": page})
            raise
        finally:
            metrics.DURATION.labels(page).observe(time.perf_counter() - began)


@dataclass
class Call:
    """A call to the backend under way.

    Attributes
    ----------
    headers : dict
        To be sent with it: its id, and the trace that it belongs to.
    status : int
        0 until an answer came.
    """

    headers: dict[str, str]
    status: int = 0


@contextmanager
def calling(method: str, path: str) -> Iterator[Call]:
    """Around one call to the backend: span, metrics, and a line of the log when it fails.

    Parameters
    ----------
    method : str
    path : str

    Yields
    ------
    Call
        Whose status is to be set.
    """
    operation = operation_of(method, path)
    call = Call({"X-Request-ID": secrets.token_hex(8)})
    began = time.perf_counter()
    with _span(operation) as span:
        propagate.inject(call.headers)
        try:
            yield call
        finally:
            seconds = time.perf_counter() - began
            outcome = f"{call.status // 100}xx" if call.status else "none"
            metrics.CALLS.labels(operation, outcome).inc()
            metrics.CALL_DURATION.labels(operation).observe(seconds, _exemplar())
            failed = call.status == 0 or call.status >= 500
            if call.status:
                span.set_attribute("http.response.status_code", call.status)
            if failed:
                span.set_status(StatusCode.ERROR)
            log.log(
                logging.ERROR if failed else logging.INFO if method == "POST" else logging.DEBUG,
                "call",
                extra={
                    "operation": operation,
                    "status": call.status,
                    "seconds": round(seconds, 4),
                    "request_id": call.headers["X-Request-ID"],
                },
            )


@contextmanager
def _span(operation: str) -> Iterator[trace.Span]:
    if operation in POLLS and not trace.get_current_span().get_span_context().is_valid:
        # Asked every second, without anybody doing anything: no trace of its own.
        yield trace.INVALID_SPAN
        return
    with trace.get_tracer("qsm_ai.ui").start_as_current_span(
        f"call.{operation}", kind=SpanKind.CLIENT, record_exception=False, set_status_on_exception=False
    ) as span:
        yield span


def operation_of(method: str, path: str) -> str:
    """A few words for all addresses of the API."""
    if path == "/readyz":
        return "ready"
    if path == "/api/v1/reconstruct":
        return "submit"
    if path.startswith("/api/v1/uploads"):
        return "upload"
    match = _JOB.match(path)
    if match is None:
        return "jobs" if path.startswith("/api/v1/jobs") else "other"
    if match[1] is None:
        return "delete" if method == "DELETE" else "job"
    return OPERATIONS.get(match[1], "other")


def _exemplar() -> dict[str, str] | None:
    context = trace.get_current_span().get_span_context()
    sampled = context.is_valid and context.trace_flags.sampled
    return {"trace_id": trace.format_trace_id(context.trace_id)} if sampled else None


def _is_streamlits(error: BaseException) -> bool:
    return type(error).__module__.startswith("streamlit.")
