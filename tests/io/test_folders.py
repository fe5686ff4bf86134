"""A folder is as good as its files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qsm_ai.io import load_scan
from qsm_ai.io.folders import open_given
from qsm_ai.scan import NotAnImage, PhaseRefusal, Refusal

if TYPE_CHECKING:
    from tests.conftest import Files


def test_files_stay_as_they_are(files: Files) -> None:
    with open_given([files.phase], [files.magnitude], []) as found:
        assert list(found.phase) == [files.phase]
        assert list(found.magnitude) == [files.magnitude]


def test_a_bids_folder_sorts_itself(files: Files, tmp_path: Path) -> None:
    for path in (*files.echo_phase, *files.echo_magnitude):
        shutil.copy(path, tmp_path)
        sidecar = path.name.replace(".nii.gz", ".json")
        shutil.copy(path.with_name(sidecar), tmp_path)
    with open_given([tmp_path], [], []) as found:
        scan = load_scan(found.phase, found.magnitude, sidecars=found.sidecars, name=found.name)
    assert scan.name == "sub-1"
    assert scan.echo_times == pytest.approx((0.004, 0.008, 0.012))
    assert scan.magnitude is not None


def test_a_folder_without_a_telling_name_is_refused(files: Files, tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        shutil.copy(files.phase, tmp_path / name)
    with pytest.raises(PhaseRefusal, match="none whose name"), open_given([tmp_path], [], []):
        pass


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def phase_in(folder: Path) -> list[str]:
    with open_given([folder], [], []) as found:
        return [Path(str(path)).name for path in found.phase]


@pytest.mark.parametrize(
    ("names", "scans"),
    [
        (
            [*(f"sub-1_echo-{n}_part-phase_MEGRE.nii" for n in (1, 2)), "sub-1_part-phase_T2starw.nii"],
            "sub-1_MEGRE, sub-1_T2starw",
        ),
        ([f"sub-1_acq-{a}_part-phase_GRE.nii" for a in ("a", "b")], "sub-1_acq-a_GRE, sub-1_acq-b_GRE"),
        ([f"sub-1_run-{run}_echo-{n}_part-phase_GRE.nii" for run in (1, 2) for n in (1, 2)], "sub-1_run-1"),
        (["ann_phase.nii", "bob_phase.nii"], "ann, bob"),
    ],
    ids=["suffixes", "acquisitions", "runs", "words"],
)  # fmt: skip
def test_several_scans_do_not_become_one(tmp_path: Path, names: list[str], scans: str) -> None:
    with pytest.raises(PhaseRefusal, match=f"several scans .{scans}") as caught:
        phase_in(touch(tmp_path, *names))
    assert "qsm-ai batch" in caught.value.mend
    assert caught.value.file == tmp_path.name


@pytest.mark.parametrize("pattern", ["phase{}.nii", "phase_{}.nii", "scan_e{}_ph.nii", "x_phase_te{}.nii"])
def test_echoes_under_any_numbers_are_one_scan_in_order(tmp_path: Path, pattern: str) -> None:
    names = [pattern.format(n) for n in range(1, 13)]
    assert phase_in(touch(tmp_path, *names)) == names


def test_the_magnitude_of_another_acquisition_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "sub-1_part-phase_MEGRE.nii", "sub-1_part-mag_T2starw.nii")
    with open_given([tmp_path], [], []) as found:
        assert list(found.magnitude) == []
    touch(tmp_path, "sub-1_part-mag_MEGRE.nii")
    with open_given([tmp_path], [], []) as found:
        assert list(found.magnitude) == [tmp_path / "sub-1_part-mag_MEGRE.nii"]


def test_notes_of_a_file_system_are_no_images(tmp_path: Path) -> None:
    touch(tmp_path, "sub-1_part-phase_MEGRE.nii", "._sub-1_part-phase_MEGRE.nii")
    assert phase_in(tmp_path) == ["sub-1_part-phase_MEGRE.nii"]


def test_real_and_imaginary_images_are_called_what_they_are(tmp_path: Path) -> None:
    touch(tmp_path, "sub-1_part-real_MEGRE.nii", "sub-1_part-imag_MEGRE.nii")
    with pytest.raises(PhaseRefusal, match="real and imaginary"):
        phase_in(tmp_path)


def test_a_dataset_is_not_a_scan(tmp_path: Path) -> None:
    pytest.importorskip("dcm2niix", reason="the extra dicom is not installed")
    root = touch(tmp_path / "study", "sub-1/anat/sub-1_part-phase_MEGRE.nii.gz")
    for folder in (root, root / "sub-1"):
        with pytest.raises(NotAnImage, match="in folders of its own") as caught:
            phase_in(folder)
        assert "anat" in caught.value.mend
        assert "qsm-ai batch" in caught.value.mend


@pytest.mark.parametrize(("name", "count"), [("a.dcm", 1), ("a.dcm", 3), ("IM0001", 1), ("a.IMA", 2)])
def test_single_dicom_files_are_told_from_their_folder(tmp_path: Path, name: str, count: int) -> None:
    files = [tmp_path / f"{n}{name}" for n in range(count)]
    for file in files:
        file.write_bytes(bytes(128) + b"DICM" + bytes(100))
    for refused in (lambda: open_given(files, [], []).__enter__(), lambda: load_scan(files)):
        with pytest.raises(NotAnImage, match="single DICOM file") as caught:
            refused()
        assert "folder" in caught.value.mend
        assert caught.value.file == files[0].name


def test_a_name_that_no_file_can_have_is_refused_like_any_other() -> None:
    name = Path("x" * 300 + ".nii")
    with pytest.raises(Refusal), open_given([name], [], []) as found:
        load_scan(found.phase, te_ms=[4], b0=3)
