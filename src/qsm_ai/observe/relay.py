"""What a child process writes: its own events pass, everything else stays here.

Libraries print what they like, file names and headers of a patient among it, and a crash prints the message
of an error. Of that, only the places in the code and the kind of the error are told.
"""

from __future__ import annotations

import json
import re
import sys
from typing import TextIO

import structlog

from qsm_ai.observe.frames import MOST, frame_in

log = structlog.get_logger("qsm_ai.relay")

_ERROR = re.compile(r"^(?:Fatal Python error: ([\w ]+)|((?:\w+\.)*\w+(?:Error|Exception|Exit|Interrupt))\b)")


class Relay:
    """Takes a child's output line by line.

    Parameters
    ----------
    tier : str
        That the child's own events bear.
    sink : text stream
        For those; standard output when None.
    """

    def __init__(self, tier: str, sink: TextIO | None = None) -> None:
        self._tier = tier
        self._sink = sink
        self._frames: list[str] = []
        self._withheld = 0

    def take(self, line: str) -> None:
        """Pass a line on, or learn from it."""
        if self._is_event(line):
            sink = self._sink or sys.stdout
            sink.write(line.rstrip() + "\n")
            sink.flush()
            return
        if frame := frame_in(line):
            self._frames.append(frame)
        elif match := _ERROR.match(line):
            kind = (match[1] or match[2]).rpartition(".")[2]
            log.error(f"{self._tier}.crashed", error=kind, frames=self._frames[-MOST:])
            self._frames = []
        elif line.strip():
            self._withheld += 1

    def close(self) -> None:
        """Say how much was withheld."""
        if self._withheld or self._frames:
            log.warning(f"{self._tier}.output_withheld", lines=self._withheld, frames=self._frames[-MOST:])
        self._withheld, self._frames = 0, []

    def _is_event(self, line: str) -> bool:
        if not line.startswith("{"):
            return False
        try:
            event = json.loads(line)
        except ValueError:
            return False
        return bool(event.get("tier") == self._tier and {"time", "level", "event"} <= event.keys())
