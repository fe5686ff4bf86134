"""How much memory a job takes, estimated before it is begun."""

from __future__ import annotations

from qsm_ai.jobs.records import Job

PROCESS_MB = 150
"""A computing process before it reads anything, MiB."""

PER_VOXEL, PER_VOXEL_AND_ECHO = 200, 40
"""Bytes at the peak, whichever the method.

Measured (peak resident memory less 86 MiB at the start; 96³ and 128³ voxels, magnitude and phase gzipped):
123 bytes per voxel with one echo, 165 (closed forms, TV) to 228 (network) with four, 308 with eight. The
estimate is half as much again, or more, for what libraries keep.
"""


def needed_mb(job: Job) -> int:
    """Peak memory of the process that will compute a job, MiB.

    Parameters
    ----------
    job : Job
        Its summary says how many voxels and echoes there are.

    Returns
    -------
    int
    """
    voxels = int(job.summary.get("voxels", 0))
    echoes = max(1, int(job.summary.get("echoes", 1)))
    return PROCESS_MB + (voxels * (PER_VOXEL + PER_VOXEL_AND_ECHO * echoes) >> 20)
