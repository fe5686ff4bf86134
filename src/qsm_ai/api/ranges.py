"""Which part of a file is asked for (RFC 9110, section 14)."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, Literal

from qsm_ai.jobs.problem import Problem


class _Unsatisfiable(Enum):
    TOKEN = 0


UNSATISFIABLE: Final = _Unsatisfiable.TOKEN

_SINGLE = re.compile(r"bytes=(\d*)-(\d*)")


def parse_range(header: str | None, size: int) -> tuple[int, int] | Literal[_Unsatisfiable.TOKEN] | None:
    """First byte and the byte behind the last one.

    Parameters
    ----------
    header : str or None
        ``bytes=0-99``, ``bytes=100-`` or ``bytes=-100``.
    size : int
        Of the whole file.

    Returns
    -------
    (start, end), ``None`` for the whole file (also for several ranges, which may be answered so), or
    ``UNSATISFIABLE``.
    """
    match = _SINGLE.fullmatch(header.strip()) if header else None
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        length = min(int(match[2]), size)
        return (size - length, size) if length else UNSATISFIABLE
    start = int(match[1])
    end = min(int(match[2]) + 1, size) if match[2] else size
    if match[2] and int(match[2]) < start:
        return None
    return (start, end) if start < size else UNSATISFIABLE


def invalid_range(size: int) -> Problem:
    """A range behind the end of the file."""
    return Problem(
        code="range-not-satisfiable",
        title="The range cannot be served",
        status=416,
        detail="The range lies behind the end of the file.",
        mend=f"Ask for bytes 0 to {size - 1}.",
    )
