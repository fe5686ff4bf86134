"""``python -m qsm_ai.ui``: the page, with logs, metrics and traces from its first line on.

Arguments go to ``streamlit run``.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from qsm_ai import __version__
from qsm_ai.ui import log, metrics, tracing


def main() -> None:
    """Serve until told to stop."""
    log.configure(os.environ.get("QSM_LOG_LEVEL", "info"))
    traced = tracing.configure()
    port = int(os.environ.get("QSM_UI_METRICS_PORT", "0"))
    if port:
        metrics.serve(port, os.environ.get("QSM_UI_METRICS_HOST", "127.0.0.1"))
    from streamlit.web import cli

    logging.getLogger("qsm_ai.ui").info(
        "page.starting", extra={"version": __version__, "metrics_port": port, "traced": traced}
    )
    page = Path(__file__).with_name("app.py")
    sys.argv = [
        "streamlit",
        "run",
        str(page),
        *sys.argv[1:],
        "--logger.hideWelcomeMessage=true",
        "--logger.level=warning",
        "--logger.enableRich=false",
    ]
    cli.main()


if __name__ == "__main__":
    main()
