"""Signing in at the page: a real browser, a real identity provider, and a backend that believes it."""

from __future__ import annotations

import os
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

import qsm_ai.ui.app
from qsm_ai.inference.ports import any_free

if TYPE_CHECKING:
    from tests.access.conftest import Backend, Issuer, StartBackend

SECRETS = """
[auth]
redirect_uri = "{page}/oauth2callback"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "qsm-ai"
client_secret = "known to the page and the issuer"
server_metadata_url = "{issuer}/.well-known/openid-configuration"
expose_tokens = "id"
"""


@dataclass
class House:
    """The page, the backend behind it, and the identity provider of both."""

    url: str
    backend: Backend
    issuer: Issuer


@pytest.fixture(scope="module")
def house(
    start_backend: StartBackend, module_issuer: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("page")
    with start_backend(
        QSM_ACCESS="keys,oidc",
        QSM_OIDC_ISSUER=module_issuer.url,
        QSM_OIDC_AUDIENCE="qsm-ai",
        QSM_WORKERS="0",
    ) as backend:
        port = any_free(but={backend.port, module_issuer.port})
        url = f"http://localhost:{port}"
        (folder / "secrets.toml").write_text(SECRETS.format(page=url, issuer=module_issuer.url))
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("QSM_", "STREAMLIT_"))}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "streamlit", "run", str(Path(qsm_ai.ui.app.__file__)),
                    "--server.address=127.0.0.1", f"--server.port={port}", "--server.headless=true",
                    "--server.fileWatcherType=none", "--browser.gatherUsageStats=false",
                    f"--secrets.files={folder / 'secrets.toml'}",
                ],
                env={**environment, "QSM_API_URL": backend.url},
                stdout=log, stderr=subprocess.STDOUT, cwd=folder,
            )  # fmt: skip
        try:
            deadline = time.monotonic() + 180
            while time.monotonic() < deadline:
                assert process.poll() is None, (folder / "log").read_text()
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/_stcore/health", timeout=5).is_success:
                        break
                except httpx.HTTPError:
                    time.sleep(0.2)
            yield House(url, backend, module_issuer)
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def page(browser: Browser, house: House) -> Iterator[Page]:
    """A new visitor."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.goto(house.url)
    page.get_by_role("heading", name="Sign in").wait_for()
    yield page
    context.close()


def sign_in(page: Page) -> None:
    page.get_by_role("button", name="Sign in", exact=True).click()


def test_whoever_signs_in_is_the_same_user_to_the_api(page: Page, house: House) -> None:
    assert page.get_by_role("heading", name="From phase to susceptibility").count() == 0
    house.issuer.person = "u-77"
    sign_in(page)
    page.get_by_role("heading", name="From phase to susceptibility").wait_for()
    page.get_by_text("Signed in as Dr u-77").wait_for()
    with house.backend.client(house.issuer.token("u-77")) as same:
        alias = same.get("/api/v1/me").json()["alias"]
    requests = [line for line in house.backend.log.read_text().splitlines() if alias in line]
    assert any('"/api/v1/me"' in line for line in requests)
    # The token is the browser's and the servers' affair: no script reads it, no log holds it.
    cookies = [c for c in page.context.cookies() if c["name"].startswith("_streamlit_user")]
    assert cookies
    assert all(cookie["httpOnly"] and cookie["sameSite"] == "Lax" for cookie in cookies)
    assert "eyJ" not in house.backend.log.read_text()

    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()


def test_an_api_key_opens_the_page_for_this_visit_only(page: Page, house: House) -> None:
    page.get_by_text("Use an API key").click()
    field = page.get_by_label("API key", exact=True)
    field.fill("qsm_aaaaaaaaaa_" + "A" * 43)
    page.get_by_role("button", name="Continue").click()
    page.get_by_text("not valid (any more)").wait_for()
    key = house.backend.key("alice")
    page.get_by_text("Use an API key").click()
    page.get_by_label("API key", exact=True).fill(key)
    page.get_by_role("button", name="Continue").click()
    page.get_by_text("Signed in with an API key").wait_for()
    assert key not in page.content()
    page.goto(house.url)
    page.get_by_role("heading", name="Sign in").wait_for()


def test_a_token_that_ends_leads_back_to_the_issuer(page: Page, house: House) -> None:
    house.issuer.person, house.issuer.lifetime = "u-78", -55.0
    try:
        # Five seconds are left of what clocks may differ by.
        sign_in(page)
        page.get_by_role("button", name="Sign in again").wait_for()
    finally:
        house.issuer.lifetime = 600.0
    page.get_by_role("button", name="Sign in again").click()
    page.get_by_role("button", name="Sign in", exact=True).wait_for()
    sign_in(page)
    page.get_by_text("Signed in as Dr u-78").wait_for()
