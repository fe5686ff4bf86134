"""What is said of an image: the special counts more than the general, and what is given most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qsm_ai.io import SourceFile, load_scan
from qsm_ai.io.sidecars import by_image, read_sidecar, sidecars_of
from qsm_ai.scan import SidecarRefusal

if TYPE_CHECKING:
    from tests.conftest import Files


def sidecar(path: Path, **content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def said(name: str, **content: object) -> SourceFile:
    """A sidecar that was uploaded, and lies in no folder."""
    return SourceFile(name, json.dumps(content).encode())


def image(*names: str) -> list[SourceFile]:
    return [SourceFile(name, b"") for name in names]


ECHOES = [f"sub-1_echo-{n}_part-phase_MEGRE.nii" for n in (1, 2, 3)]


def test_a_given_sidecar_counts_more_than_the_one_beside(files: Files, tmp_path: Path) -> None:
    phase = tmp_path / "p.nii.gz"
    phase.symlink_to(files.phase)
    sidecar(tmp_path / "p.json", EchoTime=[0.002, 0.004, 0.006], MagneticFieldStrength=3)
    corrected = sidecar(tmp_path / "corrected.json", EchoTime=[0.004, 0.008, 0.012])
    assert load_scan([phase]).echo_times == (0.002, 0.004, 0.006)
    scan = load_scan([phase], sidecars=[corrected])
    assert scan.echo_times == (0.004, 0.008, 0.012)
    assert scan.field_strength == 3, "what it does not say is still said beside the image"


def test_one_for_all_counts_more_than_those_beside_each(tmp_path: Path) -> None:
    images = []
    for n, name in enumerate(ECHOES, start=1):
        images.append(SourceFile.of(tmp_path / name))
        sidecar(tmp_path / name.replace(".nii", ".json"), EchoTime=0.001 * n, MagneticFieldStrength=3)
    found = sidecars_of(images, [said("new.json", EchoTime=[0.004, 0.008, 0.012])])
    assert [t for one in found for t in one.echo_times] == [0.004, 0.008, 0.012]
    assert [one.field_strength for one in found] == [3, 3, 3]
    found = sidecars_of(images, [said("new.json", MagneticFieldStrength=7)])
    assert [(one.echo_times, one.field_strength) for one in found] == [((0.001 * n,), 7) for n in (1, 2, 3)]


def test_scanner_and_field_are_inherited(tmp_path: Path) -> None:
    phase = tmp_path / "sub-1/anat" / ECHOES[0]
    sidecar(tmp_path / "MEGRE.json", Manufacturer=" GE MEDICAL SYSTEMS ", MagneticFieldStrength=7)
    sidecar(phase.with_suffix(".json"), EchoTime=0.004, MagneticFieldStrength=3)
    (found,) = sidecars_of([SourceFile.of(phase)], [])
    assert found.manufacturer == "ge medical systems"
    assert (found.echo_times, found.field_strength, found.file) == (
        (0.004,),
        3,
        ECHOES[0].replace(".nii", ".json"),
    )


def test_an_upload_inherits_nothing_from_the_folders_of_the_service(tmp_path: Path) -> None:
    sidecar(tmp_path / "sub-1/MEGRE.json", EchoTime=0.004)
    stored = tmp_path / "sub-1/anat/0001"
    assert sidecars_of([SourceFile(ECHOES[0], stored)], []) == []


def test_uploads_are_matched_by_their_names(tmp_path: Path) -> None:
    given = [
        said("MEGRE.json", MagneticFieldStrength=3),
        *(said(f"sub-1_echo-{n}_part-phase_MEGRE.json", EchoTime=0.004 * n) for n in (3, 1, 2)),
        *(said(f"sub-1_echo-{n}_part-mag_MEGRE.json", EchoTime=0.9) for n in (1, 2, 3)),
        said("sub-1_T1w.json", EchoTime=0.9),
        said("dataset_description.json", Name="Study"),
    ]
    found = sidecars_of(image(*ECHOES), given)
    assert [one.echo_times for one in found] == [(0.004,), (0.008,), (0.012,)]
    assert {one.field_strength for one in found} == {3}


@pytest.mark.parametrize("pattern", ["sub-1_echo-{}_part-mag_MEGRE.json", "e{}.json", "phase{}.json"])
def test_sidecars_of_other_names_are_matched_by_echo(pattern: str) -> None:
    found = sidecars_of(image(*ECHOES), [said(pattern.format(n), EchoTime=0.001 * n) for n in (2, 3, 1)])
    assert [one.echo_times for one in found] == [(0.001,), (0.002,), (0.003,)]


def test_several_for_one_image_are_its_echoes() -> None:
    found = sidecars_of(image("phase.nii"), [said(f"a_e{n}.json", EchoTime=0.001 * n) for n in (10, 2, 1)])
    assert [one.echo_times for one in found] == [(0.001,), (0.002,), (0.01,)]


@pytest.mark.parametrize(
    "given",
    [
        [said("sub-1_echo-1_part-phase_MEGRE.json", EchoTime=0.004), said("corrected.json", EchoTime=0.005)],
        [
            said("sub-1_echo-1_part-phase_MEGRE.json", EchoTime=0.004),
            said("sub-2_MEGRE.json", EchoTime=0.005),
        ],
        [said("a.json", EchoTime=0.004), said("b.json", EchoTime=0.005)],
        [said(f"e{n}.json", EchoTime=0.004 * n) for n in (1, 2, 3, 4)],
        [said(f"e{n}.json", EchoTime=0.004 * n) for n in (1, 2)],
    ],
    ids=["one more", "another subject", "no names", "one echo too many", "one echo missing"],
)
def test_a_sidecar_that_would_change_nothing_is_refused(given: list[SourceFile]) -> None:
    with pytest.raises(SidecarRefusal, match="does not belong to any") as caught:
        sidecars_of(image(*ECHOES), given)
    assert caught.value.file in {one.name for one in given}


def test_an_empty_sidecar_does_not_leave_another_one_standing(tmp_path: Path) -> None:
    sidecar(tmp_path / "p.json", EchoTime=0.002)
    with pytest.raises(SidecarRefusal, match="would change nothing") as caught:
        sidecars_of([SourceFile.of(tmp_path / "p.nii")], [said("corrected.json", EchoTimes=0.004)])
    assert caught.value.file == "corrected.json"


def test_images_of_which_nothing_is_said_keep_their_place(tmp_path: Path) -> None:
    images = [SourceFile.of(tmp_path / name) for name in ECHOES]
    sidecar(tmp_path / ECHOES[1].replace(".nii", ".json"), EchoTime=0.008)
    assert [len(some) for some in by_image(images, [])] == [0, 1, 0]


def test_a_number_beyond_all_numbers_is_none() -> None:
    with pytest.raises(SidecarRefusal, match="no number"):
        read_sidecar(SourceFile("a.json", b'{"EchoTime": 1' + 400 * b"0" + b"}"))
