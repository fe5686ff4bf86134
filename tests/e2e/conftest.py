"""The whole service as ``qsm-ai serve`` starts it, and a real browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import Browser, Page

from qsm_ai.inference.ports import any_free

if TYPE_CHECKING:
    from tests.conftest import Files

COMMAND = Path(sys.executable).with_name("qsm-ai")


@dataclass(frozen=True)
class Service:
    """Where the running service is."""

    page: str
    api: str


def sidecar(image: Path) -> Path:
    """The JSON beside an image."""
    return image.with_name(image.name.replace(".nii.gz", ".json"))


@pytest.fixture(scope="session")
def sample(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated scan as a BIDS folder."""
    folder = tmp_path_factory.mktemp("sample")
    anat = folder / "sub-1" / "anat"
    anat.mkdir(parents=True)
    for image in (*files.echo_phase, *files.echo_magnitude):
        shutil.copy(image, anat)
        shutil.copy(sidecar(image), anat)
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "Sample", "BIDSVersion": "1.9.0"}))
    return folder


@pytest.fixture(scope="session")
def service(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    ports: set[int] = set()
    for _ in range(5):
        ports.add(any_free(but=ports))
    page, api, *triton = ports
    names = ("--triton-http-port", "--triton-grpc-port", "--triton-metrics-port")
    arguments = [f"{name}={port}" for name, port in zip(names, triton, strict=True)]
    # The caller's own settings stay out, but for where Triton's environment is.
    environment = {
        key: value
        for key, value in os.environ.items()
        if key == "QSM_TRITON_ENV" or not key.startswith(("QSM_", "STREAMLIT_"))
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                COMMAND,
                "serve",
                f"--port={page}",
                f"--api-port={api}",
                f"--data={folder / 'data'}",
                *arguments,
            ],
            env={**environment, "QSM_SAMPLE_DIR": str(sample)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    found = Service(f"http://127.0.0.1:{page}", f"http://127.0.0.1:{api}")
    try:
        deadline = time.monotonic() + 240
        while not _is_ready(found):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _is_ready(service: Service) -> bool:
    try:
        return all(
            httpx.get(url, timeout=5).is_success
            for url in (f"{service.api}/readyz", f"{service.page}/_stcore/health")
        )
    except httpx.HTTPError:
        return False


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    """A new visitor in front of the empty form."""
    context = browser.new_context(
        viewport={"width": 1440, "height": 1300}, accept_downloads=True, color_scheme="light"
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(service.page)
    page.get_by_role("heading", name="From phase to susceptibility").wait_for()
    yield page
    context.close()
