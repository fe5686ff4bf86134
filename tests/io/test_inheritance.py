"""A sidecar holds for the images that BIDS lets it hold for, and for no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsm_ai.io.inheritance import applicable, applies, dataset_of

IMAGE = "sub-1/anat/sub-1_echo-2_part-phase_MEGRE.nii.gz"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(paths: list[Path], root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in paths]


@pytest.mark.parametrize(
    ("sidecar", "image", "expected"),
    [
        ("MEGRE.json", "sub-1_echo-2_part-phase_MEGRE.nii.gz", True),
        ("sub-1_echo-2_MEGRE.json", "sub-1_echo-2_part-phase_MEGRE.nii.gz", True),
        ("sub-1_echo-1_MEGRE.json", "sub-1_echo-2_part-phase_MEGRE.nii.gz", False),
        ("sub-1_part-mag_MEGRE.json", "sub-1_part-phase_MEGRE.nii.gz", False),
        ("T1w.json", "sub-1_part-phase_MEGRE.nii.gz", False),
        ("phase.json", "phase.nii", True),
        ("bob_phase.json", "ann_phase.nii", False),
        ("phase.json", "ann_phase.nii", False),
        ("bob_phase.json", "phase.nii", False),
        ("._MEGRE.json", "sub-1_part-phase_MEGRE.nii.gz", False),
    ],
)
def test_names_tell_what_a_sidecar_speaks_of(sidecar: str, image: str, expected: bool) -> None:
    assert applies(sidecar, image) is expected


def test_general_sidecars_come_first_and_those_outside_the_dataset_never(tmp_path: Path) -> None:
    root = tmp_path / "data"
    touch(root, IMAGE, "MEGRE.json", "._MEGRE.json", "echo-2_MEGRE.json", "echo-3_MEGRE.json", "T1w.json")
    touch(tmp_path, "MEGRE.json")
    touch(root, "sub-1/sub-1_MEGRE.json", "sub-1/anat/sub-1_echo-2_part-phase_MEGRE.json")
    assert names(applicable(root / IMAGE), root) == [
        "MEGRE.json",
        "echo-2_MEGRE.json",
        "sub-1/sub-1_MEGRE.json",
        "sub-1/anat/sub-1_echo-2_part-phase_MEGRE.json",
    ]


def test_the_working_folder_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, IMAGE, "MEGRE.json")
    monkeypatch.chdir((tmp_path / IMAGE).parent)
    assert names(applicable(Path(IMAGE).relative_to("sub-1/anat")), tmp_path) == ["MEGRE.json"]


def test_a_dataset_is_known_by_its_description_or_its_subjects(tmp_path: Path) -> None:
    assert dataset_of(tmp_path / IMAGE) == tmp_path
    touch(tmp_path, "dataset_description.json")
    assert dataset_of(tmp_path / "scans/phase.nii") == tmp_path
    touch(tmp_path, "derivatives/x/dataset_description.json")
    assert dataset_of(tmp_path / "derivatives/x/phase.nii") == tmp_path / "derivatives/x"


def test_outside_a_dataset_only_the_sidecar_beside_counts(tmp_path: Path) -> None:
    touch(tmp_path, "a/phase.nii", "a/phase.json", "phase.json", "a/other.json")
    assert names(applicable(tmp_path / "a/phase.nii"), tmp_path) == ["a/phase.json"]
    assert names(applicable(tmp_path / "a/phase.nii", tmp_path), tmp_path) == ["a/phase.json"]
