"""Finding TCP ports that nobody listens on."""

from __future__ import annotations

import random
import socket

LOWEST_FREE, HIGHEST_FREE = 20000, 32000
"""Where free ports are looked for: below the range that Linux hands out to outgoing connections."""

HIGHEST_PORT = 65535


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on ``host:port`` now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def next_free(wanted: int, host: str = "127.0.0.1", *, but: set[int] | None = None, tries: int = 100) -> int:
    """The wanted port, or the first free one after it.

    Parameters
    ----------
    wanted : int
    host : str
        Address that the server will bind.
    but : set of int
        Ports promised to others already.
    tries : int
        How many ports are looked at.

    Returns
    -------
    int

    Raises
    ------
    OSError
        When none of them is free.
    """
    for port in range(wanted, min(wanted + tries, 65536)):
        if port not in (but or set()) and is_free(port, host):
            return port
    raise OSError(f"no free port from {wanted} to {min(wanted + tries, 65536) - 1} on {host}")


def any_free(host: str = "127.0.0.1", *, but: set[int] | None = None) -> int:
    """A free port, drawn by chance so that servers started at the same moment hardly ever collide."""
    start = random.SystemRandom().randrange(LOWEST_FREE, HIGHEST_FREE)
    return next_free(start, host, but=but)
