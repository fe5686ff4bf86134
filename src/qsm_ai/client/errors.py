"""What the service refuses, and that it is away, as one exception."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx


class ServiceError(Exception):
    """The service did not do what was asked.

    Attributes
    ----------
    code : str
        Stable, for programs.
    detail : str
        What is wrong, in one sentence.
    mend : str
        What can be done.
    status : int or None
        HTTP status; ``None`` if there was no answer.
    file : str or None
        Name of the file concerned.
    retry_after : str or None
        When the service wants to be asked again, as its ``Retry-After`` says it: seconds, or a date.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        mend: str = "",
        status: int | None = None,
        file: str | None = None,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.code, self.detail, self.mend, self.status, self.file = code, detail, mend, status, file
        self.retry_after = retry_after

    @property
    def sentence(self) -> str:
        """What is wrong, as the exceptions of other parts call it."""
        return self.detail

    def __str__(self) -> str:
        where = f"{self.file}: " if self.file else ""
        return f"{where}{self.detail} {self.mend}".strip()


def from_answer(answer: httpx.Response) -> ServiceError:
    """What an unsuccessful answer says; its body must have been read."""
    try:
        document = answer.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        document = None
    retry_after = answer.headers.get("retry-after")
    if not isinstance(document, dict):
        return ServiceError(
            f"http-{answer.status_code}",
            f"The service answered with status {answer.status_code}.",
            "Check the address; a proxy may stand between.",
            answer.status_code,
            retry_after=retry_after,
        )
    return from_problem(document, answer.status_code, retry_after)


def from_problem(
    document: Mapping[str, Any], status: int | None, retry_after: str | None = None
) -> ServiceError:
    """A problem document (RFC 9457) as an exception."""
    return ServiceError(
        code=str(document.get("code") or f"http-{status}"),
        detail=str(document.get("detail") or document.get("title") or f"Status {status}."),
        mend=str(document.get("mend") or ""),
        status=status,
        file=document.get("file"),
        retry_after=retry_after,
    )


def no_address() -> ServiceError:
    """What was given as an address is none."""
    return ServiceError("no-address", "This is no address.", "Give it as https://host or http://host:port.")


def from_transport(error: httpx.HTTPError) -> ServiceError:
    """No answer came."""
    if isinstance(error, httpx.UnsupportedProtocol):
        return no_address()
    if isinstance(error, httpx.TimeoutException):
        return ServiceError(
            "timeout", "The service does not answer in time.", "Try again when it is less busy."
        )
    return ServiceError(
        "unreachable", "The service cannot be reached.", "Check the address, and whether it runs."
    )
