"""Jobs and artefacts as the service tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from qsm_ai.client.errors import ServiceError, from_problem

State = Literal["queued", "running", "done", "failed", "cancelled"]


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


def job_from(document: Mapping[str, Any]) -> Job:
    """A job from its document; what a newer service adds is left in ``raw``."""
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
        problem=None if problem is None else from_problem(problem, problem.get("status")),
        raw=document,
    )
