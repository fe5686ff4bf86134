"""The API from Python: send a scan, follow the job, fetch the map.

>>> from qsm_ai.client import Client
>>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
...     job = client.submit(phase=["phase.nii.gz"], te_ms=[4, 12, 20, 28], b0=3.0)
...     for job in client.follow(job.id):
...         print(job.title, f"{job.fraction:.0%}")
...     client.fetch(job.id, "chi", "chi.nii.gz")
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import httpx

State = Literal["queued", "running", "done", "failed", "cancelled"]
PathLike = str | os.PathLike[str]


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
    """

    def __init__(
        self, code: str, detail: str, mend: str = "", status: int | None = None, file: str | None = None
    ) -> None:
        super().__init__(detail)
        self.code, self.detail, self.mend, self.status, self.file = code, detail, mend, status, file

    def __str__(self) -> str:
        where = f"{self.file}: " if self.file else ""
        return f"{where}{self.detail} {self.mend}".strip()


@dataclass(frozen=True)
class Artefact:
    """A volume that a job made.

    Attributes
    ----------
    name : key for ``Client.fetch`` and ``Client.slice``
    title, unit : for people
    file : its name for downloads
    size : bytes
    window : usual display range, in the unit
    shape, voxel_size : voxels and mm along right, anterior, superior
    """

    name: str
    title: str
    unit: str
    file: str
    size: int
    window: tuple[float, float]
    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float]


@dataclass(frozen=True)
class Job:
    """A reconstruction, as the service last told it."""

    id: str
    state: State
    stage: str | None = None
    title: str | None = None
    note: str | None = None
    fraction: float = 0.0
    queue_position: int | None = None
    seconds_left: float | None = None
    warnings: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    artefacts: tuple[Artefact, ...] = ()
    problem: ServiceError | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The whole document, for what has no attribute here."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state in ("done", "failed", "cancelled")

    def require_done(self) -> Self:
        """This job, if it has a result.

        Raises
        ------
        ServiceError
            Why it has none.
        """
        if self.problem is not None:
            raise self.problem
        if self.state != "done":
            raise ServiceError(
                "no-result", f"The job is {self.state}.", "Wait until it is done, or retry it."
            )
        return self


class Client:
    """The service at one address. Every method raises ``ServiceError`` where the service refuses or is away.

    Parameters
    ----------
    url : str
        Without ``/api/v1``.
    timeout : s
        For one answer; uploads and waiting have their own.
    headers : mapping
        Sent with every request, such as ``Authorization``.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        timeout: float = 60.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        limits = httpx.Timeout(timeout, write=600.0, pool=None)
        self._http = httpx.Client(base_url=url.rstrip("/"), timeout=limits, headers=dict(headers or {}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def readiness(self) -> dict[str, str | None]:
        """What the service needs: name to ``None`` if it works, otherwise why not."""
        with _as_service_error():
            answer = self._http.get("/readyz")
        checks = answer.json().get("checks", {}) if answer.status_code in (200, 503) else {}
        return {
            name: None if check["ok"] else str(check["reason"] or "It does not work.")
            for name, check in checks.items()
        }

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
        roles: list[tuple[str, Sequence[PathLike]]] = [
            ("phase", phase),
            ("magnitude", magnitude),
            ("mask", () if mask is None else (mask,)),
            ("sidecar", sidecars),
            ("total_field", () if total_field is None else (total_field,)),
            ("local_field", () if local_field is None else (local_field,)),
        ]
        fields = dict(choices)
        if te_ms:
            fields["te_ms"] = " ".join(f"{t:.10g}" for t in te_ms)
        if b0 is not None:
            fields["b0"] = f"{b0:.10g}"
        if b0_direction is not None:
            fields["b0_direction"] = " ".join(f"{x:.10g}" for x in b0_direction)
        with ExitStack() as stack:
            parts = [
                (role, (Path(path).name, stack.enter_context(Path(path).open("rb")), _media_type(path)))
                for role, paths in roles
                for path in paths
            ]
            return _job(self._request("POST", "/api/v1/reconstruct", files=parts, data=fields).json())

    def job(self, job_id: str) -> Job:
        """How a job stands."""
        return _job(self._request("GET", f"/api/v1/jobs/{job_id}").json())

    def jobs(self, state: State | None = None) -> Iterator[Job]:
        """All your jobs, newest first, page by page."""
        address: str | None = f"/api/v1/jobs?state={state}" if state else "/api/v1/jobs"
        while address is not None:
            page = self._request("GET", address).json()
            yield from map(_job, page["jobs"])
            address = page["next"]

    def follow(self, job_id: str) -> Iterator[Job]:
        """The job whenever something happened to it, until it has ended.

        Goes on where it was after a broken connection, and asks now and then where no stream gets through.
        """
        last_event, retries = "0", 0
        while True:
            job = self.job(job_id)
            yield job
            if job.has_ended:
                return
            try:
                for event_id in self._events(job_id, last_event):
                    last_event, retries = event_id, 0
                    job = self.job(job_id)
                    yield job
                    if job.has_ended:
                        return
            except (httpx.HTTPError, ServiceError):
                retries += 1
            time.sleep(min(0.5 * 2**retries, 5.0))

    def wait(self, job_id: str, timeout: float = 3600.0) -> Job:
        """The job, once it has ended.

        Raises
        ------
        TimeoutError
        """
        deadline = time.monotonic() + timeout
        pause = 0.1
        while not (job := self.job(job_id)).has_ended:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the job is still {job.state} after {timeout:g} s")
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
        return job

    def cancel(self, job_id: str) -> Job:
        """Stop a job."""
        return _job(self._request("POST", f"/api/v1/jobs/{job_id}/cancel").json())

    def retry(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again."""
        return _job(self._request("POST", f"/api/v1/jobs/{job_id}/retry").json())

    def delete(self, job_id: str) -> None:
        """Remove a job with its upload and results."""
        self._request("DELETE", f"/api/v1/jobs/{job_id}")

    def fetch(self, job_id: str, name: str, path: PathLike) -> Path:
        """Download a volume (``chi``, ``mask``, ...), the ``report`` or the ``picture`` to a file.

        The file appears when it is complete.
        """
        target = Path(path)
        partial = target.with_name(f".{target.name}.part")
        try:
            with (
                _as_service_error(),
                self._http.stream("GET", f"/api/v1/jobs/{job_id}/artefacts/{name}") as answer,
            ):
                if not answer.is_success:
                    answer.read()
                    raise _refused(answer)
                with partial.open("wb") as file:
                    for chunk in answer.iter_bytes():
                        file.write(chunk)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target

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
        asked: dict[str, Any] = {"axis": axis}
        if index is not None:
            asked["index"] = index
        if window is not None:
            asked["low"], asked["high"] = window
        return self._request("GET", f"/api/v1/jobs/{job_id}/slices/{artefact}.png", params=asked).content

    def _events(self, job_id: str, last: str) -> Iterator[str]:
        """Ids of events as they come."""
        timeout = httpx.Timeout(60.0, read=45.0)
        headers = {"Last-Event-ID": last, "Accept": "text/event-stream"}
        address = f"/api/v1/jobs/{job_id}/events"
        with self._http.stream("GET", address, headers=headers, timeout=timeout) as stream:
            if not stream.is_success:
                stream.read()
                raise _refused(stream)
            for line in stream.iter_lines():
                if line.startswith("id: "):
                    yield line[4:]

    def _request(self, method: str, address: str, **arguments: Any) -> httpx.Response:
        with _as_service_error():
            answer = self._http.request(method, address, **arguments)
        if not answer.is_success:
            raise _refused(answer)
        return answer


def _job(document: Mapping[str, Any]) -> Job:
    problem = document.get("problem")
    return Job(
        id=document["id"],
        state=document["state"],
        stage=document.get("stage"),
        title=document.get("title"),
        note=document.get("note"),
        fraction=float(document.get("fraction") or 0.0),
        queue_position=document.get("queue_position"),
        seconds_left=document.get("seconds_left"),
        warnings=tuple(document.get("warnings") or ()),
        scores=document.get("scores") or {},
        timings=document.get("timings") or {},
        artefacts=tuple(
            Artefact(
                **{key: given[key] for key in ("name", "title", "unit", "file", "size")},
                window=tuple(given["window"]),
                shape=tuple(given["shape"]),
                voxel_size=tuple(given["voxel_size"]),
            )
            for given in document.get("artefacts") or ()
        ),
        problem=None if problem is None else _from_problem(problem, problem.get("status")),
        raw=document,
    )


def _refused(answer: httpx.Response) -> ServiceError:
    try:
        document = answer.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        document = None
    if not isinstance(document, dict):
        return ServiceError(
            f"http-{answer.status_code}",
            f"The service answered with status {answer.status_code}.",
            "Check the address; a proxy may stand between.",
            answer.status_code,
        )
    return _from_problem(document, answer.status_code)


def _from_problem(document: Mapping[str, Any], status: int | None) -> ServiceError:
    return ServiceError(
        code=str(document.get("code") or f"http-{status}"),
        detail=str(document.get("detail") or document.get("title") or f"Status {status}."),
        mend=str(document.get("mend") or ""),
        status=status,
        file=document.get("file"),
    )


@contextmanager
def _as_service_error() -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as error:
        raise ServiceError(
            "timeout", "The service does not answer in time.", "Try again when it is less busy."
        ) from error
    except httpx.HTTPError as error:
        raise ServiceError(
            "unreachable", "The service cannot be reached.", "Check the address, and whether it runs."
        ) from error


def _media_type(path: PathLike) -> str:
    name = Path(path).name.lower()
    if name.endswith(".json"):
        return "application/json"
    return "application/gzip" if name.endswith(".gz") else "application/octet-stream"
