"""The program ``qsm-ai``: it can be interrupted from its first moment on."""

from __future__ import annotations

import os
import signal
from types import FrameType

CANCELLED = 130


def main() -> None:
    """Load the command line and run it.

    While it is loaded, Ctrl-C ends the program at once: nothing has been begun then, and an exception in the
    middle of an import could come out as any other.
    """
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from qsm_ai.cli import app

    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, usual)
    try:
        app()
    except KeyboardInterrupt:  # before a command has begun: commands see to their own end
        _leave()


def _leave(_number: int = signal.SIGINT, _frame: FrameType | None = None) -> None:
    os.write(2, b"Cancelled; nothing was written.\n")
    os._exit(CANCELLED)


if __name__ == "__main__":
    main()
