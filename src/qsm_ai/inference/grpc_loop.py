"""One event loop for all of this process's gRPC, in a thread of its own.

grpc.aio shares one completion queue between the event loops of a process, and several loops in several
threads disturb each other. Worker threads and the web server's own loop therefore hand their calls to this
one, which also keeps the copying of patches into messages away from the web server.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="qsm-ai-grpc", daemon=True).start()
    return loop


_starting = threading.Lock()


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Run a coroutine on the gRPC loop.

    Parameters
    ----------
    work : coroutine

    Returns
    -------
    concurrent.futures.Future
        Cancelling it cancels the work.
    """
    with _starting:
        loop = _loop()
    return asyncio.run_coroutine_threadsafe(work, loop)
