"""Holds one program on a leash: it never outlives the process that asked for it.

Run as a program of its own (standard library only): ``python leash.py DESCRIPTOR GRACE LITTER COMMAND...``.
Its parent keeps the writing end of the pipe DESCRIPTOR open. When that end closes, for whatever reason
(``kill -9`` of the parent included), or on SIGTERM, the command and everything it started in its process
group get SIGTERM, and GRACE seconds later SIGKILL. Files that match the pattern LITTER are removed then. It
ends with the command's own exit status.

A death signal set by the parent would not do: it follows the thread that forked, and does not reach
grandchildren such as the Python stubs of Triton.
"""

from __future__ import annotations

import ctypes
import glob
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

PR_SET_PDEATHSIG = 1
LEFTOVERS = 1.0
"""Seconds that the children of a command that ended have to end as well."""


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent is gone; elsewhere do nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; False where nobody is left in it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def hold(descriptor: int, grace: float, litter: str, command: list[str]) -> int:
    """Run a command until it ends or the leash is pulled.

    Parameters
    ----------
    descriptor : int
        Reading end of the parent's pipe.
    grace : float
        Seconds between SIGTERM and SIGKILL.
    litter : str
        Pattern of files that the command leaves behind when it is killed; none when empty.
    command : list of str

    Returns
    -------
    int
        Its exit status; 128 + number when a signal ended it.
    """
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)

    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - one thread only, nothing can be held across the fork
    )
    while child.poll() is None:
        ready, _, _ = select.select([descriptor, wake_read], [], [])
        pulled = descriptor in ready
        if wake_read in ready:
            pulled |= bool({signal.SIGTERM, signal.SIGINT} & set(os.read(wake_read, 64)))
        if pulled:
            signal_group(child.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                child.wait(grace)
            break

    end_group(child.pid, patience=0.0 if child.poll() is None else LEFTOVERS)
    status = child.wait()
    for path in glob.glob(litter) if litter else ():  # noqa: PTH207 - an absolute pattern
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108
    return status if status >= 0 else 128 - status


def end_group(group: int, patience: float) -> None:
    """Kill what is left of a process group, once it had ``patience`` seconds to end by itself."""
    deadline = time.monotonic() + patience
    while signal_group(group, 0):
        if time.monotonic() >= deadline:
            signal_group(group, signal.SIGKILL)
            return
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(hold(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]))
