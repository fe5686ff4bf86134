"""How much memory this machine, or this container of it, has for jobs."""

from __future__ import annotations

import os
from pathlib import Path

SHARE = 0.75
"""Of the memory that is there; the rest is for everything else."""

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_for_jobs_mb(limits: tuple[Path, ...] = _LIMITS) -> int:
    """MiB that jobs may take together: a share of the container's limit, or of the machine's memory.

    Parameters
    ----------
    limits : files
        In which Linux tells a container's limit; the first that exists counts.
    """
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in limits:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            there = min(there, int(text))
        break
    return int(SHARE * there) >> 20
