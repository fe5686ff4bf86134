"""Take the README's picture: ``python docs/images/take.py http://127.0.0.1:8501`` while the service runs.

It shows the simulated sample, never a person's scan.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright


def main(address: str) -> None:
    """Reconstruct the sample in a browser and take a picture of the result."""
    chromium = os.environ.get("QSM_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 1340}, color_scheme="light")
        page.set_default_timeout(540_000)
        page.goto(address)
        page.get_by_role("button", name="Try the sample scan").click()
        page.get_by_text("read from the sidecars").wait_for()
        page.get_by_role("button", name="Reconstruct", exact=True).click()
        page.get_by_alt_text("Susceptibility, sagittal slice").wait_for()
        page.get_by_text("Sphere at the crosshair").wait_for()
        page.wait_for_timeout(2000)
        page.mouse.move(2, 2)
        page.screenshot(path=Path(__file__).with_name("ui.png"))
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
