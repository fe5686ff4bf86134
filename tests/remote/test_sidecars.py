"""What is sent of a sidecar, and which sidecars speak of an image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qsm_ai.remote.sidecars import applicable, write_given, write_reduced
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
    )
    (path,) = write_given([given], tmp_path)
    assert path.name == "a.json"
    assert json.loads(path.read_text()) == {
        "EchoTime": 0.02,
        "MagneticFieldStrength": 3.0,
        "Manufacturer": "ge",
    }


def test_general_sidecars_are_inherited_and_special_ones_count_more(tmp_path: Path) -> None:
    image = tmp_path / "data/sub-1/anat/sub-1_echo-2_part-phase_MEGRE.nii.gz"
    root = tmp_path / "data"
    sidecar(root / "MEGRE.json", MagneticFieldStrength=3, EchoTime=0.5)
    sidecar(root / "echo-2_MEGRE.json", EchoTime=0.02)
    sidecar(root / "echo-3_MEGRE.json", EchoTime=0.03)
    sidecar(root / "T1w.json", MagneticFieldStrength=7)
    sidecar(tmp_path / "MEGRE.json", MagneticFieldStrength=1.5)
    sidecar(image.with_name("sub-1_echo-2_part-phase_MEGRE.json"), Manufacturer="Siemens")
    assert [path.name for path in applicable(image, root)] == [
        "MEGRE.json",
        "echo-2_MEGRE.json",
        "sub-1_echo-2_part-phase_MEGRE.json",
    ]
    (path,) = write_reduced([image], root, tmp_path)
    assert path.name == "sub-1_echo-2_part-phase_MEGRE.json"
    assert json.loads(path.read_text()) == {
        "EchoTime": 0.02,
        "MagneticFieldStrength": 3.0,
        "Manufacturer": "siemens",
    }


def test_an_image_of_which_nothing_is_said_gets_none(tmp_path: Path) -> None:
    assert write_reduced([tmp_path / "phase.nii"], None, tmp_path) == []


def test_a_sidecar_that_is_none_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "phase.json").write_text("[1, 2]")
    with pytest.raises(SidecarRefusal):
        write_reduced([tmp_path / "phase.nii"], None, tmp_path)
