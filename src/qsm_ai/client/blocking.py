"""The client that blocks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import httpx

from qsm_ai.client import operations
from qsm_ai.client.errors import ServiceError, no_address
from qsm_ai.client.exchange import (
    Listen,
    NextLine,
    Operation,
    Part,
    Pause,
    Save,
    Send,
    Tell,
    Wish,
    arguments,
    is_elsewhere,
    media_type,
    timeouts,
)
from qsm_ai.client.operations import Interrupted, PathLike
from qsm_ai.client.records import Job, State
from qsm_ai.client.retrying import Retrying

Result = TypeVar("Result")
KEY = "QSM_API_KEY"
PIECE = 1 << 18


def headers_for(api_key: str | None, headers: Mapping[str, str] | None) -> dict[str, str]:
    """Headers of every request: the key is taken from the environment where none is given.

    Raises
    ------
    ServiceError
        If the key cannot be sent.
    """
    given = dict(headers or {})
    # A file, and a secret made from one, ends with a line break.
    key = (os.environ.get(KEY, "") if api_key is None else api_key).strip()
    if not (key.isascii() and key.isprintable()):
        raise ServiceError("bad-key", "The key holds characters that no key has.", "Copy it again.")
    if key and "authorization" not in {name.lower() for name in given}:
        given["Authorization"] = f"Bearer {key}"
    return given


def address_of(url: str) -> httpx.URL:
    """The address as it is spoken to.

    Raises
    ------
    ServiceError
        If it is none.
    """
    try:
        return httpx.URL(url.rstrip("/"))
    except httpx.InvalidURL:
        raise no_address() from None


class Client:
    """The service at one address. Every method raises ``ServiceError`` where the service refuses or is away.

    A service that is busy (429, 503) is asked again after the time it names; so is one whose connection
    broke, where doing a thing twice does no harm.

    Parameters
    ----------
    url : str
        Without ``/api/v1``.
    api_key : str or None
        API key or bearer token; ``QSM_API_KEY`` when left out, an empty one sends none.
    timeout : s
        For one answer; uploads and waiting have their own.
    headers : mapping
        Sent with every request.
    retrying : Retrying
        How patient it is.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        headers: Mapping[str, str] | None = None,
        retrying: Retrying | None = None,
    ) -> None:
        self._http = httpx.Client(
            base_url=address_of(url), timeout=timeouts(timeout), headers=headers_for(api_key, headers)
        )
        self._plain = httpx.Client(timeout=timeouts(timeout), follow_redirects=True)
        self._retrying = retrying or Retrying()
        self._longest_wait = min(operations.LONGEST_WAIT, timeout / 2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()
        self._plain.close()

    def readiness(self) -> dict[str, str | None]:
        """What the service needs: name to ``None`` if it works, otherwise why not."""
        return self._run(operations.readiness())

    def submit(
        self,
        *,
        phase: Sequence[PathLike] = (),
        magnitude: Sequence[PathLike] = (),
        mask: PathLike | None = None,
        sidecars: Sequence[PathLike] = (),
        total_field: PathLike | None = None,
        local_field: PathLike | None = None,
        te_ms: Sequence[float] = (),
        b0: float | None = None,
        b0_direction: Sequence[float] | None = None,
        idempotency_key: str | None = None,
        upload_first: bool = False,
        **choices: str,
    ) -> Job:
        """Send a scan; files are streamed from disk.

        Parameters
        ----------
        phase, magnitude : one 4D file, or one 3D file per echo
        mask, sidecars, total_field, local_field : files
        te_ms : ms
        b0 : T
        b0_direction : three numbers, in voxel axes
        idempotency_key : str or None
            The same key with the same scan gives the same job; drawn by chance when left out.
        upload_first : bool
            Send file by file before the job: straight to the object store where that takes them, in parts
            that can be resumed where not. For large scans, and for gateways that limit requests.
        **choices
            ``method``, ``reference``, ``unwrapping``, ``background``, ``phase_sign``.

        Returns
        -------
        Job
            Accepted; not ended yet.

        Raises
        ------
        ServiceError
            With the reason and the mend when the input is refused.
        """
        files = operations.scan_files(phase, magnitude, mask, sidecars, total_field, local_field)
        fields = operations.scan_fields(te_ms, b0, b0_direction, choices)
        return self._run(
            operations.submit(
                files, fields, key=idempotency_key, before=upload_first, retrying=self._retrying
            )
        )

    def job(self, job_id: str) -> Job:
        """How a job stands."""
        return self._run(operations.show(job_id, self._retrying))

    def jobs(self, state: State | None = None) -> Iterator[Job]:
        """All your jobs, newest first, page by page."""
        return self._tell(operations.every(state, self._retrying))

    def follow(self, job_id: str) -> Iterator[Job]:
        """The job whenever something happened to it, until it has ended.

        Goes on where it was after a broken connection, and asks now and then where no stream gets through.
        """
        return self._tell(operations.follow(job_id, self._retrying))

    def wait(self, job_id: str, timeout: float = 3600.0) -> Job:
        """The job, once it has ended.

        Raises
        ------
        TimeoutError
        """
        return self._run(operations.wait(job_id, timeout, self._longest_wait, self._retrying))

    def cancel(self, job_id: str) -> Job:
        """Stop a job."""
        return self._run(operations.act(job_id, "cancel", self._retrying))

    def retry(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again."""
        return self._run(operations.act(job_id, "retry", self._retrying))

    def delete(self, job_id: str) -> None:
        """Remove a job with its upload and results."""
        self._run(operations.delete(job_id, self._retrying))

    def fetch(self, job_id: str, name: str, path: PathLike, *, direct: bool = False) -> Path:
        """Download a volume (``chi``, ``mask``, ...), the ``report``, ``picture`` or ``page`` to a file.

        The file appears when it is complete; a broken download goes on where it broke.

        Parameters
        ----------
        job_id, name : str
        path : path
        direct : bool
            From the object store, where that serves clients itself.
        """
        return self._run(operations.fetch(job_id, name, path, direct, self._retrying))

    def slice(
        self,
        job_id: str,
        artefact: str = "chi",
        *,
        axis: Literal["sagittal", "coronal", "axial"] = "axial",
        index: int | None = None,
        window: tuple[float, float] | None = None,
    ) -> bytes:
        """One slice as a grey PNG."""
        return self._run(operations.look(job_id, artefact, axis, index, window, self._retrying))

    # ------------------------------------------------------------------ carrying out

    def _run(self, operation: Operation[Result]) -> Result:
        with ExitStack() as streams:
            lines: Iterator[str] = iter(())
            try:
                wish = next(operation)
                while True:
                    try:
                        outcome, lines = self._do(wish, lines, streams)
                    except (httpx.HTTPError, OSError) as error:
                        wish = operation.throw(error)
                    else:
                        wish = operation.send(outcome)
            except StopIteration as end:
                result: Result = end.value
                return result
            finally:
                operation.close()

    def _tell(self, operation: Operation[None]) -> Iterator[Any]:
        with ExitStack() as streams:
            lines: Iterator[str] = iter(())
            try:
                wish = next(operation)
                while True:
                    outcome: Any = None
                    if isinstance(wish, Tell):
                        yield wish.value
                    else:
                        try:
                            outcome, lines = self._do(wish, lines, streams)
                        except httpx.HTTPError as error:
                            wish = operation.throw(error)
                            continue
                    wish = operation.send(outcome)
            except StopIteration:
                return

    def _do(self, wish: Wish, lines: Iterator[str], streams: ExitStack) -> tuple[Any, Iterator[str]]:
        if isinstance(wish, Send):
            return self._send(wish), lines
        if isinstance(wish, Save):
            return self._save(wish), lines
        if isinstance(wish, Pause):
            time.sleep(wish.seconds)
            return None, lines
        if isinstance(wish, NextLine):
            return next(lines, None), lines
        if isinstance(wish, Listen):
            streams.close()
            timeout = httpx.Timeout(60.0, read=wish.silence)
            answer = streams.enter_context(
                self._http.stream("GET", wish.address, headers=dict(wish.headers), timeout=timeout)
            )
            return answer, answer.iter_lines()
        raise TypeError(wish)

    def _send(self, wish: Send) -> httpx.Response:
        http = self._plain if is_elsewhere(wish.address) else self._http
        with ExitStack() as stack:
            given = arguments(wish)
            if wish.files:
                given["files"] = [
                    (role, (path.name, stack.enter_context(path.open("rb")), media_type(path)))
                    for role, path in wish.files
                ]
            if wish.body is not None:
                given["content"] = _read(wish.body)
                given.setdefault("headers", {})["Content-Length"] = str(wish.body.size)
            return http.request(wish.method, wish.address, **given)

    def _save(self, wish: Save) -> httpx.Response:
        asked = self._http.build_request("GET", wish.address, headers=dict(wish.headers), params=wish.query)
        answer = self._http.send(asked, stream=True)
        if answer.is_redirect:
            answer.close()
            headers = {name: value for name, value in wish.headers.items() if name == "Range"}
            asked = self._plain.build_request("GET", answer.headers["location"], headers=headers)
            answer = self._plain.send(asked, stream=True)
        try:
            if not answer.is_success:
                answer.read()
                return answer
            try:
                with wish.path.open("ab" if "content-range" in answer.headers else "wb") as file:
                    for piece in answer.iter_raw():
                        file.write(piece)
            except httpx.HTTPError as error:
                raise Interrupted(error, answer.headers.get("etag")) from error
            return answer
        finally:
            answer.close()


def _read(body: Part) -> Iterator[bytes]:
    with body.path.open("rb") as file:
        file.seek(body.start)
        left = body.size
        while left and (piece := file.read(min(PIECE, left))):
            left -= len(piece)
            yield piece
