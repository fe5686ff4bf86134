"""How much memory a job takes, estimated before it is begun."""

from __future__ import annotations

from qsm_ai.jobs.records import Job

PROCESS_MB = 150
"""A computing process before it reads anything, MiB."""

PER_VOXEL, PER_VOXEL_AND_ECHO = 320, 40
"""Bytes at the peak, whichever the method.

Measured (peak resident memory less 86 MiB at the start; 128³ voxels, half of them brain, gzipped files, the
steps around a network beside the magnitude's edges): 284 bytes per voxel with one echo, 318 with four, 351
with eight; 291 for a total field with a magnitude of four echoes, 228 for one alone. The estimate leaves a
quarter more, or half, for what libraries keep.
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
