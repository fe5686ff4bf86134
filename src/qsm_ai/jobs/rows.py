"""Rows of the database as records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsm_ai.jobs.records import Job, State, StoredArtefact, StoredFile, Upload, Waiting

SAME = (
    "id", "owner", "parameters", "summary", "priority", "attempt", "created_at", "queued_at", "started_at",
    "finished_at", "stage", "fraction", "note", "problem", "scores", "timings", "request_id", "deadline_at",
    "idempotency_key",
)  # fmt: skip
"""Columns that are a job's attributes as they are."""

WAITING = ("id", "owner", "priority", "queued_at", "method", "work", "memory_mb")
"""Columns of ``Waiting``."""


def job_of(row: Mapping[Any, Any]) -> Job:
    """A job from its row."""
    return Job(
        **{name: row[name] for name in SAME},
        state=State(row["state"]),
        uploads=tuple(Upload(**upload) for upload in row["uploads"]),
        artefacts=tuple(_artefact(entry) for entry in row["artefacts"]),
        others=tuple(StoredFile(**other) for other in row["others"]),
        warnings=tuple(row["warnings"]),
    )


def waiting_of(row: Mapping[Any, Any]) -> Waiting:
    """What the queue needs to know of a job, from its row."""
    return Waiting(**{name: row[name] for name in WAITING})


def _artefact(entry: dict[str, Any]) -> StoredArtefact:
    return StoredArtefact(
        **{**entry, "shape": tuple(entry["shape"]), "voxel_size": tuple(entry["voxel_size"])}
    )
