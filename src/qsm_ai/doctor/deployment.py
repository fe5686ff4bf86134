"""The deployment as a user meets it: one HTTP connection, and words for what goes wrong with it."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from qsm_ai.scan import Refusal

NO_ADDRESS = "This is no address.", "Give it as https://host or http://host:port."


class Away(Exception):  # noqa: N818 - a sentence for people
    """No answer: why, and the mend."""

    def __init__(self, said: str, mend: str) -> None:
        super().__init__(said)
        self.said, self.mend = said, mend


@dataclass(frozen=True)
class Refused:
    """An answer that is no success, in its own words where it is a problem document."""

    status: int
    code: str
    detail: str
    mend: str


class Deployment:
    """A running service at an address.

    Parameters
    ----------
    url : str
    key : str
        API key or bearer token; empty for none.
    timeout : float
        Seconds for one answer.

    Raises
    ------
    Refusal
        When there can be no such address or key.
    """

    def __init__(self, url: str, *, key: str = "", timeout: float = 30.0) -> None:
        if not (key.isascii() and key.isprintable()):
            raise Refusal("The key holds characters that no key has.", mend="Copy it again.")
        given = url if "://" in url else f"http://{url}"
        try:
            parts = urlsplit(given)
            self.host = parts.hostname or ""
            self.encrypted = parts.scheme == "https"
            self.port = parts.port or (443 if self.encrypted else 80)
        except ValueError:
            said, mend = NO_ADDRESS
            raise Refusal(said, mend=mend) from None
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=given.rstrip("/"), timeout=timeout, headers=headers)

    @property
    def is_local(self) -> bool:
        """Whether the address is this machine's own."""
        return self.host in {"127.0.0.1", "localhost", "::1"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One request.

        Parameters
        ----------
        method, path : str
        **arguments
            As for httpx.

        Returns
        -------
        Response
            Whatever its status.

        Raises
        ------
        Away
            When there is no answer.
        """
        try:
            return self._http.request(method, path, **arguments)
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
            raise _away(error) from error

    def resolve(self) -> None:
        """Look the name up.

        Raises
        ------
        Away
            When it has no address.
        """
        try:
            socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise Away(
                "The service's name has no address.", "Check the name, and whether its DNS record exists."
            ) from None

    def certificate_ends(self) -> float:
        """When the service's own certificate ends.

        Returns
        -------
        float
            Seconds since 1970.

        Raises
        ------
        Away
            When it is not trusted, has ended, or nobody answers.
        """
        context = httpx.create_ssl_context()
        try:
            with (
                socket.create_connection((self.host, self.port), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname=self.host) as secured,
            ):
                certificate = secured.getpeercert() or {}
        except (OSError, ssl.SSLError) as error:
            raise _away(error) from error
        return float(ssl.cert_time_to_seconds(str(certificate["notAfter"])))


def refused(answer: httpx.Response) -> Refused:
    """What an unsuccessful answer says.

    Parameters
    ----------
    answer : Response
    """
    try:
        told = answer.json()
    except ValueError:
        told = {}
    told = told if isinstance(told, dict) else {}
    return Refused(
        answer.status_code,
        str(told.get("code") or f"http-{answer.status_code}"),
        str(told.get("detail") or f"It answered with status {answer.status_code}."),
        str(told.get("mend") or "A proxy may stand between; look at its log."),
    )


def clock_ahead(answer: httpx.Response, before: float) -> float | None:
    """By how many seconds the service's clock is ahead of this one.

    Parameters
    ----------
    answer : Response
    before : float
        When it was asked for, seconds since 1970.

    Returns
    -------
    float or None
        To the nearest second, at best; ``None`` when the answer names no time.
    """
    try:
        told = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None
    after = time.time()
    # The header is cut to whole seconds, and the answer left at some time between.
    if before - 1.0 <= told <= after:
        return 0.0
    return told - after if told > after else told - (before - 1.0)


def _away(error: Exception) -> Away:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Away(
                f"The certificate is not trusted ({cause.verify_message}).",
                "Renew it, send the whole chain, or name your authority's file in SSL_CERT_FILE.",
            )
        if isinstance(cause, ssl.SSLError):
            return Away(
                "TLS cannot be agreed on.",
                "Check that the port speaks TLS, or use http:// for one that does not.",
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return Away("No answer came in time.", "Check firewall and load balancer; is the service overloaded?")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return Away(*NO_ADDRESS)
    return Away("Nothing answers at this address.", "Check the address, and whether the service runs.")
