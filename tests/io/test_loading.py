"""From files to a scan, or to the sentence that says why not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest

from qsm_ai.io import Limits, SourceFile, load_scan
from qsm_ai.scan import (
    Damaged,
    DirectionRefusal,
    EchoTimeRefusal,
    FieldRefusal,
    FieldStrengthRefusal,
    GridRefusal,
    MagnitudeRefusal,
    MaskRefusal,
    NotAnImage,
    PhaseRefusal,
    Refusal,
    SidecarRefusal,
    TooLarge,
)

if TYPE_CHECKING:
    from tests.conftest import Files, Phantom

SHARED = Path(os.environ.get("QSM_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
TE = [4.0, 8.0, 12.0]


@pytest.fixture
def save(tmp_path: Path, phantom: Phantom) -> Callable[..., Path]:
    """Write a volume onto the phantom's grid (or another)."""

    def write(name: str, volume: np.ndarray, affine: np.ndarray | None = phantom.affine) -> Path:
        image = nib.Nifti1Image(volume, affine)
        if affine is not None:
            image.set_qform(affine, code=1)
            image.set_sform(affine, code=1)
        path = tmp_path / name
        nib.save(image, path)
        return path

    return write


def last(series: np.ndarray) -> np.ndarray:
    return np.moveaxis(series, 0, -1)


def test_a_4d_phase_with_options_is_a_scan(files: Files, phantom: Phantom) -> None:
    scan = load_scan([files.phase], [files.magnitude], files.mask, te_ms=TE, b0=3.0)
    assert scan.name == "phase"
    assert scan.echo_times == pytest.approx((0.004, 0.008, 0.012))
    assert scan.field_strength == 3.0
    np.testing.assert_allclose(scan.phase, phantom.phase, atol=1e-6)
    assert scan.magnitude is not None
    np.testing.assert_allclose(scan.magnitude, phantom.magnitude / phantom.magnitude.max(), rtol=1e-6)
    np.testing.assert_array_equal(scan.mask, phantom.mask)
    assert scan.phase_rule == "radians"
    assert scan.sources["echo_times"] == "option"


def test_sidecars_beside_the_files_are_found_and_options_override_them(files: Files) -> None:
    scan = load_scan(files.echo_phase, files.echo_magnitude)
    assert scan.name == "sub-1"
    assert scan.echo_times == pytest.approx((0.004, 0.008, 0.012))
    assert scan.field_strength == 3.0
    assert scan.sources["echo_times"] == scan.sources["field_strength"] == "sidecar"
    overridden = load_scan(files.echo_phase, te_ms=[5, 9, 13], b0=7)
    assert overridden.echo_times == pytest.approx((0.005, 0.009, 0.013))
    assert overridden.field_strength == 7
    assert overridden.sources["echo_times"] == overridden.sources["field_strength"] == "option"


def test_files_are_put_into_the_order_of_their_echoes(files: Files, phantom: Phantom) -> None:
    scan = load_scan(files.echo_phase[::-1], files.echo_magnitude[1:] + files.echo_magnitude[:1])
    np.testing.assert_allclose(scan.phase, phantom.phase, atol=1e-6)
    assert scan.magnitude is not None
    np.testing.assert_allclose(scan.magnitude[2], phantom.magnitude[2] / phantom.magnitude.max(), rtol=1e-6)


def test_oblique_scans_know_the_direction_of_the_field(files: Files, phantom: Phantom) -> None:
    scan = load_scan([files.phase], te_ms=TE, b0=3)
    np.testing.assert_allclose(scan.b0_direction, phantom.b0_direction, atol=1e-6)
    assert scan.sources["b0_direction"] == "header (sform)"
    assert abs(scan.b0_direction[2]) < 0.99
    given = load_scan([files.phase], te_ms=TE, b0=3, b0_direction=(0, -2, 0))
    assert given.b0_direction == (0, -1, 0)


def test_uploaded_bytes_need_no_path(files: Files) -> None:
    phase = [SourceFile(p.name, p.read_bytes()) for p in files.echo_phase]
    with pytest.raises(EchoTimeRefusal, match="missing"):
        load_scan(phase, b0=3)
    sidecars = [
        SourceFile(n, (files.folder / n).read_bytes())
        for n in (p.name.replace(".nii.gz", ".json") for p in files.echo_phase[::-1])
    ]
    scan = load_scan(phase, sidecars=sidecars)
    assert scan.echo_times == pytest.approx((0.004, 0.008, 0.012))


@pytest.mark.parametrize(
    "content",
    [
        [{"EchoTime": [0.004, 0.008, 0.012], "MagneticFieldStrength": 3}],
        [{"EchoTime1": 0.004, "EchoTime2": 0.008, "EchoTime3": 0.012, "ImagingFrequency": 127.728}],
        [{"EchoTime": t, "MagneticFieldStrength": 3} for t in (0.004, 0.008, 0.012)],
    ],
    ids=["a list", "numbered, and a frequency", "one sidecar per echo"],
)
def test_a_4d_phase_takes_its_echo_times_from_sidecars(files: Files, content: list[dict[str, Any]]) -> None:
    sidecars = [SourceFile(f"echo-{i}_x.json", json.dumps(c).encode()) for i, c in enumerate(content)]
    scan = load_scan([files.phase], sidecars=sidecars)
    assert scan.echo_times == pytest.approx((0.004, 0.008, 0.012))
    assert scan.field_strength == pytest.approx(3.0, abs=1e-3)


def test_ge_scanners_store_the_opposite_sign(files: Files, phantom: Phantom) -> None:
    sidecar = SourceFile("a.json", b'{"Manufacturer": "GE MEDICAL SYSTEMS"}')
    scan = load_scan([files.phase], sidecars=[sidecar], te_ms=TE, b0=3)
    np.testing.assert_allclose(scan.phase, -phantom.phase, atol=1e-6)
    assert "GE" in scan.sources["phase_sign"]
    kept = load_scan([files.phase], sidecars=[sidecar], te_ms=TE, b0=3, phase_sign="positive")
    np.testing.assert_allclose(kept.phase, phantom.phase, atol=1e-6)
    turned = load_scan([files.phase], te_ms=TE, b0=3, phase_sign="negative")
    np.testing.assert_allclose(turned.phase, -phantom.phase, atol=1e-6)


def test_scanner_units_become_radians(save: Callable[..., Path], phantom: Phantom) -> None:
    stored = np.clip(np.round(last(phantom.phase) * 4096 / np.pi), -4096, 4095).astype(np.int16)
    scan = load_scan([save("p.nii", stored)], te_ms=TE, b0=3)
    np.testing.assert_allclose(scan.phase, phantom.phase, atol=0.002)
    assert "4096" in scan.phase_rule


def test_nan_outside_the_head_is_no_phase_of_its_own(save: Callable[..., Path], phantom: Phantom) -> None:
    phase = last(phantom.phase).copy()
    phase[~phantom.mask] = np.nan
    scan = load_scan([save("p.nii", phase)], te_ms=TE, b0=3)
    assert scan.phase is not None
    assert np.isfinite(scan.phase).all()
    assert not scan.phase[:, ~phantom.mask].any()


@pytest.mark.parametrize(
    ("scale", "dtype"), [(1, np.uint8), (255, np.uint8), (0.9, np.float32), (3, np.int16)],
    ids=["0 and 1", "0 and 255", "probability", "labels"],
)  # fmt: skip
def test_masks_come_in_several_kinds(
    save: Callable[..., Path], files: Files, phantom: Phantom, scale: float, dtype: type
) -> None:
    mask = save("m.nii.gz", (phantom.mask * scale).astype(dtype))
    scan = load_scan([files.phase], mask_file=mask, te_ms=TE, b0=3)
    np.testing.assert_array_equal(scan.mask, phantom.mask)


def test_a_mask_without_orientation_is_taken_by_its_shape(
    save: Callable[..., Path], files: Files, phantom: Phantom
) -> None:
    mask = save("m.nii.gz", phantom.mask.astype(np.uint8), None)
    assert load_scan([files.phase], mask_file=mask, te_ms=TE, b0=3).mask is not None


def test_a_field_needs_a_mask_and_no_field_strength(files: Files, phantom: Phantom) -> None:
    scan = load_scan(local_field=files.local_field, mask_file=files.mask)
    assert scan.phase is None
    np.testing.assert_array_equal(scan.local_field, phantom.local_field)
    assert scan.sources["field_strength"] == "default"
    scan = load_scan(total_field=files.total_field, mask_file=files.mask, b0=7)
    assert scan.total_field is not None
    assert scan.field_strength == 7


def test_a_magnitude_of_any_number_of_echoes_may_stand_beside_a_field(files: Files, phantom: Phantom) -> None:
    for magnitude, echoes in (([files.magnitude], 3), (files.echo_magnitude[:1], 1)):
        scan = load_scan(magnitude_files=magnitude, local_field=files.local_field, mask_file=files.mask)
        assert scan.magnitude is not None
        assert scan.magnitude.shape == (echoes, *phantom.chi.shape)
        assert scan.magnitude.max() == 1
        assert not scan.echo_times


# The table of bad input: what is wrong, how it is given, which refusal, and a word of its mend.
Case = Callable[[Callable[..., Path], "Files", "Phantom"], dict[str, Any]]


def phase_with(volume: Callable[[Phantom], np.ndarray], **more: Any) -> Case:
    return lambda save, _files, phantom: {
        "phase_files": [save("p.nii.gz", volume(phantom).astype(np.float32))], "te_ms": TE, "b0": 3, **more
    }  # fmt: skip


def good(**change: Any) -> Case:
    return lambda _save, files, _phantom: {
        "phase_files": [files.phase], "magnitude_files": [files.magnitude], "te_ms": TE, "b0": 3, **change
    }  # fmt: skip


def with_file(argument: str, volume: Callable[[Phantom], np.ndarray], shift: float = 0.0) -> Case:
    def case(save: Callable[..., Path], files: Files, phantom: Phantom) -> dict[str, Any]:
        affine = phantom.affine.copy()
        affine[0, 3] += shift
        path = save("other.nii.gz", volume(phantom).astype(np.float32), affine)
        value = [path] if argument == "magnitude_files" else path
        return {"phase_files": [files.phase], "te_ms": TE, "b0": 3} | {argument: value}

    return case


def with_sidecar(content: bytes, **change: Any) -> Case:
    return lambda _save, files, _phantom: {
        "phase_files": [files.phase], "sidecars": [SourceFile("s.json", content)], **change
    }  # fmt: skip


def with_field(kind: str, volume: Callable[[Phantom], np.ndarray], mask: bool = True) -> Case:
    return lambda save, files, phantom: {
        kind: save("f.nii.gz", volume(phantom).astype(np.float32)), "mask_file": files.mask if mask else None
    }  # fmt: skip


BAD: dict[str, tuple[Case, type[Refusal], str]] = {
    "nothing at all": (lambda *_: {}, Refusal, "Give either"),
    "phase and a field": (good(local_field="x.nii"), Refusal, "Give either"),
    "not a NIfTI": (good(phase_files=[SourceFile("p.nii", b"text" * 200)]), NotAnImage, "Export"),
    "over the size limit": (good(limits=Limits(stored=1000)), TooLarge, "Crop"),
    "over the unpacked limit": (good(limits=Limits(unpacked=100_000)), TooLarge, "Crop"),
    "magnitude of another shape": (
        with_file("magnitude_files", lambda p: last(p.magnitude)[:-1]), GridRefusal, "resample"),
    "magnitude of another affine": (
        with_file("magnitude_files", lambda p: last(p.magnitude), shift=2), GridRefusal, "resample"),
    "magnitude of another shape beside a field": (
        lambda save, f, p: {"local_field": f.local_field, "mask_file": f.mask,
                            "magnitude_files": [save("m.nii.gz", last(p.magnitude)[:-1])]},
        GridRefusal, "resample"),
    "magnitude that is a phase beside a field": (
        lambda _s, f, _p: {"local_field": f.local_field, "mask_file": f.mask, "magnitude_files": [f.phase]},
        MagnitudeRefusal, "swapped"),
    "magnitude of fewer echoes": (
        with_file("magnitude_files", lambda p: last(p.magnitude[:2])), GridRefusal, "every echo"),
    "magnitude all zeros": (
        with_file("magnitude_files", lambda p: 0 * last(p.phase)), MagnitudeRefusal, "holds"),
    "phase and magnitude swapped": (
        lambda _s, f, _p: {"phase_files": [f.magnitude], "magnitude_files": [f.phase], "te_ms": TE, "b0": 3},
        MagnitudeRefusal, "swapped"),
    "echo times missing": (good(te_ms=None), EchoTimeRefusal, "--te-ms"),
    "too few echo times": (good(te_ms=[4, 8]), EchoTimeRefusal, "one echo time per echo"),
    "too many echo times": (good(te_ms=[4, 8, 12, 16]), EchoTimeRefusal, "one echo time per echo"),
    "echo times not increasing": (good(te_ms=[4, 12, 8]), EchoTimeRefusal, "order"),
    "echo times equal": (good(te_ms=[4, 4, 8]), EchoTimeRefusal, "order"),
    "echo times negative": (good(te_ms=[-4, 4, 8]), EchoTimeRefusal, "milliseconds"),
    "echo times not numbers": (good(te_ms=[4, float("nan"), 8]), EchoTimeRefusal, "milliseconds"),
    "seconds given as milliseconds": (good(te_ms=[0.004, 0.008, 0.012]), EchoTimeRefusal, "--te-ms 4 8 12"),
    "microseconds given": (good(te_ms=[4000, 8000, 12000]), EchoTimeRefusal, "--te-ms 4 8 12"),
    "echo times of nothing": (good(te_ms=[4, 8, 1200]), EchoTimeRefusal, "milliseconds"),
    "milliseconds in the sidecar": (
        with_sidecar(b'{"EchoTime": [4, 8, 12], "MagneticFieldStrength": 3}'),
        EchoTimeRefusal, "--te-ms 4 8 12"),
    "one echo time in the sidecar of three echoes": (
        with_sidecar(b'{"EchoTime": 0.004, "MagneticFieldStrength": 3}'),
        EchoTimeRefusal, "one echo time per"),
    "sidecar without echo time": (with_sidecar(b'{"MagneticFieldStrength": 3}'), EchoTimeRefusal, "--te-ms"),
    "sidecar that is no JSON": (with_sidecar(b"{"), SidecarRefusal, "Correct"),
    "sidecar that is a list": (with_sidecar(b"[1]"), SidecarRefusal, "Correct"),
    "echo time that is a word": (with_sidecar(b'{"EchoTime": "short"}'), SidecarRefusal, "Correct"),
    "field strength missing": (good(b0=None), FieldStrengthRefusal, "--b0"),
    "field strength zero": (good(b0=0), FieldStrengthRefusal, "tesla"),
    "field strength in gauss": (
        with_sidecar(b'{"MagneticFieldStrength": 30000}', te_ms=TE), FieldStrengthRefusal, "tesla"),
    "direction without length": (good(b0_direction=(0, 0, 0)), DirectionRefusal, "--b0-direction"),
    "direction that is no number": (
        good(b0_direction=(0, float("nan"), 1)), DirectionRefusal, "--b0-direction"),
    "no orientation in the header": (
        lambda s, _f, p: {"phase_files": [s("p.nii", last(p.phase), None)], "te_ms": TE, "b0": 3},
        DirectionRefusal, "--b0-direction"),
    "phase that is a magnitude": (phase_with(lambda p: last(p.magnitude)), PhaseRefusal, "radians"),
    "magnitude in scanner units": (
        phase_with(lambda p: np.round(last(p.magnitude) / p.magnitude.max() * 4095)),
        PhaseRefusal, "radians"),
    "phase all zeros": (phase_with(lambda p: 0 * last(p.phase)), PhaseRefusal, "export"),
    "one echo all zeros": (phase_with(lambda p: last(p.phase) * np.array([1, 0, 1])), PhaseRefusal, "export"),
    "phase constant": (phase_with(lambda p: 0 * last(p.phase) + 1.5), PhaseRefusal, "export"),
    "phase all NaN": (phase_with(lambda p: last(p.phase) * np.nan), PhaseRefusal, "export"),
    "phase twice, as magnitude": (
        lambda s, _f, p: {
            "phase_files": [s("p.nii", last(np.abs(p.phase)))],
            "magnitude_files": [s("m.nii", last(np.abs(p.phase)) * 3)], "te_ms": TE, "b0": 3},
        PhaseRefusal, "phase"),
    "mask empty": (with_file("mask_file", lambda p: 0 * p.chi), MaskRefusal, "leave it out"),
    "mask of ten voxels": (
        with_file("mask_file", lambda p: (np.arange(p.chi.size) < 10).reshape(p.chi.shape)),
        MaskRefusal, "leave"),
    "mask that is an image": (
        with_file("mask_file", lambda p: 50 * p.magnitude[0]), MaskRefusal, "1 in the brain"),
    "mask of another shape": (with_file("mask_file", lambda p: p.mask[1:]), GridRefusal, "resample"),
    "mask of another place": (with_file("mask_file", lambda p: p.mask, shift=3), GridRefusal, "resample"),
    "mask of three volumes": (with_file("mask_file", lambda p: last(p.magnitude > 0)), MaskRefusal, "3D"),
    "field without mask": (
        with_field("local_field", lambda p: p.local_field, mask=False), MaskRefusal, "--mask"),
    "local field in hertz": (
        with_field("local_field", lambda p: 1e4 * p.local_field), FieldRefusal, "42.576"),
    "total field in hertz": (
        with_field("total_field", lambda p: 1e4 * p.total_field), FieldRefusal, "42.576"),
    "field zero in the mask": (with_field("local_field", lambda p: ~p.mask), FieldRefusal, "ppm"),
    "field of several volumes": (with_field("total_field", lambda p: last(p.phase)), FieldRefusal, "3D"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_with_a_mend(
    what: str, save: Callable[..., Path], files: Files, phantom: Phantom, tmp_path: Path
) -> None:
    case, refusal, mend = BAD[what]
    with pytest.raises(Refusal) as caught:
        load_scan(**case(save, files, phantom))
    error = caught.value
    assert type(error) is refusal, str(error)
    assert mend in error.mend
    assert error.sentence.endswith((".", "?", ")"))
    assert str(tmp_path) not in str(error)
    assert str(files.folder) not in str(error)
    assert "Doe" not in str(error)


def geometry(
    phantom: Phantom, sform: np.ndarray, qform: np.ndarray | None = None, code: int = 1
) -> SourceFile:
    image = nib.Nifti1Image(last(phantom.phase), sform)
    image.set_qform(phantom.affine if qform is None else qform, code=1)
    image.set_sform(sform, code=code)
    return SourceFile("p.nii", image.to_bytes())


def test_a_scan_in_a_template_keeps_the_scanners_voxels(phantom: Phantom) -> None:
    template = np.diag([1.25, 1.1, 1.4, 1.0])
    scan = load_scan([geometry(phantom, template, code=4)], te_ms=TE, b0=3)
    assert scan.grid.voxel_size == pytest.approx((1.0, 1.1, 1.25), rel=1e-5)
    np.testing.assert_allclose(scan.b0_direction, phantom.b0_direction, atol=1e-5)
    np.testing.assert_allclose(scan.grid.affine, template, atol=1e-6)


def test_a_geometry_that_is_doubted_is_refused(phantom: Phantom) -> None:
    sheared = phantom.affine.copy()
    sheared[:3, 1] += 0.5 * sheared[:3, 0]
    larger = phantom.affine @ np.diag([1.2, 1, 1, 1])
    for direction in (None, (0, 0, 1)):
        with pytest.raises(DirectionRefusal, match=r"p\.nii: has sheared axes.*registration"):
            load_scan([geometry(phantom, sheared)], te_ms=TE, b0=3, b0_direction=direction)
        with pytest.raises(Damaged, match=r"p\.nii: names two voxel sizes.*Correct its header"):
            load_scan([geometry(phantom, larger)], te_ms=TE, b0=3, b0_direction=direction)
    turned = np.diag([1, 1.1, 1.25, 1.0])
    with pytest.raises(DirectionRefusal, match=r"p\.nii: names two directions.*--b0-direction"):
        load_scan([geometry(phantom, turned)], te_ms=TE, b0=3)
    chosen = load_scan([geometry(phantom, turned)], te_ms=TE, b0=3, b0_direction=phantom.b0_direction)
    assert chosen.sources["b0_direction"] == "option"


@pytest.mark.parametrize("make", [np.ones_like, np.invert], ids=["everything", "inverted"])
@pytest.mark.parametrize("start", ["phase", "local_field"])
def test_a_mask_of_air_is_refused_whatever_the_scan_starts_from(
    save: Callable[..., Path], files: Files, phantom: Phantom, make: Callable[..., np.ndarray], start: str
) -> None:
    mask = save("m.nii.gz", make(phantom.mask).astype(np.uint8))
    given: dict[str, Any] = {"local_field": save("f.nii.gz", phantom.local_field + 0.01 * phantom.mask)}
    if start == "phase":
        given = {"phase_files": [files.phase], "te_ms": TE, "b0": 3}
    with pytest.raises(MaskRefusal, match=r"m\.nii\.gz: covers"):
        load_scan(magnitude_files=[files.magnitude], mask_file=mask, **given)


def test_two_files_on_different_grids_are_both_named(
    save: Callable[..., Path], files: Files, phantom: Phantom
) -> None:
    magnitude = save("mine.nii.gz", last(phantom.magnitude)[1:])
    with pytest.raises(GridRefusal) as caught:
        load_scan([files.phase], [magnitude], te_ms=TE, b0=3)
    assert "mine.nii.gz" in str(caught.value)
    assert "phase.nii.gz" in str(caught.value)


def test_3d_and_4d_files_do_not_mix(files: Files) -> None:
    with pytest.raises(GridRefusal, match="mix"):
        load_scan([files.echo_phase[0], files.phase], te_ms=TE, b0=3)


def test_the_limit_counts_all_echoes_together(files: Files, phantom: Phantom) -> None:
    one_and_a_half = phantom.chi.nbytes * 3 // 2
    with pytest.raises(TooLarge):
        load_scan(files.echo_phase, limits=Limits(unpacked=one_and_a_half))


def test_sidecars_of_other_files_are_refused(files: Files, tmp_path: Path) -> None:
    phases = [Path(shutil.copy(p, tmp_path / f"{i}.nii.gz")) for i, p in enumerate(files.echo_phase)]
    strangers = [SourceFile(f"{n}.json", b'{"EchoTime": 0.004}') for n in "ab"]
    with pytest.raises(SidecarRefusal, match="does not belong"):
        load_scan(phases, sidecars=strangers, b0=3)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not there")
def test_the_real_crop_is_nothing_but_tissue_and_may_be_masked_as_a_whole(tmp_path: Path) -> None:
    phase = nib.load(SHARED / "mgre_small" / "phase.nii.gz")
    nib.save(nib.Nifti1Image(np.ones(phase.shape[:3], np.uint8), phase.affine), tmp_path / "m.nii")
    magnitude = SHARED / "mgre_small" / "magnitude.nii.gz"
    for given in ([], [magnitude]):
        scan = load_scan([SHARED / "mgre_small" / "phase.nii.gz"], given, tmp_path / "m.nii", te_ms=TE, b0=7)
        assert scan.mask is not None


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not there")
def test_the_real_crop_with_its_odd_phase_range_is_read() -> None:
    folder = SHARED / "mgre_small"
    scan = load_scan([folder / "phase.nii.gz"], [folder / "magnitude.nii.gz"], te_ms=TE, b0=7)
    assert scan.phase is not None
    assert scan.phase.max() == pytest.approx(np.pi, rel=1e-4)
    assert "0.00367" in scan.phase_rule
    assert scan.grid.voxel_size == pytest.approx((0.46875, 0.46875, 1.0))
    assert scan.b0_direction == pytest.approx((0, 0, 1))
