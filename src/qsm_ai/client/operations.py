"""What each method of a client sends, and what it makes of the answers: once for both clients."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import httpx

from qsm_ai.client.errors import ServiceError, from_answer, from_transport
from qsm_ai.client.exchange import Listen, NextLine, Operation, Part, Pause, Save, Send, Tell
from qsm_ai.client.records import Job, State, job_from
from qsm_ai.client.retrying import BROKEN_ON_THE_WAY, BUSY, NEVER, Retrying

PathLike = str | os.PathLike[str]
JOBS = "/api/v1/jobs"
UPLOADS = "/api/v1/uploads"
PART = 16 << 20
"""Bytes of a part of an upload through the backend; proxies often allow no more than 32 MB."""

LONGEST_WAIT = 20.0
"""Seconds for which one request waits for the end of a job at most; proxies often hang up after a minute."""

NO_SUCH_PART = 416
REPEATABLE = frozenset({"GET", "PUT", "DELETE"})


def ask(request: Send | Save, retrying: Retrying) -> Operation[httpx.Response]:
    """Send a request until it succeeds, or asking again is of no use.

    A busy service is asked again in any case; after a broken connection only if doing it twice does no harm.

    Raises
    ------
    ServiceError
    """
    attempt = 0
    while True:
        attempt += 1
        safe = (
            isinstance(request, Save) or request.method in REPEATABLE or "Idempotency-Key" in request.headers
        )
        try:
            answer: httpx.Response = yield request
        except httpx.HTTPError as error:
            pause = retrying.pause(attempt) if safe else None
            if pause is None:
                raise from_transport(error) from error
        else:
            if answer.is_success:
                return answer
            again = answer.status_code in BUSY or (safe and answer.status_code in BROKEN_ON_THE_WAY)
            pause = retrying.pause(attempt, answer.headers.get("retry-after")) if again else None
            if pause is None:
                raise from_answer(answer)
        yield Pause(pause)


def readiness() -> Operation[dict[str, str | None]]:
    """Why each thing that the service needs does not work; ``None`` where it does."""
    try:
        answer = yield Send("GET", "/readyz")
    except httpx.HTTPError as error:
        raise from_transport(error) from error
    checks = answer.json().get("checks", {}) if answer.status_code in (200, 503) else {}
    return {
        name: None if check["ok"] else str(check["reason"] or "It does not work.")
        for name, check in checks.items()
    }


def show(job_id: str, retrying: Retrying) -> Operation[Job]:
    """How a job stands."""
    return job_from((yield from ask(Send("GET", f"{JOBS}/{job_id}"), retrying)).json())


def act(job_id: str, what: Literal["cancel", "retry"], retrying: Retrying) -> Operation[Job]:
    """Stop a job, or queue it again."""
    return job_from((yield from ask(Send("POST", f"{JOBS}/{job_id}/{what}"), retrying)).json())


def delete(job_id: str, retrying: Retrying) -> Operation[None]:
    """Remove a job with everything."""
    yield from ask(Send("DELETE", f"{JOBS}/{job_id}"), retrying)


def every(state: State | None, retrying: Retrying) -> Operation[None]:
    """Tell all jobs, newest first, page by page."""
    address: str | None = f"{JOBS}?state={state}" if state else JOBS
    while address is not None:
        page = (yield from ask(Send("GET", address), retrying)).json()
        for document in page["jobs"]:
            yield Tell(job_from(document))
        address = page["next"]


def look(
    job_id: str,
    artefact: str,
    axis: str,
    index: int | None,
    window: tuple[float, float] | None,
    retrying: Retrying,
) -> Operation[bytes]:
    """One slice as PNG."""
    query: dict[str, Any] = {"axis": axis}
    if index is not None:
        query["index"] = index
    if window is not None:
        query["low"], query["high"] = window
    request = Send("GET", f"{JOBS}/{job_id}/slices/{artefact}.png", query=query)
    return (yield from ask(request, retrying)).content


def submit(
    files: Sequence[tuple[str, PathLike]],
    fields: dict[str, Any],
    *,
    key: str | None,
    before: bool,
    retrying: Retrying,
) -> Operation[Job]:
    """Send a scan, in one form or file by file before its job."""
    paths = tuple((role, Path(path)) for role, path in files)
    headers = {"Idempotency-Key": key or uuid4().hex}
    if not before:
        form = {name: _text(value) for name, value in fields.items()}
        request = Send("POST", "/api/v1/reconstruct", headers, form=form, files=paths)
        return job_from((yield from ask(request, retrying)).json())
    uses: list[dict[str, str]] = []
    try:
        for role, path in paths:
            uses.append({"upload": (yield from upload(path, retrying)), "role": role})
    except (ServiceError, OSError):
        yield from _discard(uses)
        raise
    request = Send("POST", JOBS, headers, json={"files": uses, **fields})
    try:
        return job_from((yield from ask(request, retrying)).json())
    except ServiceError as error:
        # Without an answer there may be a job that needs them.
        if error.status is not None:
            yield from _discard(uses)
        raise


def _discard(uses: Sequence[Mapping[str, str]]) -> Operation[None]:
    """Remove uploads that nobody will name any more, as far as the service can be reached."""
    for use in uses:
        try:
            yield from ask(Send("DELETE", f"{UPLOADS}/{use['upload']}"), NEVER)
        except ServiceError as error:
            if error.status is None:
                return


def upload(path: Path, retrying: Retrying, part: int = PART) -> Operation[str]:
    """Send one file before its job; its id.

    Straight to the object store where that takes it; where it cannot be reached, and otherwise, in parts to
    the backend, each sent again until it is there. What cannot be sent to its end is removed again.
    """
    size = path.stat().st_size
    announced = {"name": path.name, "size": size, "sha256": _sha256(path)}
    found = (yield from ask(Send("POST", UPLOADS, json=announced), retrying)).json()
    try:
        yield from _send_content(path, size, found, retrying, part)
    except (ServiceError, OSError):
        yield from _discard([{"upload": found["id"]}])
        raise
    return str(found["id"])


def _send_content(
    path: Path, size: int, found: dict[str, Any], retrying: Retrying, part: int
) -> Operation[None]:
    address = f"{UPLOADS}/{found['id']}"
    if found["target"]["direct"]:
        try:
            yield from ask(Send("PUT", found["target"]["href"], body=Part(path, 0, size)), retrying)
            return
        except ServiceError as error:
            if error.code != "unreachable":
                raise
    attempt = 0
    while not found["complete"]:
        start = int(found["received"])
        length = min(part, size - start)
        headers = {"Content-Range": f"bytes {start}-{start + length - 1}/{size}"}
        try:
            sent = yield from ask(
                Send("PUT", found["content"], headers, body=Part(path, start, length)), NEVER
            )
            found, attempt = sent.json(), 0
        except ServiceError as error:
            # The part may have arrived all the same: the service knows how much is there.
            attempt += 1
            pause = retrying.pause(attempt, error.retry_after)
            if pause is None or error.status not in (None, 408, 409, *BUSY, *BROKEN_ON_THE_WAY):
                raise
            yield Pause(pause)
            found = (yield from ask(Send("GET", address), retrying)).json()


def wait(job_id: str, timeout: float, longest: float, retrying: Retrying) -> Operation[Job]:
    """The job, once it has ended.

    Parameters
    ----------
    job_id : str
    timeout : s
    longest : s
        For which one request may wait.
    retrying : Retrying

    Raises
    ------
    TimeoutError
    """
    deadline, pause = time.monotonic() + timeout, 0.1
    while True:
        began = time.monotonic()
        seconds = min(max(0.0, deadline - began), longest)
        request = Send("GET", f"{JOBS}/{job_id}", query={"wait": f"{seconds:.1f}"})
        job = job_from((yield from ask(request, retrying)).json())
        if job.has_ended:
            return job
        now = time.monotonic()
        if now >= deadline:
            raise TimeoutError(f"the job is still {job.state} after {timeout:g} s")
        if now - began < seconds / 2:
            # A service that answers at once knows nothing of waiting.
            yield Pause(pause)
            pause = min(2 * pause, 2.0)


def follow(job_id: str, retrying: Retrying, silence: float = 45.0) -> Operation[None]:
    """Tell the job whenever something happened to it, until it has ended.

    Goes on behind the last event after a broken connection, and asks now and then where no stream gets
    through.
    """
    last, broken = "0", 0
    while True:
        job = yield from show(job_id, retrying)
        yield Tell(job)
        if job.has_ended:
            return
        try:
            headers = {"Last-Event-ID": last, "Accept": "text/event-stream"}
            answer = yield Listen(f"{JOBS}/{job_id}/events", headers, silence)
            while answer.is_success and (line := (yield NextLine())) is not None:
                if not line.startswith("id:"):
                    continue
                last, broken = line[3:].strip(), 0
                job = yield from show(job_id, retrying)
                yield Tell(job)
                if job.has_ended:
                    return
        except httpx.HTTPError:
            pass
        broken += 1
        yield Pause(min(0.25 * 2.0**broken, 5.0))


def fetch(job_id: str, name: str, path: PathLike, direct: bool, retrying: Retrying) -> Operation[Path]:
    """Save an artefact to a file, which appears when it is complete; a broken download goes on."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.part")
    address = f"{JOBS}/{job_id}/artefacts/{name}"
    query = {"direct": "true"} if direct else {}
    whole = {"Accept-Encoding": "identity"}
    headers = whole
    attempt = 0
    try:
        while True:
            attempt += 1
            try:
                answer: httpx.Response = yield Save(address, partial, headers, query)
                if answer.is_success:
                    break
                error: ServiceError = from_answer(answer)
                again = answer.status_code in BUSY | BROKEN_ON_THE_WAY | {NO_SUCH_PART}
                named = answer.headers.get("retry-after")
                if answer.status_code == NO_SUCH_PART:
                    headers = whole
            except Interrupted as broken:
                error, again, named = from_transport(broken.cause), True, None
                headers = whole
                if broken.etag and partial.exists():
                    rest = f"bytes={partial.stat().st_size}-"
                    headers = {**whole, "Range": rest, "If-Range": broken.etag}
            except httpx.HTTPError as failure:
                error, again, named = from_transport(failure), True, None
            pause = retrying.pause(attempt, named) if again else None
            if pause is None:
                raise error
            yield Pause(pause)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


class Interrupted(httpx.TransportError):
    """A download broke after it had begun.

    Attributes
    ----------
    cause : httpx.HTTPError
    etag : str or None
        Of the file, to go on with the same one.
    """

    def __init__(self, cause: httpx.HTTPError, etag: str | None) -> None:
        super().__init__(str(cause))
        self.cause, self.etag = cause, etag


def scan_files(
    phase: Sequence[PathLike],
    magnitude: Sequence[PathLike],
    mask: PathLike | None,
    sidecars: Sequence[PathLike],
    total_field: PathLike | None,
    local_field: PathLike | None,
) -> list[tuple[str, PathLike]]:
    """Files with their roles."""
    one = (("mask", mask), ("total_field", total_field), ("local_field", local_field))
    return [
        *(("phase", path) for path in phase),
        *(("magnitude", path) for path in magnitude),
        *(("sidecar", path) for path in sidecars),
        *((role, path) for role, path in one if path is not None),
    ]


def scan_fields(
    te_ms: Sequence[float], b0: float | None, b0_direction: Sequence[float] | None, choices: dict[str, str]
) -> dict[str, Any]:
    """Parameters that were given."""
    fields: dict[str, Any] = dict(choices)
    if te_ms:
        fields["te_ms"] = [float(t) for t in te_ms]
    if b0 is not None:
        fields["b0"] = float(b0)
    if b0_direction is not None:
        fields["b0_direction"] = [float(x) for x in b0_direction]
    return fields


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(f"{number:.10g}" for number in value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
