"""Sentences on the page."""

from __future__ import annotations

import pytest

from qsm_ai.ui.backend import Job, Problem
from qsm_ai.ui.following import describe
from qsm_ai.ui.job_page import summary
from qsm_ai.ui.notices import escape, file_size, format_grid, quantity, ratio, sentence_of, time_left
from qsm_ai.ui.result import GOOD_SCORE, methods_text, noise_verdict, ppb, verdict


class TestProblems:
    def test_name_the_file_once(self) -> None:
        assert (
            sentence_of(Problem("c", "It ends too early.", file="a.nii")) == "**a.nii**: It ends too early."
        )
        assert sentence_of(Problem("c", "is a folder.", file="a.nii")) == "**a.nii** is a folder."
        assert sentence_of(Problem("c", "a.nii is too large.", file="a.nii")) == "a.nii is too large."

    def test_file_names_cannot_write_markup(self) -> None:
        assert escape("a_b*[c](d)<e>$f$") == r"a\_b\*\[c\](d)\<e\>\$f\$"

    def test_come_from_the_problem_document(self) -> None:
        problem = Problem.from_document(
            {"code": "mask", "title": "T", "detail": "D.", "mend": "M.", "file": "m.nii", "status": 422}
        )
        assert (problem.code, problem.sentence, problem.mend, problem.file) == ("mask", "D.", "M.", "m.nii")

    def test_fall_back_to_the_title(self) -> None:
        assert Problem.from_document({"title": "Busy"}).sentence == "Busy"


class TestProgress:
    def test_says_the_place_in_the_queue(self) -> None:
        job = Job("1", "s", "queued", queue_position=1, seconds_left=42.0)
        assert describe(job) == ("Waiting for a free place", "next in line, about 42 s left")
        assert describe(Job("1", "s", "queued", queue_position=3))[1] == "number 3 in line"

    def test_says_the_stage_how_far_it_is_and_what_it_waits_for(self) -> None:
        job = Job("1", "s", "running", title="Running the network", note="patch 3 of 8", fraction=0.614)
        assert describe(job) == ("Running the network", "61% done, patch 3 of 8")

    def test_says_something_before_the_first_stage(self) -> None:
        assert describe(Job("1", "s", "running")) == ("Starting", "0% done")

    @pytest.mark.parametrize(
        ("seconds", "words"),
        [(0.2, "a moment left"), (12.4, "about 12 s left"), (300, "about 5 min left")],
    )
    def test_time_left(self, seconds: float, words: str) -> None:
        assert time_left(seconds) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [(12, "12 B"), (12_300, "12 kB"), (12_345_678, "12.3 MB"), (2_147_483_648, "2.1 GB")],
)
def test_file_sizes(size: int, words: str) -> None:
    assert file_size(size) == words


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.04567, "ppm", "0.0457 ppm"),
        (-0.03, "ppm", "−0.0300 ppm"),
        (23.46, "1/s", "23.5 1/s"),
        (-1e-9, "ppm", "0.0000 ppm"),
    ],
)
def test_quantities_have_the_digits_they_deserve(value: float, unit: str, words: str) -> None:
    assert quantity(value, unit) == words


def test_scores_are_put_in_words() -> None:
    assert "nearly all" in verdict(0.97)
    assert "most" in verdict(0.85)
    assert "most" in verdict(0.7)
    assert verdict(0.5).startswith("Doubtful")
    assert noise_verdict(1.1).startswith("Only noise")
    assert noise_verdict(100).startswith("More than noise")


def test_the_page_doubts_the_maps_that_the_service_doubts() -> None:
    quality = pytest.importorskip("qsm_ai.reconstruction.quality")
    assert GOOD_SCORE == quality.GOOD_SCORE


def test_the_methods_paragraph_brings_its_citations() -> None:
    report = {
        "methods": "Maps were made [1].",
        "citations": [{"number": 1, "text": "Somebody, J 2024", "doi": "10.1/x"}],
    }
    assert methods_text(report) == "Maps were made [1].\n\n[1] Somebody, J 2024. doi:10.1/x"


def test_a_job_is_summed_up_in_a_line() -> None:
    scan = {
        "echo_times_ms": [4.0, 12.5],
        "field_strength": 3.0,
        "shape": [48, 44, 40],
        "voxel_size": [1, 1, 1.25],
    }
    job = Job("1", "s", "done", parameters={"method": "tv"}, scan=scan)
    assert summary(job) == "TV · 3 T · TE 4, 12.5 ms · 48 × 44 × 40 voxels of 1 × 1 × 1.25 mm"


def test_grids_and_ratios() -> None:
    assert format_grid((2, 3, 4), (0.469, 0.469, 1)) == "2 × 3 × 4 voxels of 0.469 × 0.469 × 1 mm"
    assert [ratio(x) for x in (0.617, 1.31, 363.3)] == ["0.62", "1.3", "363"]


@pytest.mark.parametrize(("ppm", "words"), [(0.00234, "2.3 ppb"), (0.0234, "23 ppb"), (0.1534, "153 ppb")])
def test_a_large_residual_is_not_written_in_powers_of_ten(ppm: float, words: str) -> None:
    assert ppb(ppm) == words
