"""``python -m qsm_ai.api``: serve on the address that the settings name."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from qsm_ai.api.app import create_app
from qsm_ai.api.protocol import BoundedProtocol
from qsm_ai.api.settings import Settings, say
from qsm_ai.jobs.errors import DatabaseMismatchError

KEPT_ALIVE = 75
"""Seconds for which an idle connection stays open."""

REFUSED = 2
"""Exit status where the settings are not such that it may start."""

NOT_STARTED = 3
"""Exit status where the start failed, as of uvicorn itself."""


class Server(uvicorn.Server):
    """Tells the application when it is told to end.

    Event streams and requests that wait for a job's news end by themselves then (``waiting.py``), so
    that the time that is left belongs to uploads and downloads.

    Parameters
    ----------
    app : FastAPI
        Its ``state.is_ending`` is true from then on.
    config : uvicorn.Config
        How to serve it.
    """

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, let those under way end."""
        self._app.state.is_ending = True
        await super().shutdown(sockets)


def main() -> int:
    """Serve until told to stop; refuse settings that cannot be, in one sentence each.

    Returns
    -------
    int
        Exit status.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        sys.stderr.write(f"QSM-AI does not start.\n{say(error)}\n")
        return REFUSED
    try:
        app = create_app(settings)
    except DatabaseMismatchError as error:
        sys.stderr.write(f"QSM-AI does not start.\n{error}\n")
        return REFUSED
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=BoundedProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        # Longer than a balancer keeps an idle connection: else it sends into one that closes at this moment.
        timeout_keep_alive=KEPT_ALIVE,
        timeout_graceful_shutdown=settings.shutdown_s,
    )
    server = Server(app, config)
    with suppress(KeyboardInterrupt):
        server.run()
    return 0 if server.started else NOT_STARTED


if __name__ == "__main__":
    sys.exit(main())
