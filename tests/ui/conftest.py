"""The page, run without a browser against a real backend."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import qsm_ai.ui.app
from qsm_ai.inference.ports import any_free
from qsm_ai.ui import session


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a backend without Triton: closed-form methods only."""
    with _backend(tmp_path_factory.mktemp("backend")) as url:
        yield url


@pytest.fixture(scope="session")
def start_api() -> Callable[..., AbstractContextManager[str]]:
    """Start a backend in a folder, with settings of one's own; its address."""
    return _backend


@pytest.fixture
def busy_api(tmp_path: Path) -> Iterator[str]:
    """Address of a backend that takes jobs in and computes none."""
    with _backend(tmp_path, QSM_WORKERS="0") as url:
        yield url


@contextmanager
def _backend(folder: Path, **more: str) -> Iterator[str]:
    port = any_free()
    settings = {
        "QSM_DATA_DIR": str(folder / "data"),
        "QSM_PORT": str(port),
        "QSM_TRITON_URL": f"127.0.0.1:{any_free(but={port})}",
        "QSM_TRITON_PATIENCE_S": "0",
        **more,
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "qsm_ai.api"],
            env={**os.environ, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_alive(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_alive(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/healthz", timeout=1).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    pytest.fail(log.read_text())


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AppTest]]:
    """Open the page on a backend at some address, as a new visitor."""

    def open_at(url: str, **query: str) -> AppTest:
        monkeypatch.setenv("QSM_API_URL", url)
        session.shared_backend().close()
        session.shared_backend.clear()
        page = AppTest.from_file(str(Path(qsm_ai.ui.app.__file__)), default_timeout=30)
        for key, value in query.items():
            page.query_params[key] = value
        return page.run()

    yield open_at
    session.shared_backend().close()
    st.cache_resource.clear()
    st.cache_data.clear()
