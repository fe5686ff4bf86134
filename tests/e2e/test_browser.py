"""From a phase to a map in a browser: Triton, backend and page as they run for people."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

if TYPE_CHECKING:
    from tests.conftest import Files
    from tests.e2e.conftest import Service

COMMAND = Path(sys.executable).with_name("qsm-ai")
REAL_CROP = Path(os.environ.get("QSM_SHARED_DATA", "../shared/data")) / "mgre_small"
ROUNDING = 1e-5
"""ppm; what summing in another order may change."""

expect.set_options(timeout=60_000)


def sidecar(image: Path) -> Path:
    return image.with_name(image.name.replace(".nii.gz", ".json"))


def drop(page: Page, paths: Sequence[Path]) -> None:
    page.locator("input[type=file]").set_input_files(paths)


def expect_filled(page: Page, label: str, value: str) -> None:
    # While a run of the page is under way, the old field may stand beside the new one.
    field = page.get_by_label(label)
    expect(field).to_have_count(1)
    expect(field.first).to_have_value(value)


def fill(page: Page, label: str, value: str) -> None:
    page.get_by_label(label).fill(value)
    page.get_by_label(label).press("Enter")


def reconstruct(page: Page) -> None:
    button = page.get_by_role("button", name="Reconstruct", exact=True)
    expect(button).to_be_enabled()
    button.click()


def slice_of(page: Page, title: str, axis: str) -> Locator:
    return page.get_by_alt_text(f"{title}, {axis} slice")


def wait_for_map(page: Page) -> None:
    for axis in ("axial", "coronal", "sagittal"):
        expect(slice_of(page, "Susceptibility", axis)).to_be_visible(timeout=150_000)


def pixels(picture: Locator) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("RGB"), dtype=int)


def drawn(canvas: Locator) -> np.ndarray:
    """Pixels of a canvas once two looks at it are the same."""
    before = pixels(canvas)
    for _ in range(40):
        canvas.page.wait_for_timeout(250)
        now = pixels(canvas)
        if np.array_equal(before, now):
            return now
        before = now
    raise AssertionError("the canvas never comes to rest")


def wait_for_colour(page: Page, canvas: Locator) -> np.ndarray:
    for _ in range(40):
        now = drawn(canvas)
        if np.mean(np.ptp(now, axis=2) > 60) > 0.02:
            return now
        page.wait_for_timeout(250)
    return now


def download(page: Page, button: Locator, path: Path) -> Path:
    with page.expect_download() as started:
        button.click()
    started.value.save_as(path)
    return path


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def shown_command(page: Page) -> list[str]:
    open_tab(page, "Methods")
    code = page.get_by_test_id("stCode").filter(has_text="qsm-ai reconstruct")
    text = code.locator("code").inner_text()
    return shlex.split(text.replace("\\\n", " "))


def assert_same_map(one: Path, other: Path) -> None:
    a, b = nib.load(one), nib.load(other)
    np.testing.assert_allclose(a.affine, b.affine, atol=1e-6)
    first, second = a.get_fdata(), b.get_fdata()
    assert np.isfinite(first).all()
    assert first.std() > 1e-3
    np.testing.assert_allclose(first, second, rtol=0, atol=ROUNDING)


def run_shown_command(page: Page, inputs: Sequence[Path], folder: Path) -> Path:
    """Do what the page says is equivalent, in a folder with the same files."""
    program, *arguments = shown_command(page)
    assert program == "qsm-ai"
    folder.mkdir()
    for path in inputs:
        shutil.copy(path, folder)
    subprocess.run([COMMAND, *arguments, "--quiet"], cwd=folder, check=True, timeout=120)
    (made,) = (folder / "qsm").glob("*_Chimap.nii.gz")
    return made


def download_map(page: Page, path: Path) -> Path:
    open_tab(page, "Files")
    row = page.locator('[class*="st-key-download-"]:is([class$="-chi"], [class*="-chi "])')
    return download(page, row.get_by_role("button"), path)


def test_a_dropped_scan_becomes_the_map_that_the_command_line_makes(
    page: Page, files: Files, tmp_path: Path
) -> None:
    images = [*files.echo_phase, *files.echo_magnitude]
    inputs = [*images, *map(sidecar, images)]
    drop(page, inputs)
    expect_filled(page, "Echo times (ms)", "4, 8, 12")
    expect_filled(page, "Field strength (T)", "3")
    reconstruct(page)
    wait_for_map(page)
    expect(slice_of(page, "Field that the map does not explain", "axial")).to_be_visible()

    brightness = pixels(slice_of(page, "Susceptibility", "axial")).mean(axis=2)
    assert brightness.std() > 10

    from_browser = download_map(page, tmp_path / "browser.nii.gz")
    assert_same_map(from_browser, run_shown_command(page, inputs, tmp_path / "same"))


@pytest.mark.skipif(not REAL_CROP.is_dir(), reason="the real crop mgre_small is not here (QSM_SHARED_DATA)")
def test_a_real_scan_becomes_the_map_that_the_command_line_makes(page: Page, tmp_path: Path) -> None:
    inputs = [REAL_CROP / "phase.nii.gz", REAL_CROP / "magnitude.nii.gz"]
    drop(page, inputs)
    expect(page.get_by_text("3 echoes").first).to_be_visible()
    fill(page, "Echo times (ms)", "4, 8, 12")
    fill(page, "Field strength (T)", "7")
    reconstruct(page)
    wait_for_map(page)
    from_browser = download_map(page, tmp_path / "browser.nii.gz")
    assert_same_map(from_browser, run_shown_command(page, inputs, tmp_path / "same"))


def test_a_bad_file_is_refused_with_a_sentence_and_a_mend(
    page: Page, service: Service, tmp_path: Path
) -> None:
    bad = tmp_path / "phase.nii.gz"
    bad.write_bytes(b"this is not an image")
    drop(page, [bad])
    fill(page, "Echo times (ms)", "4, 8, 12")
    fill(page, "Field strength (T)", "3")
    reconstruct(page)
    alert = page.get_by_role("alert").filter(has_text="phase.nii.gz")
    expect(alert).to_be_visible()
    sentence, mend = alert.locator("p").all_inner_texts()
    assert len(sentence) > 20
    assert len(mend) > 10
    assert "Traceback" not in page.inner_text("body")
    expect_filled(page, "Echo times (ms)", "4, 8, 12")


def test_the_sample_is_two_clicks_away(page: Page) -> None:
    page.get_by_role("button", name="Try the sample scan").click()
    expect_filled(page, "Echo times (ms)", "4, 8, 12")
    page.get_by_role("radio", name="Tikhonov").click()
    reconstruct(page)
    wait_for_map(page)
    page.reload()
    wait_for_map(page)


def test_the_page_asks_no_other_server(browser: Browser, service: Service) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(service.page)
    page.get_by_role("button", name="Try the sample scan").wait_for()
    page.wait_for_load_state("networkidle")
    context.close()
    assert [url for url in asked if not url.startswith((service.page, "data:", "blob:"))] == []


@pytest.mark.parametrize("width", [390, 900])
def test_every_choice_is_in_sight_in_a_narrow_window(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 1300})
    page.wait_for_function(
        """() => [...document.querySelectorAll('[role=radio]')].every(radio => {
            const outer = radio.closest('[role=radiogroup]').getBoundingClientRect();
            const inner = radio.getBoundingClientRect();
            return inner.left >= outer.left - 1 && inner.right <= outer.right + 1;
        })""",
        timeout=5000,
    )


class TestFinishedJob:
    """A visitor follows a link to a finished job."""

    @pytest.fixture(autouse=True)
    def job(self, page: Page, service: Service, files: Files) -> str:
        sent = [("phase", (files.phase.name, files.phase.read_bytes()))]
        fields = {"te_ms": "4 8 12", "b0": "3", "method": "tkd", "wait": "60"}
        answer = httpx.post(f"{service.api}/api/v1/reconstruct", files=sent, data=fields, timeout=90)
        assert answer.status_code == 200
        job_id = str(answer.json()["id"])
        page.goto(f"{service.page}/?job={job_id}")
        wait_for_map(page)
        return job_id

    def test_one_slider_moves_the_crosshair_in_the_other_planes(self, page: Page) -> None:
        coronal = slice_of(page, "Susceptibility", "coronal")
        before = coronal.get_attribute("src")
        slider = page.get_by_role("slider", name="Axial slice")
        slider.focus()
        slider.press("ArrowRight")
        expect(coronal).not_to_have_attribute("src", str(before))
        expect(page.get_by_role("alert").filter(has_text="slice")).to_have_count(0)

    def test_the_whole_volume_is_drawn_by_the_browser_and_follows_window_and_mouse(self, page: Page) -> None:
        page.get_by_role("radio", name="Volume", exact=True).click()
        frame = page.frame_locator("iframe[title*=volume]")
        expect(frame.locator("body")).to_have_attribute("data-state", "drawn")
        canvas = frame.locator("canvas")
        first = drawn(canvas)
        brightness = first.mean(axis=2)
        assert brightness.std() > 10
        # The air is as dark as what is behind the canvas, in the planes and in the view of the whole.
        assert np.mean(brightness < 20) > 0.5
        # Somewhere in the first plane's brain, off its middle, where the crosshair is.
        height, width = brightness.shape
        rows, columns = np.nonzero(brightness[: height // 2, : width // 2] > 40)
        x, y = np.percentile(columns, 30), np.percentile(rows, 30)
        canvas.click(position={"x": float(x), "y": float(y)})
        expect(frame.locator("#told")).to_contain_text("ppm")
        moved = drawn(canvas)
        assert np.mean(np.abs(moved - first).max(axis=2) > 20) > 0.01
        page.get_by_role("radio", name="Blue to red").click()
        coloured = wait_for_colour(page, canvas)
        assert np.mean(np.ptp(coloured, axis=2) > 60) > 0.02

    def test_without_webgl_the_reader_is_told_and_has_the_slices(self, page: Page) -> None:
        page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
        page.reload()
        wait_for_map(page)
        page.get_by_role("radio", name="Volume", exact=True).click()
        told = page.frame_locator("iframe[title*=volume]").locator("#told")
        expect(told).to_contain_text("needs WebGL 2")
        page.get_by_role("radio", name="Slices", exact=True).click()
        wait_for_map(page)

    def test_everything_comes_in_one_archive(self, page: Page, tmp_path: Path) -> None:
        open_tab(page, "Files")
        button = page.get_by_role("button", name="Download everything")
        with zipfile.ZipFile(download(page, button, tmp_path / "all.zip")) as archive:
            names = archive.namelist()
            report = json.loads(archive.read(next(n for n in names if n.endswith("_qsm.json"))))
        suffixes = {name.rsplit("_", 1)[1] for name in names}
        assert {"Chimap.nii.gz", "mask.nii.gz", "localfield.nii.gz", "residual.nii.gz"} <= suffixes
        assert report["options"]["method"] == "tkd"

    def test_the_quality_page_shows_its_pictures_without_the_service(
        self, page: Page, browser: Browser, tmp_path: Path
    ) -> None:
        open_tab(page, "Files")
        row = page.locator('[class*="st-key-download-"]:is([class$="-page"], [class*="-page "])')
        path = download(page, row.get_by_role("button"), tmp_path / "phase_qsm.html")
        context = browser.new_context(offline=True)
        found = context.new_page()
        found.goto(path.as_uri())
        pictures = found.get_by_role("img")
        expect(pictures).to_have_count(3)
        for picture in pictures.all():
            assert pixels(picture).std() > 10
        expect(found.get_by_text("not a medical device")).to_be_visible()
        context.close()

    def test_a_deleted_job_is_gone(self, page: Page, service: Service, job: str) -> None:
        page.get_by_role("button", name="Delete", exact=True).click()
        page.get_by_role("button", name="Delete everything").click()
        expect(page.get_by_role("heading", name="From phase to susceptibility")).to_be_visible()
        assert httpx.get(f"{service.api}/api/v1/jobs/{job}").status_code == 404
