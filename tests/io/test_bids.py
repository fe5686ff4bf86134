"""Names say what a file is for, and results get BIDS names of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsm_ai.io.bids import (
    acquisition,
    derivatives_folder,
    echo_number,
    in_echo_order,
    kind_of,
    parse,
    scan_name,
    sort_files,
)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("sub-01_echo-1_part-phase_MEGRE.nii.gz", "sub-01"),
        ("sub-01_ses-pre_acq-hi_run-2_echo-03_part-phase_MEGRE.nii", "sub-01_ses-pre_acq-hi_run-2"),
        ("phase.nii.gz", "phase"),
        ("My Scan (left).NII.GZ", "My_Scan_left"),
        ("../../etc/passwd.nii", "etc_passwd"),
        ("Größe.nii", "Gr_e"),
        ("....nii", "scan"),
    ],
)
def test_results_are_named_after_the_scan(name: str, stem: str) -> None:
    assert scan_name(name) == stem


@given(st.text(max_size=300))
def test_a_result_name_is_always_safe(name: str) -> None:
    stem = scan_name(name)
    assert stem
    assert len(stem) <= 100
    assert not set(stem) & set('/\\:*?"<>| \0\n')
    assert not stem.startswith((".", "-"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sub-1_echo-1_part-phase_MEGRE.nii.gz", "phase"),
        ("sub-1_echo-1_part-mag_MEGRE.nii.gz", "magnitude"),
        ("sub-1_echo-1_part-mag_MEGRE.json", "sidecar"),
        ("s5_e1_ph.nii", "phase"),
        ("Phase_2.nii.gz", "phase"),
        ("magnitude.nii", "magnitude"),
        ("gre_mag1.nii", "magnitude"),
        ("brain_mask.nii.gz", "mask"),
        ("phase_mask.nii.gz", "mask"),
        ("phase_Chimap.nii.gz", "other"),
        ("ann_mag_R2starmap.nii.gz", "other"),
        ("phantom.nii.gz", "other"),
        ("imagine.nii", "other"),
        ("scan.zip", "dicom"),
        ("notes.txt", "other"),
    ],
)
def test_what_a_file_is_for(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_entities_are_taken_apart() -> None:
    name = parse("sub-01_echo-2_part-phase_MEGRE.nii.gz")
    assert name.entities == {"sub": "01", "echo": "2", "part": "phase"}
    assert name.suffix == "MEGRE"
    assert name.echo == 2
    assert name.is_plain
    assert not parse("sub-01_left_MEGRE.nii.gz").is_plain


def test_echo_ten_comes_after_echo_two() -> None:
    names = [f"sub-1_echo-{n}_MEGRE.nii" for n in (1, 10, 2, 3)]
    assert in_echo_order(names) == [0, 2, 3, 1]
    assert in_echo_order(["b.nii", "a.nii"]) == [0, 1]
    assert in_echo_order(["echo-2.nii", "a.nii", "echo-1.nii"]) == [0, 1, 2]


@pytest.mark.parametrize(
    "pattern",
    [
        "phase{}.nii.gz",
        "mag{}.nii",
        "scan_e{}_ph.nii.gz",
        "gre_echo{}.nii",
        "Phase_{}.nii",
        "x_te{}.nii",
        "te{}.5ms_ph.nii",
    ],
)
def test_other_numbers_of_echoes_are_no_words_either(pattern: str) -> None:
    names = sorted(pattern.format(n) for n in range(1, 13))
    assert [names[i] for i in in_echo_order(names)] == [pattern.format(n) for n in range(1, 13)]


@pytest.mark.parametrize("name", ["phase.nii", "sub-01_run-2_MEGRE.nii", "scene3.nii", "date20240101.nii"])
def test_a_number_that_is_no_echo_is_none(name: str) -> None:
    assert echo_number(name) is None


@pytest.mark.parametrize(
    ("name", "shared", "shared_as_one"),
    [
        ("sub-01_echo-2_part-phase_MEGRE.nii.gz", "sub-01_MEGRE", "sub-01_MEGRE"),
        ("sub-01_part-mag_T2starw.nii.gz", "sub-01_T2starw", "sub-01_T2starw"),
        ("sub-01_acq-hi_phase.nii", "sub-01_acq-hi", "sub-01_acq-hi"),
        ("ann_phase_e2.nii", "ann", "ann"),
        ("brain_mask.nii.gz", "", ""),
        ("phase12.nii.gz", "", ""),
        ("phase_2.nii.gz", "2", ""),
        ("ann_mag_te8.nii", "ann_te8", "ann"),
    ],
)
def test_files_of_one_acquisition_share_a_name(name: str, shared: str, shared_as_one: str) -> None:
    assert acquisition(name) == shared
    assert acquisition(name, as_one=True) == shared_as_one


def test_dropped_files_sort_themselves() -> None:
    found = sort_files(
        ["x_echo-2_part-phase_MEGRE.nii", "m_mask.nii", "x_echo-1_part-mag_MEGRE.nii", "readme.txt",
         "x_echo-1_part-phase_MEGRE.nii", "x_echo-1_part-phase_MEGRE.json", "x_echo-2_part-mag_MEGRE.nii"]
    )  # fmt: skip
    assert found.phase == ("x_echo-1_part-phase_MEGRE.nii", "x_echo-2_part-phase_MEGRE.nii")
    assert found.magnitude == ("x_echo-1_part-mag_MEGRE.nii", "x_echo-2_part-mag_MEGRE.nii")
    assert found.mask == ("m_mask.nii",)
    assert found.sidecars == ("x_echo-1_part-phase_MEGRE.json",)
    assert found.other == ("readme.txt",)
    assert sort_files(["scan.nii", "mag.nii"]).phase == ("scan.nii",)


def test_results_have_their_place_in_a_data_set() -> None:
    assert derivatives_folder("sub-01") == "derivatives/qsm-ai/sub-01/anat"
    assert derivatives_folder("sub-01_ses-a_run-1") == "derivatives/qsm-ai/sub-01/ses-a/anat"
    assert derivatives_folder("phase") == "derivatives/qsm-ai/sub-unknown/anat"
