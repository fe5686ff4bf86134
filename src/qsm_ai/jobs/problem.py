"""What went wrong with a request or a job, for people and for programs (RFC 9457)."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from qsm_ai.inference.errors import (
    InferenceFailure,
    TritonModelMissing,
    TritonTimeout,
    TritonUnavailable,
)
from qsm_ai.scan import NotAnImage, Refusal, TooLarge

_OPTION = re.compile(r"--([a-z][a-z0-9-]*)")
"""Mends name options of the command line; over HTTP the same choices are form fields."""

_SMALLER = "Crop the scan to the head, or send fewer echoes."


@dataclass(frozen=True)
class Problem:
    """A problem with its mend.

    Attributes
    ----------
    code : str
        Stable, for programs and metrics.
    title : str
        The kind of problem, the same for every occurrence.
    status : int
        HTTP status.
    detail : str
        This occurrence, in one sentence, free of paths and of header values.
    mend : str
        What the user can do.
    file : str or None
        Name of the file concerned.
    """

    code: str
    title: str
    status: int
    detail: str
    mend: str
    file: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    @classmethod
    def from_refusal(cls, refusal: Refusal) -> Problem:
        """A refused input: 413 when too large, 415 when no image at all, otherwise 422."""
        status = 422
        if isinstance(refusal, TooLarge):
            status = 413
        elif isinstance(refusal, NotAnImage):
            status = 415
        return cls(
            code=refusal.code,
            title=f"Input refused: {refusal.code.replace('-', ' ')}",
            status=status,
            detail=refusal.sentence,
            mend=_OPTION.sub(lambda option: option[1].replace("-", "_"), refusal.mend),
            file=refusal.file,
        )


def inference_problem(failure: InferenceFailure) -> Problem:
    """The inference server is down, late or wrong; said without its address, which is nobody's business."""
    status, detail = 502, "The inference server rejected the request or gave no valid answer."
    if isinstance(failure, TritonUnavailable):
        status, detail = 503, "The inference server cannot be reached."
    elif isinstance(failure, TritonModelMissing):
        status, detail = 503, "The inference server has not loaded the model."
    elif isinstance(failure, TritonTimeout):
        status, detail = 504, "The inference server did not answer in time."
    return Problem(
        code=failure.code,
        title="The inference server does not answer",
        status=status,
        detail=detail,
        mend="The upload is kept: retry the job later, or choose another method (tkd, tikhonov, tv).",
    )


def worker_lost(detail: str) -> Problem:
    """The computing process died, most often for want of memory."""
    return Problem(
        code="worker-lost",
        title="The computing process died",
        status=500,
        detail=detail,
        mend="Try it again; if it dies again, the scan may need more memory than this server has.",
    )


def deadline_exceeded(seconds: float) -> Problem:
    """A job that ran longer than it may."""
    return Problem(
        code="deadline-exceeded",
        title="The job took too long",
        status=504,
        detail=f"The reconstruction did not finish within {seconds:.0f} s and was stopped.",
        mend="Retry when the server is less busy, or crop the scan to the head.",
    )


def internal(kind: str) -> Problem:
    """A defect of ours; the kind of error is enough to find it in the log."""
    return Problem(
        code="internal",
        title="The reconstruction failed",
        status=500,
        detail=f"The reconstruction stopped with an unexpected error ({kind}).",
        mend="Retry the job; if it fails again, report the job id to whoever runs this server.",
    )


def expired() -> Problem:
    """A job that nobody waits for any more, and that was not begun."""
    return Problem(
        code="deadline-exceeded",
        title="The job took too long",
        status=504,
        detail="The job's deadline passed while it waited in the queue.",
        mend="Retry when the server is less busy, or give it more time.",
    )


def out_of_memory(detail: str) -> Problem:
    """A scan that does not fit into what there is."""
    return Problem(
        code="out-of-memory",
        title="Not enough memory",
        status=507,
        detail=detail,
        mend=_SMALLER,
    )


def too_large_for_workers(needed_mb: int, largest_mb: int) -> Problem:
    """A scan that no worker can hold."""
    return Problem(
        code="too-large-for-workers",
        title="Not enough memory",
        status=507,
        detail=f"The scan needs about {needed_mb:,} MiB; no worker gives more than {largest_mb:,} MiB.",
        mend=_SMALLER,
    )
