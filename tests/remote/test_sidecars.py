"""What is sent of a sidecar."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qsm_ai.remote.sidecars import write_reduced
from qsm_ai.scan import SidecarRefusal


def sidecar(path: Path, **content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_only_physics_leaves_the_computer(tmp_path: Path) -> None:
    given = sidecar(
        tmp_path / "in/a.json",
        EchoTime=0.02,
        MagneticFieldStrength=3,
        PatientName="Doe^Jane",
        Manufacturer="GE",
        Units="rad",
    )
    (path,) = write_reduced([tmp_path / "phase.nii"], None, tmp_path, [given])
    assert path.name == "phase.json"
    assert json.loads(path.read_text()) == {
        "EchoTime": 0.02,
        "MagneticFieldStrength": 3.0,
        "Manufacturer": "ge",
        "Units": "rad",
    }


def test_general_sidecars_are_inherited_and_special_ones_count_more(tmp_path: Path) -> None:
    image = tmp_path / "data/sub-1/anat/sub-1_echo-2_part-phase_MEGRE.nii.gz"
    root = tmp_path / "data"
    sidecar(root / "MEGRE.json", MagneticFieldStrength=3, EchoTime=0.5)
    sidecar(root / "echo-2_MEGRE.json", EchoTime=0.02)
    sidecar(tmp_path / "MEGRE.json", MagneticFieldStrength=1.5)
    sidecar(image.with_name("sub-1_echo-2_part-phase_MEGRE.json"), Manufacturer="Siemens")
    for known in (root, None):
        (path,) = write_reduced([image], known, tmp_path)
        assert path.name == "sub-1_echo-2_part-phase_MEGRE.json"
        assert json.loads(path.read_text()) == {
            "EchoTime": 0.02,
            "MagneticFieldStrength": 3.0,
            "Manufacturer": "siemens",
        }


def test_a_given_sidecar_counts_more_than_those_on_disk(tmp_path: Path) -> None:
    sidecar(tmp_path / "phase.json", EchoTime=[0.002, 0.004], MagneticFieldStrength=3)
    given = sidecar(tmp_path / "corrected.json", EchoTime=[0.004, 0.008])
    out = tmp_path / "out"
    out.mkdir()
    (path,) = write_reduced([tmp_path / "phase.nii"], None, out, [given])
    assert json.loads(path.read_text()) == {"EchoTime": [0.004, 0.008], "MagneticFieldStrength": 3.0}


def test_a_sidecar_for_each_echo_of_one_image_becomes_one(tmp_path: Path) -> None:
    given = [sidecar(tmp_path / f"e{n}.json", EchoTime=0.004 * n, MagneticFieldStrength=3) for n in (2, 1)]
    (path,) = write_reduced([tmp_path / "phase.nii"], None, tmp_path, given)
    assert json.loads(path.read_text()) == {"EchoTime": [0.004, 0.008], "MagneticFieldStrength": 3.0}
    sidecar(tmp_path / "e2.json", EchoTime=0.008, MagneticFieldStrength=7)
    with pytest.raises(SidecarRefusal, match="another field strength"):
        write_reduced([tmp_path / "phase.nii"], None, tmp_path / "in", given)


def test_an_image_of_which_nothing_is_said_gets_none(tmp_path: Path) -> None:
    assert write_reduced([tmp_path / "phase.nii"], None, tmp_path) == []


def test_a_sidecar_that_is_none_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "phase.json").write_text("[1, 2]")
    with pytest.raises(SidecarRefusal):
        write_reduced([tmp_path / "phase.nii"], None, tmp_path)
