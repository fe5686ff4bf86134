"""The page objects to what is certainly wrong, with the mend, before anything is sent."""

from __future__ import annotations

import pytest

from qsm_ai.ui.checks import (
    STRONGEST_FIELD,
    WEAKEST_FIELD,
    check_direction,
    check_echo_times,
    check_field_strength,
    check_files,
    count_echoes,
    format_times,
    parse_times,
)
from qsm_ai.ui.uploads import Header

ONE = Header((8, 8, 8), 1, (1, 1, 1))
THREE = Header((8, 8, 8), 3, (1, 1, 1))
OTHER = Header((8, 8, 9), 1, (1, 1, 1))


class TestEchoTimes:
    @pytest.mark.parametrize("text", ["4, 8, 12", "4 8 12", " 4;8 ; 12,", "4.0\n8\n12"])
    def test_are_read_as_people_type_them(self, text: str) -> None:
        assert parse_times(text) == (4, 8, 12)
        assert check_echo_times(text, 3) == []

    def test_are_shown_without_needless_digits(self) -> None:
        assert format_times((4.0, 12.3)) == "4, 12.3"

    @pytest.mark.parametrize(
        ("text", "echoes", "sentence"),
        [
            ("", 3, "missing"),
            ("4, eight", 2, "not a number"),
            ("4, nan", 2, "not a number"),
            ("4, inf", 2, "not a number"),
            ("4, 8", 3, "There are 2 echo times for 3 phase volumes."),
            ("4", 3, "There is 1 echo time for 3 phase volumes."),
            ("4, 4, 12", 3, "do not increase"),
            ("12, 8, 4", 3, "do not increase"),
            ("0, 8", 2, "zero or negative"),
            ("0.004, 0.008", 2, "look like seconds"),
            ("4000, 8000", 2, "thousand times too long"),
        ],
    )
    def test_wrong_ones_are_said_to_be_wrong(self, text: str, echoes: int, sentence: str) -> None:
        (objection,) = check_echo_times(text, echoes)
        assert sentence in objection.sentence
        assert objection.mend

    @pytest.mark.parametrize("text", ["0.004, 0.012", "4000, 12000"])
    def test_a_slip_of_units_is_answered_with_the_probable_times(self, text: str) -> None:
        (objection,) = check_echo_times(text, 2)
        assert "4, 12 ms" in objection.mend

    def test_are_not_counted_against_headers_that_could_not_be_read(self) -> None:
        assert check_echo_times("4, 8", None) == []


@pytest.mark.parametrize("tesla", [0.064, 0.55, 1.5, 3, 7, 11.7])
def test_field_strengths_of_real_scanners_pass(tesla: float) -> None:
    assert check_field_strength(tesla) == []


@pytest.mark.parametrize("tesla", [None, 0, 0.003, 30, 3000])
def test_impossible_or_missing_field_strengths_do_not(tesla: float | None) -> None:
    assert len(check_field_strength(tesla)) == 1


def test_no_field_strength_is_refused_that_the_service_takes() -> None:
    loading = pytest.importorskip("qsm_ai.io.loading")
    assert (WEAKEST_FIELD, STRONGEST_FIELD) == (loading.WEAKEST_FIELD, loading.STRONGEST_FIELD)
    assert check_field_strength(loading.WEAKEST_FIELD) == check_field_strength(loading.STRONGEST_FIELD) == []


@pytest.mark.parametrize("bound", ["SHORTEST_ECHO", "LONGEST_ECHO"])
def test_no_echo_time_is_refused_that_the_service_takes(bound: str) -> None:
    seconds = getattr(pytest.importorskip("qsm_ai.io.echo_times"), bound)
    assert check_echo_times(f"{1000 * seconds:g}", 1) == []


def test_a_direction_needs_a_length() -> None:
    assert check_direction((0, 0.2, 0.98)) == []
    assert len(check_direction((0, 0, 0))) == 1


class TestFiles:
    def test_without_a_phase_nothing_goes(self) -> None:
        (objection,) = check_files([], [("mag.nii", ONE)], [])
        assert "phase" in objection.sentence

    def test_one_4d_file_and_one_file_per_echo_may_meet(self) -> None:
        assert check_files([("phase.nii", THREE)], [(f"mag{n}.nii", ONE) for n in range(3)], []) == []

    def test_magnitudes_of_another_number(self) -> None:
        (objection,) = check_files([("phase.nii", THREE)], [("mag.nii", ONE)], [])
        assert objection.sentence == "There are 3 phase volumes and 1 magnitude volume."

    def test_images_of_another_shape_are_named(self) -> None:
        (objection,) = check_files([("phase.nii", ONE)], [("mag.nii", OTHER)], [])
        assert objection.sentence == "mag.nii has 8 × 8 × 9 voxels, phase.nii has 8 × 8 × 8."

    def test_several_masks(self) -> None:
        (objection,) = check_files([("phase.nii", ONE)], [], [("a_mask.nii", ONE), ("b_mask.nii", ONE)])
        assert "mask" in objection.sentence

    def test_an_unreadable_header_is_left_to_the_api(self) -> None:
        assert check_files([("phase.nii", None)], [("mag.nii", ONE)], []) == []
        assert count_echoes([("phase.nii", None)]) is None
