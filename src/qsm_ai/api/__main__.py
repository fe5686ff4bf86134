"""``python -m qsm_ai.api``: serve on the address that the settings name."""

from __future__ import annotations

import uvicorn

from qsm_ai.api.app import create_app
from qsm_ai.api.settings import Settings


def main() -> None:
    """Serve until told to stop."""
    settings = Settings()
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )


if __name__ == "__main__":
    main()
