"""The API as the page sees it: one httpx client, plain records, and every failure as one problem."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import httpx

from qsm_ai.ui.measuring import calling
from qsm_ai.ui.submission import Submission

State = Literal["queued", "running", "done", "failed", "cancelled"]
Axis = Literal["axial", "coronal", "sagittal"]
T = TypeVar("T")
QUICK = 15.0
"""Seconds for what the API answers at once; behind it somebody waits for the page."""

_STATUS_WORDS = {
    413: (
        "The scan is larger than this service takes.",
        "Compress the images (.nii.gz) or leave some out, or ask whoever runs this service for its limit.",
    ),
    429: ("The service has been asked too often.", "Wait a minute, then try again."),
}
"""For answers that come from a proxy, without a problem document."""

NOT_FOUND = "not-found"
_WAYS_IN = {"unauthenticated", "invalid-credentials", "expired-credentials", "not-a-member"}
_CREDENTIALS = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class Problem(Exception):  # noqa: N818 - what the API calls it
    """What went wrong, for the person at the page.

    Attributes
    ----------
    code : str
    sentence : str
        What is wrong.
    mend : str
        What can be done, empty if nothing is known.
    file : str or None
        Name of the file concerned.
    """

    def __init__(self, code: str, sentence: str, mend: str = "", file: str | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.mend = mend
        self.file = file

    @property
    def wants_sign_in(self) -> bool:
        """Whether the service does not know the visitor (any more)."""
        return self.code in _WAYS_IN

    @property
    def is_final(self) -> bool:
        """Whether asking once more would change nothing."""
        return self.wants_sign_in or self.code == NOT_FOUND

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """From an RFC 9457 problem document."""
        return cls(
            code=str(document.get("code") or "unknown"),
            sentence=str(document.get("detail") or document.get("title") or "The request was refused."),
            mend=str(document.get("mend") or ""),
            file=document.get("file"),
        )


@dataclass(frozen=True)
class Artefact:
    """A volume of a finished job.

    Attributes
    ----------
    name : key in the API's addresses
    title : for people
    unit : of its values, empty for a mask
    window : usual display range in ``unit``
    file : name under which it is downloaded
    size : bytes
    shape, voxel_size : voxels and mm along right, anterior, superior
    """

    name: str
    title: str
    unit: str
    window: tuple[float, float]
    file: str
    size: int
    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float]

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """From the API's JSON."""
        low, high = document["window"]
        x, y, z = document["shape"]
        dx, dy, dz = document["voxel_size"]
        return cls(
            name=document["name"],
            title=document["title"],
            unit=document["unit"],
            window=(float(low), float(high)),
            file=document["file"],
            size=int(document["size"]),
            shape=(int(x), int(y), int(z)),
            voxel_size=(float(dx), float(dy), float(dz)),
        )


@dataclass(frozen=True)
class Job:
    """A reconstruction, as the API last told it.

    Attributes
    ----------
    id : key in the API's addresses
    name : of the scan
    state : State
    title, note : what is being done, for people
    fraction : of the whole, 0 to 1
    queue_position : 1 is the next; None unless queued
    seconds_left : estimate, None if unknown
    scores, timings : by name; timings in s
    warnings : what the user should know about the result
    parameters : what was asked
    scan : what the upload was found to be
    files : (role, name) of everything that was uploaded
    artefacts : volumes
    problem : why it failed
    """

    id: str
    name: str
    state: State
    title: str = ""
    note: str = ""
    fraction: float = 0.0
    queue_position: int | None = None
    seconds_left: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    scan: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[tuple[str, str], ...] = ()
    artefacts: tuple[Artefact, ...] = ()
    has_page: bool = False
    problem: Problem | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """From the API's JSON."""
        problem = document.get("problem")
        return cls(
            id=document["id"],
            name=document["scan"].get("name") or "Scan",
            state=document["state"],
            title=document.get("title") or "",
            note=document.get("note") or "",
            fraction=float(document.get("fraction") or 0.0),
            queue_position=document.get("queue_position"),
            seconds_left=document.get("seconds_left"),
            scores=document.get("scores") or {},
            timings=document.get("timings") or {},
            warnings=tuple(document.get("warnings") or ()),
            parameters=document.get("parameters") or {},
            scan=document["scan"],
            files=tuple((f["role"], f["name"]) for f in document.get("files") or ()),
            artefacts=tuple(Artefact.from_document(a) for a in document.get("artefacts") or ()),
            has_page=bool((document.get("links") or {}).get("page")),
            problem=Problem.from_document(problem) if problem else None,
        )

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in {"done", "failed", "cancelled"}


@dataclass(frozen=True)
class Statistics:
    """Distribution of a map's values in the brain or in a sphere; in the map's unit.

    Attributes
    ----------
    voxels, volume_ml : size of the region
    mean, standard_deviation, median : of its values
    low, high : 5th and 95th percentile
    edges, counts : histogram
    """

    voxels: int
    volume_ml: float
    mean: float
    standard_deviation: float
    median: float
    low: float
    high: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """From the API's JSON."""
        return cls(
            voxels=document["voxels"],
            volume_ml=document["volume_ml"],
            mean=document["mean"],
            standard_deviation=document["standard_deviation"],
            median=document["median"],
            low=document["percentiles"]["5"],
            high=document["percentiles"]["95"],
            edges=tuple(document["edges"]),
            counts=tuple(document["counts"]),
        )


@dataclass(frozen=True)
class Account:
    """Who the visitor is to the API.

    Attributes
    ----------
    way : ``none`` where there is no access control, otherwise ``key`` or ``oidc``
    expires_at : seconds since 1970 from which on the key or token is worth nothing; None for never
    """

    way: str
    expires_at: float | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """From the API's JSON."""
        ends = document.get("expires_at")
        return cls(document["way"], None if ends is None else datetime.fromisoformat(ends).timestamp())


class Backend:
    """The API at one address.

    Every method raises :class:`Problem`, and nothing else, when the answer is not the wanted one.

    Parameters
    ----------
    url : str
        Where the API listens, without ``/api/v1``.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # Long writes: a scan of some hundred megabytes over a slow link. Reads wait for validation only.
        timeout = httpx.Timeout(connect=5, read=120, write=600, pool=10)
        self._http = httpx.Client(base_url=self.url, timeout=timeout)
        self._credentials: str | None = None

    def on_behalf_of(self, credentials: str | None) -> Backend:
        """The same API over the same connections, asked as the holder of a token or key.

        Parameters
        ----------
        credentials : str or None
            ``None`` for nobody in particular.
        """
        other = copy(self)
        other._credentials = credentials
        return other

    def account(self) -> Account:
        """Who the API takes the visitor for."""
        return _read(self._request("GET", "/api/v1/me", timeout=QUICK), Account.from_document)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def ready(self) -> bool:
        """Whether the whole service is ready to reconstruct."""
        try:
            with calling("GET", "/readyz") as call:
                call.status = self._http.get("/readyz", timeout=5).status_code
        except httpx.HTTPError:
            return False
        return call.status == httpx.codes.OK

    def submit(self, submission: Submission, key: str) -> Job:
        """Send a scan; the job is queued when this returns.

        Parameters
        ----------
        submission : Submission
        key : str
            What is sent again under it, because the answer was lost or not waited for, makes no second job.
        """
        answer = self._request(
            "POST",
            "/api/v1/reconstruct",
            files=submission.parts(),
            data=submission.fields(),
            headers={"Idempotency-Key": key},
        )
        return _read(answer, Job.from_document)

    def job(self, job_id: str) -> Job:
        """How a job stands."""
        return _read(self._request("GET", _address(job_id), timeout=QUICK), Job.from_document)

    def cancel(self, job_id: str) -> None:
        """Stop a job."""
        self._request("POST", _address(job_id, "cancel"))

    def retry(self, job_id: str) -> None:
        """Queue a failed or cancelled job again, with the same upload."""
        self._request("POST", _address(job_id, "retry"))

    def delete(self, job_id: str) -> None:
        """Remove a job with its upload and results."""
        self._request("DELETE", _address(job_id))

    def artefact(self, job_id: str, name: str) -> bytes:
        """A result file."""
        return self._request("GET", _address(job_id, "artefacts", name)).content

    def report(self, job_id: str) -> dict[str, Any]:
        """Parameters, versions, timings, scores and methods paragraph of a result."""
        return _read(self._request("GET", _address(job_id, "artefacts", "report")), dict)

    def statistics(
        self,
        job_id: str,
        artefact: str,
        *,
        centre: tuple[int, int, int] | None = None,
        radius: float | None = None,
    ) -> Statistics:
        """Distribution of a map's values: in the brain, or in a sphere around a voxel (radius in mm)."""
        sphere: dict[str, float] = {}
        if centre is not None and radius is not None:
            sphere = {**dict(zip("xyz", centre, strict=True)), "radius": radius}
        answer = self._request("GET", _address(job_id, "statistics", artefact), params=sphere)
        return _read(answer, Statistics.from_document)

    def slice(self, job_id: str, artefact: str, axis: Axis, index: int, window: tuple[float, float]) -> bytes:
        """One slice as a grey PNG, one pixel per voxel."""
        low, high = window
        return self._request(
            "GET",
            _address(job_id, "slices", f"{artefact}.png"),
            params={"axis": axis, "index": index, "low": low, "high": high},
        ).content

    def _identity(self) -> dict[str, str]:
        if not self._credentials:
            return {}
        if not _CREDENTIALS.fullmatch(self._credentials):
            # What no header may hold is no key either.
            raise Problem(
                "invalid-credentials",
                "The key or token is not valid (any more).",
                "Check that it is complete.",
            )
        return {"Authorization": f"Bearer {self._credentials}"}

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        identity = self._identity()
        with _as_problem(), calling(method, path) as call:
            headers = {**call.headers, **identity, **(arguments.pop("headers", None) or {})}
            answer = self._http.request(method, path, headers=headers, **arguments)
            call.status = answer.status_code
        if answer.is_success:
            return answer
        try:
            document = answer.json()
        except ValueError:
            document = {}
        if not isinstance(document, dict) or not ("detail" in document or "title" in document):
            sentence, mend = _STATUS_WORDS.get(
                answer.status_code,
                (
                    f"The service answered with status {answer.status_code}.",
                    "Try again; if it stays so, tell whoever runs this service.",
                ),
            )
            raise Problem(f"http-{answer.status_code}", sentence, mend)
        raise Problem.from_document(document)


def _address(job_id: str, *parts: str) -> str:
    # The id may come from the page's address: it must not lead anywhere else.
    return "/".join(["/api/v1/jobs", *(quote(part, safe="") for part in (job_id, *parts))])


def _read(answer: httpx.Response, make: Callable[[Mapping[str, Any]], T]) -> T:
    try:
        return make(answer.json())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Problem(
            "unreadable",
            "The answer is not one of this service.",
            "Check that the page's API address is right and that both are of one version.",
        ) from error


@contextmanager
def _as_problem() -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as error:
        raise Problem(
            "timeout", "The service does not answer in time.", "Try again when it is less busy."
        ) from error
    except httpx.HTTPError as error:
        raise Problem(
            "unreachable",
            "The service cannot be reached.",
            "Check that the backend runs, then try again.",
        ) from error
