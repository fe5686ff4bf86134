"""``python -m qsm_ai.api``: serve on the address that the settings name."""

from __future__ import annotations

import sys

import uvicorn
from pydantic import ValidationError

from qsm_ai.api.app import create_app
from qsm_ai.api.protocol import BoundedProtocol
from qsm_ai.api.settings import Settings, say
from qsm_ai.jobs.errors import DatabaseMismatchError

KEPT_ALIVE = 75
"""Seconds for which an idle connection stays open."""

REFUSED = 2
"""Exit status where the settings are not such that it may start."""


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
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        http=BoundedProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        # Longer than a balancer keeps an idle connection: else it sends into one that closes at this moment.
        timeout_keep_alive=KEPT_ALIVE,
        timeout_graceful_shutdown=3,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
