"""Where an error happened, in words that hold nothing but code."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

MOST = 12

_FRAME = re.compile(r'^\s*File "(?:[^"]*/)?([^"/]+)", line (\d+)(?:, in (\S+)|)')


def frames_of(error: BaseException) -> list[str]:
    """``file.py:line function`` of an error's innermost frames, outermost first.

    Parameters
    ----------
    error : exception

    Returns
    -------
    list of str
    """
    found = traceback.extract_tb(error.__traceback__)
    return [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in found][-MOST:]


def frame_in(line: str) -> str | None:
    """The same out of a line of a printed traceback; None where the line is no frame.

    Parameters
    ----------
    line : str

    Returns
    -------
    str or None
    """
    match = _FRAME.match(line)
    return f"{match[1]}:{match[2]} {match[3] or ''}".rstrip() if match else None
