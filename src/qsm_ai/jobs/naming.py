"""Names of workers, and what can be told from one about whether it still lives."""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def machine() -> str:
    """Host and namespace of process ids: containers of one host may share its name, and not its processes."""
    namespace = ""
    with suppress(OSError):
        namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    return f"{socket.gethostname()}/{namespace}"


def new_name() -> str:
    """A name for a worker of this process."""
    return f"{machine()}:{os.getpid()}:{secrets.token_hex(4)}"


def is_gone(name: str, mine: str) -> bool:
    """Whether the worker of this name is known to live no more; of other machines nothing is known.

    Parameters
    ----------
    name, mine : str
        Of the worker, and of the one that asks.
    """
    where, _, rest = name.partition(":")
    pid = rest.partition(":")[0]
    if where != machine() or not pid.isdigit():
        return False
    return not is_alive(int(pid)) or (int(pid) == os.getpid() and name != mine)
