"""One line of JSON per event on standard output, in the form of the other tiers, without a patient.

The frontend holds nothing of the backend's code, so this says over again what ``observe/logs.py`` says there.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import uvicorn.config
from opentelemetry import trace

TIER = "frontend"
OURS = "qsm_ai"
TRUSTED = (OURS, "uvicorn", "streamlit.web", "opentelemetry.sdk", "opentelemetry.exporter")
"""Loggers whose sentences hold addresses and counts, never what a visitor brought."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """A record as one line: what ``extra`` holds are its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, tier and event, then what joins the line to others."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "tier": TIER,
            "event": _event(record),
        }
        if not record.name.startswith(OURS):
            line["logger"] = record.name
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line.setdefault("trace_id", trace.format_trace_id(context.trace_id))
            line.setdefault("span_id", trace.format_span_id(context.span_id))
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            # Its message may hold a file name or a header's text.
            line["error"] = type(error).__name__
            frames = traceback.extract_tb(error.__traceback__)[-12:]
            line["frames"] = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames]
        return json.dumps(line, default=lambda value: type(value).__name__)


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Set up logging for the whole process; call it before Streamlit starts.

    Parameters
    ----------
    level : str
        Least level that is written.
    stream : text stream
        Standard output when None.
    """
    sink = stream or sys.stdout
    handler: logging.Handler = logging.StreamHandler(sink)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(OURS).setLevel(level.upper())
    logging.captureWarnings(True)
    _take_streamlits_loggers()
    # Uvicorn would set up its loggers from this when Streamlit starts it.
    uvicorn.config.LOGGING_CONFIG.clear()
    formatters: dict[str, dict[str, Any]] = {"default": {}, "access": {}}
    uvicorn.config.LOGGING_CONFIG.update(version=1, disable_existing_loggers=False, formatters=formatters)
    if stream is None:
        sys.stdout, sys.stderr = Printed("stdout"), Printed("stderr")

    def uncaught(kind: Any, error: Any, tb: Any) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            logging.getLogger(OURS).critical("process.error", exc_info=(kind, error, tb))

    def uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None:
            logging.getLogger(OURS).error("thread.error", exc_info=arguments.exc_value)

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread


class Printed(io.TextIOBase):
    """In place of standard output: what is printed past the log is told, but not what it says.

    Parameters
    ----------
    name : str
        Of the stream.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Say that something was printed."""
        if text.strip():
            logging.getLogger(OURS).debug("library.output", extra={"stream": self._name, "size": len(text)})
        return len(text)


def _take_streamlits_loggers() -> None:
    """Streamlit gives each of its loggers a handler of its own and keeps it from the root; undo both."""
    from streamlit import logger as streamlit_logger

    def setup_formatter(logger: logging.Logger) -> None:
        logger.handlers.clear()
        logger.propagate = True

    # Called for every logger that Streamlit makes, and again whenever its settings change.
    streamlit_logger.setup_formatter = setup_formatter
    streamlit_logger.update_formatter()


def _event(record: logging.LogRecord) -> str:
    if record.name.startswith(TRUSTED):
        return record.getMessage()
    # The template of a message is code; what was put into it is not, and of a finished text nobody can tell.
    template = record.msg if isinstance(record.msg, str) and record.args else ""
    return template if template.strip("% s") else "library.message"
