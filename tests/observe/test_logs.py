"""Logs say what happened and where, and withhold what may be a patient's."""

from __future__ import annotations

import io
import json
import logging
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from qsm_ai.api.middleware import level_of
from qsm_ai.observe import logs, users
from qsm_ai.observe.relay import Relay
from qsm_ai.ui import log as page_log


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the backend's logging writes; the test's own logging is put back afterwards."""
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    level = root.level
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    sink = io.StringIO()
    logs.configure("backend", "debug", sink)
    yield sink
    logging.captureWarnings(False)
    root.handlers, root.level = before, level
    structlog.reset_defaults()


def events(sink: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sink.getvalue().splitlines()]


def test_time_level_tier_and_event_come_first(written: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        structlog.get_logger("qsm_ai").warning("something.happened", count=3)
    (line,) = events(written)
    assert list(line)[:4] == ["time", "level", "tier", "event"]
    assert line["time"].endswith("Z")
    expected = {"level": "warning", "tier": "backend", "request_id": "r-1", "count": 3}
    assert {key: line[key] for key in expected} == expected


def test_an_error_tells_its_kind_and_place_but_not_its_message(written: io.StringIO) -> None:
    try:
        raise ValueError("Doe^Jane")
    except ValueError:
        structlog.get_logger("qsm_ai").exception("it.failed")
    (line,) = events(written)
    assert line["error"] == "ValueError"
    assert line["frames"][-1].startswith("test_logs.py:")
    assert "Doe" not in written.getvalue()


def test_of_a_librarys_message_only_what_its_author_wrote_is_kept(written: io.StringIO) -> None:
    library = logging.getLogger("somelibrary.io")
    library.error("cannot read %s", "sub-Doe_phase.nii.gz")
    library.error("cannot read sub-Doe_phase.nii.gz")
    library.error("%s", "sub-Doe")
    assert [line["event"] for line in events(written)] == [
        "cannot read %s", "library.message", "library.message",
    ]  # fmt: skip
    assert all(line["logger"] == "somelibrary.io" for line in events(written))
    assert "Doe" not in written.getvalue()


def test_the_web_servers_own_messages_are_kept(written: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").info("Uvicorn running on %s", "http://127.0.0.1:8000")
    (line,) = events(written)
    assert line["event"] == "Uvicorn running on http://127.0.0.1:8000"
    assert line["level"] == "info"


@pytest.mark.parametrize("module", ["qsm_ai.observe.logs", "qsm_ai.ui.log"])
def test_an_uncaught_error_is_one_line_too(module: str) -> None:
    first = '"backend", ' if module == "qsm_ai.observe.logs" else ""
    program = f"import {module} as m; m.configure({first}'info'); raise OSError('sub-Doe')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    (line,) = (json.loads(line) for line in ended.stdout.splitlines())
    assert (line["level"], line["event"], line["error"]) == ("critical", "process.error", "OSError")
    assert "Doe" not in ended.stdout + ended.stderr


def test_the_page_writes_the_same_form() -> None:
    sink = io.StringIO()
    handler = logging.StreamHandler(sink)
    handler.setFormatter(page_log.JsonFormatter())
    for name, message, arguments in (
        ("qsm_ai.ui", "call", ()),
        ("streamlit.runtime", "cannot draw %s", ("sub-Doe",)),
    ):
        logger = logging.getLogger(f"{name}.test")
        record = logger.makeRecord(logger.name, logging.ERROR, "f.py", 1, message, arguments, None)
        handler.emit(record)
    ours, theirs = events(sink)
    assert (ours["level"], ours["tier"], ours["event"]) == ("error", "frontend", "call")
    assert theirs["event"] == "cannot draw %s"
    assert list(ours)[:4] == ["time", "level", "tier", "event"]


def test_a_childs_events_pass_and_what_else_it_prints_does_not(written: io.StringIO) -> None:
    passed = io.StringIO()
    relay = Relay("compute", passed)
    own = {"time": "2026-11-23T05:32:00Z", "level": "info", "tier": "compute", "event": "x"}
    for line in (
        json.dumps(own),
        '{"PatientName": "Doe^Jane"}',
        "Found 3 DICOM files of Doe^Jane",
        "Traceback (most recent call last):",
        '  File "/home/Doe/qsm_ai/io/nifti.py", line 12, in read',
        "nibabel.filebasedimages.ImageFileError: Empty file: 'sub-Doe.nii.gz'",
    ):
        relay.take(line + "\n")
    relay.close()
    assert [json.loads(line) for line in passed.getvalue().splitlines()] == [own]
    crashed, withheld = events(written)
    assert crashed["event"] == "compute.crashed"
    assert crashed["error"] == "ImageFileError"
    assert crashed["frames"] == ["nifti.py:12 read"]
    assert withheld["event"] == "compute.output_withheld"
    assert withheld["lines"] == 3
    assert "Doe" not in written.getvalue()


def test_a_user_is_the_same_in_every_line_and_nobody_without_the_key(monkeypatch: Any) -> None:
    monkeypatch.setattr(users, "_key", b"one")
    tag = users.user_tag("jane@example.org")
    assert tag == users.user_tag("jane@example.org")
    assert tag != users.user_tag("john@example.org")
    monkeypatch.setattr(users, "_key", b"another")
    assert tag != users.user_tag("jane@example.org")


def test_the_key_is_drawn_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    key = users.kept_key(tmp_path / "key")
    assert len(key) >= 32
    assert users.kept_key(tmp_path / "key") == key
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("status", "path", "level"),
    [
        (200, "/api/v1/jobs", logging.INFO),
        (422, "/api/v1/reconstruct", logging.INFO),
        (429, "/api/v1/jobs", logging.WARNING),
        (503, "/api/v1/reconstruct", logging.WARNING),
        (500, "/api/v1/jobs", logging.ERROR),
        (504, "/api/v1/reconstruct", logging.ERROR),
        (200, "/healthz", logging.DEBUG),
    ],
)
def test_a_request_is_as_loud_as_it_is_grave(status: int, path: str, level: int) -> None:
    assert level_of(status, path) == level
