"""What goes over the wire."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from qsm_ai.api import examples
from qsm_ai.api.parameters import MOST_ECHOES
from qsm_ai.api.problems import ProblemDocument
from qsm_ai.api.uploads import MOST_FILES, FileRole
from qsm_ai.jobs.forecast import Outlook
from qsm_ai.jobs.records import OURS, Job, State
from qsm_ai.reconstruction.options import Background, Method, Reference, Unwrapping
from qsm_ai.reconstruction.stages import ARTEFACTS, STAGES

PAGE = "text/html"
"""The media type by which the quality page is known among a job's files."""

_TITLES = {stage.name: stage.title for stage in STAGES}


class FileView(BaseModel):
    """An uploaded file."""

    role: str = Field(examples=["phase"])
    name: str = Field(examples=["sub-01_part-phase_MEGRE.nii.gz"])
    size: int = Field(description="Bytes.")
    sha256: str


class ArtefactView(BaseModel):
    """A volume that the job made."""

    name: str = Field(description="Key for addresses.", examples=["chi"])
    title: str = Field(examples=["Susceptibility"])
    unit: str = Field(examples=["ppm"])
    window: tuple[float, float] = Field(description="Usual display range, in the unit.")
    file: str = Field(description="Name for downloads.", examples=["sub-01_Chimap.nii.gz"])
    size: int = Field(description="Bytes.")
    shape: tuple[int, int, int] = Field(description="Voxels along right, anterior, superior.")
    voxel_size: tuple[float, float, float] = Field(description="mm along right, anterior, superior.")
    href: str = Field(description="Where the NIfTI file is.")
    slices: str = Field(description="Where its slices are, as PNG.")


class Links(BaseModel):
    """Where to go from here."""

    self: str
    events: str
    result: str
    report: str
    page: str | None = Field(None, description="The report for people; null from earlier versions.")
    cancel: str
    retry: str


class JobView(BaseModel):
    """A reconstruction."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.JOB]})

    id: str
    state: State
    stage: str | None = Field(None, description="Key of the stages table.", examples=["field_mapping"])
    title: str | None = Field(None, description="What is being done, for people.")
    note: str | None = Field(None, description="What it waits for, or how far a stage is.")
    fraction: float = Field(ge=0, le=1, description="Progress of the whole.")
    queue_position: int | None = Field(None, description="1 is the next; null unless queued.")
    seconds_left: float | None = Field(None, description="Estimate; null while nothing is known.")
    attempt: int = Field(description="How many times it was started.")
    parameters: dict[str, Any] = Field(description="What was asked.")
    scan: dict[str, Any] = Field(
        description="What the upload was found to be, and where each number came from."
    )
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    problem: ProblemDocument | None = Field(None, description="Why it failed.")
    warnings: list[str] = Field(description="What the user should know about the result.")
    scores: dict[str, float] = Field(
        description="Of the physics check, the weight of the consistency, and how unfamiliar the scan is."
    )
    timings: dict[str, float] = Field(description="Seconds per stage.")
    files: list[FileView]
    artefacts: list[ArtefactView]
    links: Links


class UploadRequest(BaseModel):
    """A file to be sent."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=500, examples=["sub-01_part-phase_MEGRE.nii.gz"])
    size: int = Field(ge=1, le=1 << 50, description="Bytes.", examples=[41943040])
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="If given, other bytes are refused."
    )


class UploadTarget(BaseModel):
    """Where the bytes go."""

    href: str = Field(
        description="Send the file there with PUT. An absolute address lies at the object store; it knows "
        "nothing of parts and wants no `Authorization`."
    )
    method: Literal["PUT"] = "PUT"
    direct: bool = Field(description="Whether it lies at the object store.")
    expires_at: datetime


class UploadView(BaseModel):
    """A file that was announced and is no job yet."""

    id: str
    name: str
    size: int = Field(description="Bytes, as announced.")
    received: int = Field(description="Bytes that are there; go on from here.")
    complete: bool
    sha256: str | None = Field(None, description="As announced, or as found.")
    created_at: datetime
    expires_at: datetime = Field(description="It is deleted then, unless it has become a job.")
    target: UploadTarget = Field(description="At the object store where that takes files; else as `content`.")
    content: str = Field(description="Where the backend takes the file, whole or in parts.")


class UploadList(BaseModel):
    """Your uploads, newest first."""

    uploads: list[UploadView]


class UploadUse(BaseModel):
    """What an upload is for."""

    model_config = ConfigDict(extra="forbid")

    upload: str = Field(pattern="^[0-9a-f]{32}$", description="Its id.", examples=["0" * 32])
    role: FileRole


class JobRequest(BaseModel):
    """A reconstruction of files that were uploaded before. Fields are those of `/api/v1/reconstruct`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "files": [
                        {"upload": "3f0c6c6d0a5f4a5e8f4b6a1f1a7d9c2e", "role": "phase"},
                        {"upload": "b1946ac92492d2347c6235b4d2611184", "role": "magnitude"},
                    ],
                    "te_ms": [4, 12, 20, 28],
                    "b0": 3.0,
                    "method": "qsm-vit",
                }
            ]
        },
    )

    files: list[UploadUse] = Field(min_length=1, max_length=MOST_FILES)
    te_ms: list[float] | None = Field(None, max_length=MOST_ECHOES, description="Echo times in ms.")
    b0: float | None = Field(None, description="Field strength in tesla.")
    b0_direction: tuple[float, float, float] | None = Field(None, description="In voxel axes.")
    method: Method | None = None
    reference: Reference | None = None
    unwrapping: Unwrapping | None = None
    background: Background | None = None
    phase_sign: Literal["auto", "positive", "negative"] | None = None
    priority: Literal["low", "normal", "high"] | None = Field(
        None, description="Before or after other jobs, whoever they belong to; high is for administrators."
    )
    deadline: float | None = Field(
        None, gt=0, description="Seconds from now after which the job is given up."
    )
    wait: float | None = Field(None, ge=0, description="Seconds to wait for the result.")

    def fields(self) -> dict[str, list[str]]:
        """As a form upload would have them."""
        given = self.model_dump(exclude={"files"}, exclude_none=True)
        return {name: [v if isinstance(v, str) else json.dumps(v)] for name, v in given.items()}


class JobList(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[JobView]
    next: str | None = Field(None, description="Address of the next page.")


class Check(BaseModel):
    """Whether one thing that is needed works."""

    ok: bool
    reason: str | None = Field(None, description="Why not.")


class Readiness(BaseModel):
    """Whether the whole service can reconstruct."""

    ready: bool
    checks: dict[str, Check]


class Health(BaseModel):
    """That the process answers."""

    status: str = "alive"
    version: str


class Statistics(BaseModel):
    """Distribution of an artefact's values in the brain mask or in a sphere."""

    artefact: str
    unit: str
    voxels: int
    volume_ml: float
    mean: float
    standard_deviation: float
    median: float
    minimum: float
    maximum: float
    percentiles: dict[str, float] = Field(description="1, 5, 25, 75, 95, 99.")
    edges: list[float] = Field(description="Edges of the histogram's bins.")
    counts: list[int]


def job_view(job: Job, outlook: Outlook) -> JobView:
    """A job as clients see it."""
    base = f"/api/v1/jobs/{job.id}"
    problem = None
    if job.problem is not None:
        document = {"type": f"urn:qsm-ai:problem:{job.problem['code']}", **job.problem, "job": job.id}
        problem = ProblemDocument(**document)
    return JobView(
        id=job.id,
        state=job.state,
        stage=job.stage,
        title=_TITLES.get(job.stage or ""),
        note=job.note,
        fraction=job.fraction,
        queue_position=outlook.queue_position,
        seconds_left=None if outlook.seconds_left is None else round(outlook.seconds_left, 1),
        attempt=job.attempt,
        parameters={key: value for key, value in job.parameters.items() if key not in OURS},
        scan=job.summary,
        created_at=moment(job.created_at),
        started_at=None if job.started_at is None else moment(job.started_at),
        finished_at=None if job.finished_at is None else moment(job.finished_at),
        problem=problem,
        warnings=list(job.warnings),
        scores=job.scores,
        timings=job.timings,
        files=[
            FileView(role=upload.role, name=upload.name, size=upload.size, sha256=upload.sha256)
            for upload in job.uploads
        ],
        artefacts=[
            ArtefactView(
                name=artefact.name,
                title=ARTEFACTS[artefact.name].title,
                unit=ARTEFACTS[artefact.name].unit,
                window=ARTEFACTS[artefact.name].window,
                file=artefact.file,
                size=artefact.size,
                shape=artefact.shape,
                voxel_size=artefact.voxel_size,
                href=f"{base}/artefacts/{artefact.name}",
                slices=f"{base}/slices/{artefact.name}.png",
            )
            for artefact in job.artefacts
        ],
        links=Links(
            self=base,
            events=f"{base}/events",
            result=f"{base}/result",
            report=f"{base}/artefacts/report",
            page=f"{base}/artefacts/page" if any(o.media_type == PAGE for o in job.others) else None,
            cancel=f"{base}/cancel",
            retry=f"{base}/retry",
        ),
    )


def moment(seconds: float) -> datetime:
    """Seconds since 1970 as a moment in UTC."""
    return datetime.fromtimestamp(seconds, UTC)
