"""The page as a visitor uses it, against a real backend."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from qsm_ai.inference.ports import any_free
from qsm_ai.ui import volume
from qsm_ai.ui.backend import Backend, Job, Problem

if TYPE_CHECKING:
    from tests.conftest import Files

Open = Callable[..., AppTest]


def drop(page: AppTest, paths: Sequence[Path | tuple[str, bytes]]) -> AppTest:
    for path in paths:
        name, content = path if isinstance(path, tuple) else (path.name, path.read_bytes())
        page.file_uploader[0].upload(name, content)
    return page.run()


def with_sidecars(paths: Sequence[Path]) -> list[Path]:
    return [p for path in paths for p in (path, path.with_name(path.name.replace(".nii.gz", ".json")))]


def field(page: AppTest, label: str) -> str:
    return str(next(w.value for w in [*page.text_input, *page.number_input] if w.label == label))


def fill(page: AppTest, times: str, tesla: float) -> AppTest:
    next(w for w in page.text_input if w.label == "Echo times (ms)").set_value(times)
    next(w for w in page.number_input if w.label == "Field strength (T)").set_value(tesla)
    return page.run()


def button(page: AppTest, label: str) -> AppTest:
    return next(b for b in page.button if b.label == label)  # type: ignore[return-value]


def words(page: AppTest) -> str:
    kinds = (page.markdown, page.caption, page.warning, page.error, page.info, page.title)
    return "\n".join(element.value for kind in kinds for element in kind)


def choose(page: AppTest, method: str) -> AppTest:
    page.segmented_control(key="method").set_value(method)
    return page.run()


def send(page: AppTest) -> AppTest:
    button(page, "Reconstruct").click()
    return page.run()


def jobs_of(url: str) -> list[str]:
    return [job["id"] for job in httpx.get(f"{url}/api/v1/jobs").json()["jobs"]]


def wait_for_end(page: AppTest) -> AppTest:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(b.label in {"Delete everything", "Try again"} for b in page.button):
            return page
        time.sleep(0.3)
        page.run()
    pytest.fail(words(page))


class TestForm:
    def test_an_empty_form_cannot_be_sent_and_complains_of_nothing(self, open_page: Open, api: str) -> None:
        page = open_page(api)
        assert button(page, "Reconstruct").disabled
        assert not page.warning
        assert "Research use. Not a medical device." in words(page)

    def test_dropped_files_sort_themselves_and_fill_the_form(
        self, open_page: Open, api: str, files: Files
    ) -> None:
        page = drop(open_page(api), with_sidecars([*files.echo_phase, *files.echo_magnitude]))
        assert field(page, "Echo times (ms)") == "4, 8, 12"
        assert field(page, "Field strength (T)") == "3.0"
        assert "3 echoes · 48 × 44 × 40 voxels of 1 × 1.1 × 1.25 mm" in words(page)
        assert not button(page, "Reconstruct").disabled

    def test_what_is_missing_is_asked_for(self, open_page: Open, api: str, files: Files) -> None:
        page = drop(open_page(api), [files.phase, files.magnitude])
        assert button(page, "Reconstruct").disabled
        assert "The echo times are missing." in page.warning[0].value
        assert "The field strength is missing." in page.warning[0].value
        page = fill(page, "4 8 12", 3.0)
        assert not page.warning
        assert not button(page, "Reconstruct").disabled

    def test_typed_times_stay_until_sidecars_say_otherwise(
        self, open_page: Open, api: str, files: Files
    ) -> None:
        page = fill(drop(open_page(api), [files.phase]), "5 9 13", 7.0)
        page = drop(page, [files.mask])
        assert (field(page, "Echo times (ms)"), field(page, "Field strength (T)")) == ("5 9 13", "7.0")
        page = drop(page, with_sidecars(files.echo_phase)[1::2])
        assert (field(page, "Echo times (ms)"), field(page, "Field strength (T)")) == ("4, 8, 12", "3.0")

    def test_seconds_given_as_ms_are_noticed(self, open_page: Open, api: str, files: Files) -> None:
        page = fill(drop(open_page(api), [files.phase]), "0.004 0.008 0.012", 3.0)
        assert "4, 8, 12 ms" in page.warning[0].value
        assert button(page, "Reconstruct").disabled

    def test_a_wrong_sorting_can_be_corrected(self, open_page: Open, api: str, files: Files) -> None:
        given = [("a.nii.gz", files.phase.read_bytes()), ("b.nii.gz", files.magnitude.read_bytes())]
        page = drop(open_page(api), given)
        assert "No file is marked as phase." in page.warning[0].value
        page.selectbox(key="role/a.nii.gz/unused").set_value("phase")
        page.selectbox(key="role/b.nii.gz/unused").set_value("magnitude")
        page = fill(page.run(), "4 8 12", 3.0)
        assert not button(page, "Reconstruct").disabled


class TestRefusals:
    def test_a_refused_file_is_named_with_the_reason_and_the_mend(self, open_page: Open, api: str) -> None:
        page = fill(drop(open_page(api), [("phase.nii", b"this is not an image")]), "4 8", 3.0)
        page = send(page)
        (error,) = page.error
        assert "phase.nii" in error.value
        assert len(error.value.split("\n\n")) == 2
        assert all(len(part) > 10 for part in error.value.split("\n\n"))
        assert not page.exception

    def test_the_form_stays_filled(self, open_page: Open, api: str, files: Files) -> None:
        broken = gzip.compress(gzip.decompress(files.phase.read_bytes())[:5000])
        page = send(fill(drop(open_page(api), [("phase.nii.gz", broken)]), "4 8 12", 3.0))
        assert page.error
        assert field(page, "Echo times (ms)") == "4 8 12"
        assert not button(page, "Reconstruct").disabled

    def test_a_sidecar_that_is_said_to_be_left_aside_is(
        self, open_page: Open, busy_api: str, files: Files
    ) -> None:
        page = drop(open_page(busy_api), [*with_sidecars(files.echo_phase), ("notes.json", b"{")])
        assert "notes.json is not readable as JSON and was left aside." in page.warning[0].value
        assert "Waiting for a free place" in words(send(choose(page, "tkd")))

    def test_a_backend_that_is_down_is_said_to_be_down(self, open_page: Open, files: Files) -> None:
        page = open_page(f"http://127.0.0.1:{any_free()}")
        page = send(fill(drop(page, [files.phase]), "4 8 12", 3.0))
        assert "The service cannot be reached." in page.error[0].value
        assert not page.exception

    def test_a_job_can_be_loaded_again_once_the_service_is_back(self, open_page: Open) -> None:
        page = open_page(f"http://127.0.0.1:{any_free()}", job="0" * 32)
        assert "The service cannot be reached." in page.error[0].value
        button(page, "Load again").click()
        assert not page.run().exception

    def test_a_job_that_is_gone_cannot_be_loaded_again(self, open_page: Open, api: str) -> None:
        page = open_page(api, job="0" * 32)
        assert not any(b.label == "Load again" for b in page.button)

    @pytest.mark.parametrize("job", ["0" * 32, "../../healthz", "a/b?c#d", " "])
    def test_a_job_that_does_not_exist_is_no_crash(self, open_page: Open, api: str, job: str) -> None:
        page = open_page(api, job=job)
        assert page.error
        assert not page.exception
        button(page, "New scan").click()
        assert "From phase to susceptibility" in words(page.run())


class TestJob:
    @pytest.fixture
    def finished(self, open_page: Open, api: str, files: Files) -> AppTest:
        page = drop(open_page(api), with_sidecars([*files.echo_phase, *files.echo_magnitude]))
        page = wait_for_end(send(choose(page, "tikhonov")))
        assert not page.exception
        return page

    def test_a_finished_job_shows_scores_planes_numbers_and_files(self, finished: AppTest) -> None:
        labels = {metric.label for metric in finished.metric}
        assert {"Field explained", "Field left over", "Computed in", "Susceptibility"} <= labels
        assert len(finished.image) == 6 + 2
        assert any("--te-ms 4 8 12" in code.value for code in finished.code)
        assert any("Tikhonov" in code.value for code in finished.code)
        downloads = finished.get("download_button")
        assert len(downloads) >= 9

    def test_each_slider_stands_below_the_picture_that_it_moves(self, finished: AppTest) -> None:
        pairs = [
            (column.image[0].proto.imgs[0].alt, column.slider[0].label.split(" slice")[0])
            for column in finished.columns
            if column.image and column.slider
        ]
        assert pairs == [
            ("Susceptibility, axial slice", "Axial"),
            ("Susceptibility, coronal slice", "Coronal"),
            ("Susceptibility, sagittal slice", "Sagittal"),
        ]

    def test_the_crosshair_moves_all_planes(self, finished: AppTest) -> None:
        slider = next(s for s in finished.slider if s.label.startswith("Axial"))
        before = [image.proto.imgs[0].url for image in finished.image]
        slider.set_value(slider.value + 5)
        after = [image.proto.imgs[0].url for image in finished.run().image]
        assert not finished.exception
        changed = [a != b for a, b in zip(before, after, strict=True)]
        assert sum(changed) == 6

    def test_volumes_are_offered_where_niivue_is_and_a_browser_can_hold_them(
        self, finished: AppTest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def ways(page: AppTest) -> list[Any]:
            return [w for w in page.segmented_control if str(w.key).startswith("way/")]

        monkeypatch.setattr(volume, "installed", lambda: False)
        assert ways(finished.run()) == []
        monkeypatch.setattr(volume, "installed", lambda: True)
        (way,) = ways(finished.run())
        monkeypatch.setattr(volume, "LARGEST", 1000)
        way.set_value("Volume")
        assert "too large for a browser" in words(finished.run())
        assert not finished.exception

    def test_deleting_leaves_nothing_behind(self, finished: AppTest) -> None:
        button(finished, "Delete everything").click()
        finished.run()
        assert not finished.exception
        assert "job" not in finished.query_params
        assert not any(str(b.key).startswith("open/") for b in finished.button)

    def test_a_failed_job_says_why_and_can_be_tried_again(
        self, open_page: Open, api: str, files: Files
    ) -> None:
        page = drop(open_page(api), with_sidecars(files.echo_phase))
        page = wait_for_end(send(choose(page, "qsm-vit")))
        (error,) = page.error
        assert "retry the job later" in error.value
        button(page, "Try again").click()
        assert not page.run().exception


class TestQueue:
    def test_a_waiting_job_says_its_place_and_can_be_cancelled(
        self, open_page: Open, busy_api: str, files: Files
    ) -> None:
        page = send(choose(drop(open_page(busy_api), with_sidecars(files.echo_phase)), "tkd"))
        assert "Waiting for a free place" in words(page)
        assert "next in line" in words(page)
        button(page, "Cancel").click()
        page.run()
        assert "This reconstruction was cancelled." in words(page.run())
        assert not page.exception

    def test_a_scan_sent_again_because_the_answer_was_lost_is_one_job(
        self, open_page: Open, busy_api: str, files: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        page = choose(drop(open_page(busy_api), with_sidecars(files.echo_phase)), "tkd")
        submit = Backend.submit

        def lose(*arguments: Any) -> Job:
            submit(*arguments)
            raise Problem("timeout", "The service does not answer in time.")

        monkeypatch.setattr(Backend, "submit", lose)
        assert "in time" in send(page).error[0].value
        monkeypatch.setattr(Backend, "submit", submit)
        assert "Waiting for a free place" in words(send(page))
        assert len(jobs_of(busy_api)) == 1

    def test_a_click_while_a_scan_is_sent_does_not_lose_its_job(
        self, open_page: Open, busy_api: str, files: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        page = choose(drop(open_page(busy_api), with_sidecars(files.echo_phase)), "tkd")

        @contextmanager
        def interrupted(_text: str) -> Iterator[None]:
            # What Streamlit does to a run at its next touch of the page, when another has been asked for.
            yield
            st.stop()

        with monkeypatch.context() as patched:
            patched.setattr(st, "spinner", interrupted)
            send(page)
        assert "From phase to susceptibility" in words(page.run())
        (job,) = jobs_of(busy_api)
        next(b for b in page.button if b.key == f"open/{job}").click()
        assert "Waiting for a free place" in words(page.run())

    def test_a_job_opened_by_its_address_joins_the_history(
        self, open_page: Open, busy_api: str, files: Files
    ) -> None:
        page = send(choose(drop(open_page(busy_api), with_sidecars(files.echo_phase)), "tkd"))
        job = "".join(page.query_params["job"])
        reloaded = open_page(busy_api, job=job)
        assert [b.label for b in reloaded.button if b.key == f"open/{job}"] == ["sub-1 · TKD"]

    def test_a_followed_job_that_was_deleted_elsewhere_is_no_longer_asked_for(
        self, open_page: Open, busy_api: str, files: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        page = send(choose(drop(open_page(busy_api), with_sidecars(files.echo_phase)), "tkd"))
        (job,) = jobs_of(busy_api)
        ask = Backend.job

        def delete_behind(backend: Backend, job_id: str) -> Job:
            found = ask(backend, job_id)
            httpx.delete(f"{busy_api}/api/v1/jobs/{job}")
            return found

        monkeypatch.setattr(Backend, "job", delete_behind)
        page.run()
        assert "This reconstruction cannot be shown" in words(page)
        assert "keeps asking" not in words(page)
        assert not any(b.key == f"open/{job}" for b in page.run().button)

    def test_jobs_of_this_session_are_kept_in_the_history(
        self, open_page: Open, busy_api: str, files: Files
    ) -> None:
        page = send(choose(drop(open_page(busy_api), with_sidecars(files.echo_phase)), "tkd"))
        button(page, "New scan").click()
        page.run()
        assert "From phase to susceptibility" in words(page)
        next(b for b in page.button if str(b.key).startswith("open/")).click()
        assert "Waiting for a free place" in words(page.run())


def test_the_sample_fills_the_form(
    open_page: Open, api: str, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anat = tmp_path / "sub-1" / "anat"
    truth = tmp_path / "derivatives" / "truth"
    for folder in (anat, truth):
        folder.mkdir(parents=True)
    for path in with_sidecars([*files.echo_phase, *files.echo_magnitude]):
        (anat / path.name).write_bytes(path.read_bytes())
    (truth / "sub-1_Chimap.nii.gz").write_bytes(files.local_field.read_bytes())
    (tmp_path / "dataset_description.json").write_text("{}")
    monkeypatch.setenv("QSM_SAMPLE_DIR", str(tmp_path))
    page = open_page(api)
    button(page, "Try the sample scan").click()
    page.run()
    assert "**Not used**" not in words(page)
    assert field(page, "Echo times (ms)") == "4, 8, 12"
    assert not button(page, "Reconstruct").disabled
