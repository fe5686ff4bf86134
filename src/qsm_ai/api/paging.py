"""Where a page of jobs ends and the next one begins."""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import urlencode

from qsm_ai.api.parameters import invalid
from qsm_ai.api.problems import ProblemError
from qsm_ai.jobs.records import Job


def cursor_behind(job: Job) -> str:
    """A word that stands for the place behind a job; clients hand it back and read nothing in it."""
    return base64.urlsafe_b64encode(f"{job.created_at!r} {job.id}".encode()).decode().rstrip("=")


def place_of(cursor: str) -> tuple[float, str]:
    """When the last job seen was made, and its id.

    Raises
    ------
    ProblemError
        422, if it is no cursor of ours.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        moment, job_id = text.split(" ")
        return float(moment), job_id
    except (ValueError, binascii.Error):
        raise ProblemError(
            invalid("The cursor is not one of this service.", "Take it from `next` of the page before.")
        ) from None


def address(path: str, **query: Any) -> str:
    """An address with those parameters that have a value."""
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def link_header(first: str, following: str | None) -> str:
    """``Link`` (RFC 8288) to the first and the next page."""
    links = [f'<{first}>; rel="first"']
    if following is not None:
        links.append(f'<{following}>; rel="next"')
    return ", ".join(links)
