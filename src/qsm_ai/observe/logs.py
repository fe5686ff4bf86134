"""One line of JSON per event on standard output, with the ids that join it to others, without a patient.

Levels, alike in every tier: ``debug`` is for finding defects (probes are logged there), ``info`` tells what
happened, ``warning`` what was refused or healed by itself, ``error`` that somebody did not get what they
asked for and it was not their doing, ``critical`` that the process cannot go on.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, WrappedLogger

from qsm_ai.observe.frames import frames_of

TRUSTED = ("qsm_ai", "uvicorn", "opentelemetry.sdk", "opentelemetry.exporter")
"""Loggers whose sentences hold addresses and counts, never what a user sent."""

FIRST = ("time", "level", "tier", "event")


def configure(tier: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Set up logging for the whole process; libraries' own loggers and uncaught errors join in.

    Parameters
    ----------
    tier : str
        Which process this is: ``backend``, ``worker``, ``compute``.
    level : str
        Least level that is written.
    stream : text stream
        Standard output when None.
    """
    sink = stream or sys.stdout
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _say_tier(tier),
        add_trace,
        frames_without_message,
    ]
    last: list[Any] = [
        in_order,
        structlog.processors.JSONRenderer(default=lambda value: type(value).__name__),
    ]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sink),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sink)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[withhold, *shared],
            pass_foreign_args=True,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).setLevel(level.upper())
        logging.getLogger(name).propagate = True
    # Ours says the same with a request id, and with the route in place of the path.
    logging.getLogger("uvicorn.access").handlers = []
    logging.getLogger("uvicorn.access").propagate = False
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def withhold(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep of a library's message only what its author wrote: values may be a file name or a header.

    The template of a message is code; what was put into it is not, and of a finished text nobody can tell.
    """
    record, arguments = event.get("_record"), event.pop("positional_args", None)
    if isinstance(record, logging.LogRecord):
        event["logger"] = record.name
        if not record.name.startswith(TRUSTED):
            template = record.msg if isinstance(record.msg, str) and arguments else ""
            event["event"] = template if template.strip("% s") else "library.message"
            event["at"] = f"{record.filename}:{record.lineno}"
    return event


def add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Name the trace and the span in which an event happened."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event.setdefault("trace_id", trace.format_trace_id(context.trace_id))
        event.setdefault("span_id", trace.format_span_id(context.span_id))
    return event


def frames_without_message(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Say where an error happened; its message may hold a file name or a header's text."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["frames"] = frames_of(error)
    return event


def in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Time, level, tier and event first: lines are read by people too."""
    return {name: event[name] for name in FIRST if name in event} | dict(event)


def _say_tier(tier: str) -> Callable[[WrappedLogger, str, EventDict], EventDict]:
    def say(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("tier", tier)
        return event

    return say


def _uncaught(kind: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger("qsm_ai").critical("process.error", exc_info=(kind, error, tb))


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    error = arguments.exc_value
    if error is not None:
        structlog.get_logger("qsm_ai").error("thread.error", exc_info=(type(error), error, None))
