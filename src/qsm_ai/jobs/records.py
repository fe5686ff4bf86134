"""What a job is: the values that travel between the API, the database and the worker."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from qsm_ai.reconstruction.options import Options

OURS = ("limits", "trace", "uploads")
"""What goes with a job's parameters and was not asked; ``uploads``: role and id of each that it used."""


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class Upload:
    """A file that came with the request.

    Attributes
    ----------
    role : str
        Form field: ``phase``, ``magnitude``, ``mask``, ``sidecar``, ``total_field`` or ``local_field``.
    name : str
        The user's file name without any folder.
    key : str
        Where it lies, below the job's folder in the store.
    size : int
        Bytes.
    sha256 : str
    """

    role: str
    name: str
    key: str
    size: int
    sha256: str


@dataclass(frozen=True)
class StoredFile:
    """Another file that a job made: its report, its picture.

    Attributes
    ----------
    file : str
        File name for the user.
    key : str
        Below the job's folder in the store.
    size : int
        Bytes.
    media_type : str
    """

    file: str
    key: str
    size: int
    media_type: str


@dataclass(frozen=True)
class StoredArtefact:
    """A volume that a job made.

    Attributes
    ----------
    name : str
        Key of the stages table.
    file : str
        File name for the user.
    key : str
        Below the job's folder in the store.
    size : int
        Bytes.
    shape, voxel_size : of the volume turned to right, anterior, superior; voxels and mm
    """

    name: str
    file: str
    key: str
    size: int
    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float]


@dataclass(frozen=True)
class Job:
    """One reconstruction, as recorded. Times are seconds since 1970 (UTC).

    Attributes
    ----------
    priority : int
        Higher ones are taken first, whoever they belong to.
    attempt : int
        How often a worker took it.
    deadline_at : float or None
        When nobody waits for it any more.
    idempotency_key : str or None
        What the client called its request: the same request sent again finds the same job.
    """

    id: str
    owner: str
    state: State
    parameters: dict[str, Any]
    uploads: tuple[Upload, ...]
    summary: dict[str, Any]
    priority: int = 0
    attempt: int = 0
    created_at: float = 0.0
    queued_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    stage: str | None = None
    fraction: float = 0.0
    note: str | None = None
    problem: dict[str, Any] | None = None
    scores: dict[str, float] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    artefacts: tuple[StoredArtefact, ...] = ()
    others: tuple[StoredFile, ...] = ()
    request_id: str | None = None
    deadline_at: float | None = None
    idempotency_key: str | None = None

    @property
    def prefix(self) -> str:
        """The job's folder in the store."""
        return f"jobs/{self.id}"

    @property
    def method(self) -> str:
        """How the local field becomes susceptibility."""
        return str(self.parameters.get("method", Options.method))

    @property
    def fingerprint(self) -> str:
        """A hash of everything that the client asked for."""
        asked = {name: value for name, value in self.parameters.items() if name not in OURS}
        files = [(upload.role, upload.sha256) for upload in self.uploads]
        text = json.dumps([asked, files], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def work(self) -> float:
        """Size of the task in voxels times echoes, on which the time depends."""
        return float(self.summary.get("voxels", 0)) * max(1, int(self.summary.get("echoes", 1)))


@dataclass(frozen=True)
class WorkerRecord:
    """A worker, as it last told.

    Attributes
    ----------
    name : str
    slots : int
        Jobs at once.
    memory_mb : int
        MiB for all its jobs together.
    started_at, seen_at : float
        Seconds since 1970.
    draining : bool
        It takes no more jobs.
    trouble : dict or None
        The problem that keeps it from jobs that need the inference server.
    trouble_since : float or None
    """

    name: str
    slots: int
    memory_mb: int
    started_at: float
    seen_at: float
    draining: bool = False
    trouble: dict[str, Any] | None = None
    trouble_since: float | None = None


@dataclass(frozen=True)
class Waiting:
    """What the order of the queue and the estimates need to know of a job."""

    id: str
    owner: str
    priority: int
    queued_at: float
    method: str
    work: float
    memory_mb: int


@dataclass(frozen=True)
class Event:
    """Something that happened to a job; ``id`` only ever grows."""

    id: int
    job_id: str
    at: float
    kind: str
    data: dict[str, Any]
