"""An image given as phase is one, by its name, its sidecar and its values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from qsm_ai.io.loading import load_scan
from qsm_ai.io.roles import require_circle, require_different_echoes, require_no_magnitude, require_role
from qsm_ai.io.source import SourceFile
from qsm_ai.physics.phase import scale_to_radians
from qsm_ai.scan import FieldRefusal, MagnitudeRefusal, PhaseRefusal, Refusal

if TYPE_CHECKING:
    from tests.conftest import Files, Phantom

TE = [4.0, 8.0, 12.0]


@pytest.mark.parametrize(
    ("name", "role", "kind", "words"),
    [
        ("sub-01_part-real_MEGRE.nii.gz", "phase", PhaseRefusal, "angle of real"),
        ("sub-01_part-imag_MEGRE.nii.gz", "phase", PhaseRefusal, "angle of real"),
        ("scan_e1_imaginary.nii", "phase", PhaseRefusal, "angle of real"),
        ("sub-01_part-mag_MEGRE.nii.gz", "phase", PhaseRefusal, "swapped"),
        ("sub-01_totalfield.nii.gz", "phase", PhaseRefusal, "--total-field"),
        ("sub-01_localfield.nii.gz", "phase", PhaseRefusal, "--local-field"),
        ("sub-01_part-phase_MEGRE.nii.gz", "magnitude", MagnitudeRefusal, "swapped"),
        ("sub-01_part-real_MEGRE.nii.gz", "magnitude", MagnitudeRefusal, "Give the magnitude"),
    ],
)
def test_a_name_that_says_something_else_is_believed(
    name: str, role: str, kind: type[Refusal], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        require_role([SourceFile(name, b"")], role)  # type: ignore[arg-type]
    assert caught.value.file == name


@pytest.mark.parametrize(
    "name", ["phase.nii", "sub-1_part-phase_MEGRE.nii.gz", "real.nii.gz", "magnitude.nii", "sub-real_x.nii"]
)
def test_other_names_say_nothing_against_a_phase(name: str) -> None:
    require_role([SourceFile(name, b"")], "phase")


def signal(phantom: Phantom, contrast: float = 0.3) -> np.ndarray:
    """A head whose phase changes on the way through it, as a receiving coil makes it do."""
    x, y, z = np.indices(phantom.mask.shape)
    tissue = 1 + contrast * np.sin((x + y + z) / 5)
    return np.asarray(tissue * phantom.magnitude * np.exp(1j * (phantom.phase + 0.11 * x - 0.07 * y)))


def one(volume: np.ndarray) -> np.ndarray:
    return (volume / volume.max()).astype(np.float32)


@pytest.mark.parametrize("part", [np.real, np.imag])
def test_a_part_of_the_complex_image_is_no_phase(part: Callable[..., np.ndarray], phantom: Phantom) -> None:
    complex_image = signal(phantom)
    with pytest.raises(PhaseRefusal, match="real or imaginary"):
        require_no_magnitude(part(complex_image).astype(np.float32), one(np.abs(complex_image)), "p.nii")
    stored = np.round(2000 * part(complex_image)).astype(np.float32)
    with pytest.raises(PhaseRefusal, match="real or imaginary"):
        require_no_magnitude(stored, one(np.round(2000 * np.abs(complex_image))), "p.nii")


@pytest.mark.parametrize("offset", [0.0, 1.5, 3.1])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("contrast", [0, 0.3])
def test_a_phase_is_one(phantom: Phantom, offset: float, masked: bool, contrast: float) -> None:
    complex_image = signal(phantom, contrast)
    phase = np.angle(complex_image * np.exp(1j * offset)).astype(np.float32)
    require_no_magnitude(phase * phantom.mask if masked else phase, one(np.abs(complex_image)), "p.nii")


def test_an_echo_that_stands_twice_is_refused(phantom: Phantom) -> None:
    twice = phantom.phase[[0, 1, 0]].copy()
    twice[0, 0, 0, 0] = twice[2, 0, 0, 0] = np.nan
    with pytest.raises(PhaseRefusal, match="echoes 1 and 3") as caught:
        require_different_echoes(twice, ["a.nii", "b.nii", "c.nii"])
    assert caught.value.file == "c.nii"
    assert "a.nii" in str(caught.value)
    with pytest.raises(PhaseRefusal, match="echoes 1 and 3") as caught:
        require_different_echoes(twice, ["all.nii"])
    assert caught.value.file == "all.nii"
    almost = twice.copy()
    almost[2, 1, 1, 1] += 1
    require_different_echoes(almost, ["all.nii"])


def test_a_file_given_twice_is_refused_as_a_whole(files: Files) -> None:
    first, second, _ = files.echo_phase
    with pytest.raises(PhaseRefusal, match="Give every echo once"):
        load_scan([first, first, second], te_ms=TE, b0=3)


def test_a_magnitude_scaled_to_both_sides_is_no_full_range(phantom: Phantom) -> None:
    air = np.random.default_rng(2).rayleigh(0.02, phantom.magnitude.shape)
    magnitude = np.where(phantom.mask, np.abs(signal(phantom)), air)
    scaled = 2 * magnitude / magnitude.max() - 1
    phase, rule = scale_to_radians(scaled)
    assert rule.startswith("full range"), "the range alone does not tell"
    with pytest.raises(PhaseRefusal, match="without a wrap"):
        require_circle(phase, rule, "p.nii")


@pytest.mark.parametrize("offset", [0.0, 2.9, -2.9])
def test_a_phase_of_an_odd_scale_is_a_full_range(phantom: Phantom, offset: float) -> None:
    turned = np.angle(np.exp(1j * (phantom.phase + offset)))
    phase, rule = scale_to_radians(turned * 0.00367 / np.pi)
    assert rule.startswith("full range")
    require_circle(phase, rule, "p.nii")


def test_a_phase_that_is_empty_in_the_mask_is_refused(files: Files, phantom: Phantom, tmp_path: Path) -> None:
    outside = np.moveaxis(phantom.phase * ~phantom.mask, 0, -1)
    path = tmp_path / "p.nii.gz"
    nib.save(nib.Nifti1Image(outside, phantom.affine), path)
    with pytest.raises(PhaseRefusal, match="zero everywhere in the mask in echo 1") as caught:
        load_scan([path], mask_file=files.mask, te_ms=TE, b0=3)
    assert caught.value.file == "p.nii.gz"
    assert "Give a mask" in caught.value.mend


@pytest.mark.parametrize("units", ["Hz", "rad", "rad/s", "arbitrary"])
@pytest.mark.parametrize("kind", ["local_field", "total_field"])
def test_a_field_in_other_units_is_refused(files: Files, units: str, kind: str) -> None:
    field = files.local_field if kind == "local_field" else files.total_field
    sidecar = SourceFile(f"{kind}.json", json.dumps({"Units": units}).encode())
    with pytest.raises(FieldRefusal, match=r"42\.576") as caught:
        load_scan(mask_file=files.mask, sidecars=[sidecar], **{kind: field})
    assert caught.value.file == f"{kind}.json"


def test_a_field_in_ppm_may_say_so(files: Files) -> None:
    for content in ({"Units": "ppm"}, {"Units": " PPM "}, {"Units": None, "EchoTime": 0.01}):
        sidecar = SourceFile("f.json", json.dumps(content).encode())
        scan = load_scan(mask_file=files.mask, sidecars=[sidecar], local_field=files.local_field)
        assert scan.local_field is not None


def test_the_sidecar_beside_a_field_counts(files: Files, phantom: Phantom, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(phantom.local_field, phantom.affine), tmp_path / "lf.nii.gz")
    (tmp_path / "lf.json").write_text('{"Units": "Hz"}')
    with pytest.raises(FieldRefusal, match=r"lf\.json"):
        load_scan(mask_file=files.mask, local_field=tmp_path / "lf.nii.gz")


def test_a_phase_in_the_units_of_a_field_is_refused(files: Files) -> None:
    def sidecar(units: str) -> list[SourceFile]:
        return [SourceFile("s.json", json.dumps({"Units": units}).encode())]

    with pytest.raises(PhaseRefusal, match="--total-field"):
        load_scan([files.phase], sidecars=sidecar("ppm"), te_ms=TE, b0=3)
    for units in ("rad", "arbitrary"):
        assert load_scan([files.phase], sidecars=sidecar(units), te_ms=TE, b0=3).phase is not None
