"""Scans are found in BIDS datasets and in folders whose layout nobody planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsm_ai.reconstruction.stages import ARTEFACTS
from qsm_ai.remote.scans import FoundScan, find_scans


def found_in(root: Path, *files: str) -> dict[str, FoundScan]:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return {scan.name: scan for scan in find_scans(root)}


def names(paths: tuple[Path, ...]) -> list[str]:
    return [path.name for path in paths]


def test_a_bids_dataset_holds_a_scan_per_run(tmp_path: Path) -> None:
    scans = found_in(
        tmp_path,
        *(
            f"sub-01/ses-a/anat/sub-01_ses-a_run-{run}_echo-{echo}_part-{part}_MEGRE.{ending}"
            for run in (1, 2)
            for echo in (1, 2, 10)
            for part in ("phase", "mag")
            for ending in ("nii.gz", "json")
        ),
        "sub-02/anat/sub-02_part-phase_MEGRE.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-03/anat/sub-03_T1w.nii.gz",
        "derivatives/qsm-ai/sub-02/anat/sub-02_part-phase_Chimap.nii.gz",
    )
    assert list(scans) == ["sub-01_ses-a_run-1", "sub-01_ses-a_run-2", "sub-02"]
    first = scans["sub-01_ses-a_run-1"]
    assert names(first.phase) == [f"sub-01_ses-a_run-1_echo-{n}_part-phase_MEGRE.nii.gz" for n in (1, 2, 10)]
    assert names(first.magnitude) == [
        f"sub-01_ses-a_run-1_echo-{n}_part-mag_MEGRE.nii.gz" for n in (1, 2, 10)
    ]
    assert first.results == Path("derivatives/qsm-ai/sub-01/ses-a/anat")
    assert scans["sub-02"].magnitude == ()


def test_a_folder_per_scan(tmp_path: Path) -> None:
    scans = found_in(
        tmp_path,
        "Alpha/phase.nii.gz", "Alpha/mag.nii.gz", "Alpha/mask.nii.gz",
        "beta/deep/ph_e1.nii", "beta/deep/ph_e2.nii", "beta/deep/mag_e1.nii", "beta/deep/mag_e2.nii",
        ".hidden/phase.nii",
    )  # fmt: skip
    assert list(scans) == ["Alpha", "beta_deep"]
    assert scans["Alpha"].mask == tmp_path / "Alpha/mask.nii.gz"
    assert names(scans["beta_deep"].phase) == ["ph_e1.nii", "ph_e2.nii"]
    assert scans["Alpha"].results == Path("derivatives/qsm-ai/Alpha")


def test_all_scans_in_one_folder_are_told_apart_by_their_names(tmp_path: Path) -> None:
    scans = found_in(
        tmp_path, *(f"{who}_{what}.nii.gz" for who in ("ann", "bob") for what in ("phase", "mag"))
    )
    assert list(scans) == ["ann", "bob"]
    assert names(scans["bob"].phase + scans["bob"].magnitude) == ["bob_phase.nii.gz", "bob_mag.nii.gz"]


def test_one_scan_alone_is_named_after_its_folder(tmp_path: Path) -> None:
    root = tmp_path / "visit 3"
    assert list(found_in(root, "phase.nii", "magnitude.nii")) == ["visit_3"]


def test_a_folder_of_dicom_files_is_a_scan(tmp_path: Path) -> None:
    scans = found_in(tmp_path, "one/series/IM001", "two/a.dcm", "notes/readme.txt")
    assert {name: scan.source for name, scan in scans.items()} == {
        "one": tmp_path / "one",
        "two": tmp_path / "two",
    }


def test_results_that_were_put_beside_a_scan_are_no_scans(tmp_path: Path) -> None:
    results = [f"phase_{artefact.suffix}.nii.gz" for artefact in ARTEFACTS.values()]
    files = ["ann/phase.nii.gz", *(f"ann/{name}" for name in results), *(f"maps/{name}" for name in results)]
    found = found_in(tmp_path, *files)
    assert list(found) == ["ann"]
    assert names(found["ann"].phase) == ["phase.nii.gz"]


@pytest.mark.parametrize("files", [(), ("sub-01/anat/sub-01_T1w.nii.gz",), ("a/magnitude.nii",)])
def test_where_no_phase_is_there_is_no_scan(tmp_path: Path, files: tuple[str, ...]) -> None:
    assert found_in(tmp_path, *files) == {}


def test_sidecars_belong_to_a_scan_and_those_of_others_do_not(tmp_path: Path) -> None:
    scans = found_in(
        tmp_path,
        "MEGRE.json", "T1w.json",
        "sub-1/anat/sub-1_part-phase_MEGRE.nii.gz", "sub-1/anat/sub-1_part-phase_MEGRE.json",
        "sub-2/anat/sub-2_part-phase_MEGRE.nii.gz",
    )  # fmt: skip
    assert names(scans["sub-1"].sidecars) == ["MEGRE.json", "sub-1_part-phase_MEGRE.json"]
    assert names(scans["sub-2"].sidecars) == ["MEGRE.json"]


def test_two_acquisitions_of_one_name_are_two_scans_with_results_of_their_own(tmp_path: Path) -> None:
    anat = "sub-1/anat/sub-1"
    scans = found_in(
        tmp_path,
        *(f"{anat}_echo-{n}_part-{part}_MEGRE.nii" for n in (1, 2) for part in ("phase", "mag")),
        f"{anat}_part-phase_T2starw.nii",
        f"{anat}_mask.nii",
    )
    assert list(scans) == ["sub-1_MEGRE", "sub-1_T2starw"]
    assert [len(scan.phase) for scan in scans.values()] == [2, 1]
    assert [len(scan.magnitude) for scan in scans.values()] == [2, 0]
    assert {scan.mask for scan in scans.values()} == {tmp_path / f"{anat}_mask.nii"}
    assert {scan.results for scan in scans.values()} == {
        Path("derivatives/qsm-ai/sub-1/anat/MEGRE"),
        Path("derivatives/qsm-ai/sub-1/anat/T2starw"),
    }


def test_plain_words_in_a_dataset_are_no_acquisitions(tmp_path: Path) -> None:
    scans = found_in(tmp_path, *(f"sub-1/anat/sub-1_{what}.nii" for what in ("phase", "magnitude", "mask")))
    (scan,) = scans.values()
    assert scan.name == "sub-1"
    assert names(scan.magnitude) == ["sub-1_magnitude.nii"]
    assert scan.mask is not None


@pytest.mark.parametrize(
    "folders",
    [
        ("\u60a3\u8005\u4e00", "\u60a3\u8005\u4e8c", "Mü ller", "M ller"),
        ("Ann", "ann"),
        ("a_b", "a/b"),
        ("x" * 120 + "1", "x" * 120 + "2"),
    ],
    ids=["letters", "capitals", "levels", "length"],
)
def test_names_that_become_the_same_are_told_apart(tmp_path: Path, folders: tuple[str, ...]) -> None:
    files = [f"{folder}/phase.nii.gz" for folder in folders]
    scans = found_in(tmp_path, *files)
    assert len(scans) == len(folders)
    assert len({str(scan.results).casefold() for scan in scans.values()}) == len(folders)
    known = {scan.phase[0]: (name, scan.results) for name, scan in scans.items()}
    later = found_in(tmp_path, *files, "0/phase.nii", f"{folders[0]} /phase.nii")
    now = {scan.phase[0]: (name, scan.results) for name, scan in later.items()}
    assert known.items() <= now.items(), "a scan keeps its name when others are added"


def test_notes_of_a_file_system_are_no_scans(tmp_path: Path) -> None:
    scans = found_in(
        tmp_path,
        "a/phase.nii", "a/._phase.nii", "b/.DS_Store", "b/notes.txt", "c/IM001", "c/.DS_Store",
    )  # fmt: skip
    assert {name: names(scan.phase) for name, scan in scans.items()} == {"a": ["phase.nii"], "c": []}


def test_notes_of_a_file_system_are_no_images_of_a_dataset(tmp_path: Path) -> None:
    phase = "sub-1_part-phase_MEGRE.nii"
    assert names(found_in(tmp_path, f"sub-1/anat/{phase}", f"sub-1/anat/._{phase}")["sub-1"].phase) == [phase]
