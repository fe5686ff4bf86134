"""The backend in a process of its own, for tests that talk to it as anybody would."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from qsm_ai.inference.ports import any_free


class BackendProcess:
    """``python -m qsm_ai.api`` on a free port and a data folder of its own, without a Triton to be found."""

    patience = 120.0
    """Seconds that it may take to begin."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.port = any_free()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "backend.log"
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("QSM_")},
            "QSM_DATA_DIR": str(folder / "data"),
            "QSM_PORT": str(self.port),
            "QSM_TRITON_URL": f"127.0.0.1:{any_free(but={self.port})}",
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "qsm_ai.api"],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if httpx.get(f"{self.url}/healthz", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise AssertionError(self.log.read_text())
