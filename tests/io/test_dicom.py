"""DICOM folders and zips become a scan, through the real dcm2niix."""

from __future__ import annotations

import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qsm_ai.io import Limits, SourceFile, dicom, load_scan
from qsm_ai.io.dicom import convert_dicom
from qsm_ai.io.folders import open_given
from qsm_ai.scan import Damaged, FileRefusal, NotAnImage, TooLarge

pytest.importorskip("dcm2niix", reason="the extra dicom is not installed")

SHAPE = (24, 20, 12)
ECHO_TIMES_MS = (4.0, 9.0)

Series = Callable[..., dict[str, bytes]]


def _element(group: int, number: int, vr: str, value: bytes | str) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    if len(data) % 2:
        data += b"\0" if vr in {"UI", "OB"} else b" "
    head = struct.pack("<HH2s", group, number, vr.encode())
    if vr in {"OB", "OW"}:
        return head + struct.pack("<HI", 0, len(data)) + data
    return head + struct.pack("<H", len(data)) + data


def _slice(
    pixels: np.ndarray,
    *,
    series: int,
    echo: int,
    index: int,
    phase: bool,
    study: int = 9999,
    uid: int | None = None,
    timed: bool = True,
) -> bytes:
    """One slice of a Siemens-like series, explicit little endian."""
    instance = f"1.2.826.0.1.3680043.9.{study}.{series}.{echo}.{index + 1}"
    columns, rows = pixels.shape
    kind = "P" if phase else "M"
    dataset = b"".join(
        [
            _element(0x08, 0x08, "CS", f"ORIGINAL\\PRIMARY\\{kind}\\ND"),
            _element(0x08, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.4"),
            _element(0x08, 0x18, "UI", instance),
            _element(0x08, 0x60, "CS", "MR"),
            _element(0x08, 0x70, "LO", "SIEMENS"),
            _element(0x10, 0x10, "PN", "Doe^Jane"),
            _element(0x10, 0x20, "LO", "SECRET-ID"),
            _element(0x18, 0x23, "CS", "3D"),
            _element(0x18, 0x50, "DS", "2"),
            _element(0x18, 0x80, "DS", "30"),
            *([_element(0x18, 0x81, "DS", f"{ECHO_TIMES_MS[echo - 1]:g}")] if timed else []),
            _element(0x18, 0x86, "IS", str(echo)),
            _element(0x18, 0x87, "DS", "3"),
            _element(0x20, 0x0D, "UI", f"1.2.826.0.1.3680043.9.{study}"),
            _element(0x20, 0x0E, "UI", f"1.2.826.0.1.3680043.9.{study}.{uid or series}"),
            _element(0x20, 0x11, "IS", str(series)),
            _element(0x20, 0x13, "IS", str((echo - 1) * SHAPE[2] + index + 1)),
            _element(0x20, 0x32, "DS", f"0\\0\\{2 * index}"),
            _element(0x20, 0x37, "DS", "1\\0\\0\\0\\1\\0"),
            _element(0x28, 0x02, "US", struct.pack("<H", 1)),
            _element(0x28, 0x04, "CS", "MONOCHROME2"),
            _element(0x28, 0x10, "US", struct.pack("<H", rows)),
            _element(0x28, 0x11, "US", struct.pack("<H", columns)),
            _element(0x28, 0x30, "DS", "1\\1"),
            _element(0x28, 0x100, "US", struct.pack("<H", 16)),
            _element(0x28, 0x101, "US", struct.pack("<H", 12)),
            _element(0x28, 0x102, "US", struct.pack("<H", 11)),
            _element(0x28, 0x103, "US", struct.pack("<H", 0)),
            _element(0x7FE0, 0x10, "OW", pixels.T.astype("<u2").tobytes()),
        ]
    )
    meta = b"".join(
        [
            _element(0x02, 0x02, "UI", "1.2.840.10008.5.1.4.1.1.4"),
            _element(0x02, 0x03, "UI", instance),
            _element(0x02, 0x10, "UI", "1.2.840.10008.1.2.1"),
            _element(0x02, 0x12, "UI", "1.2.826.0.1.3680043.9.9999.0"),
        ]
    )
    return b"\0" * 128 + b"DICM" + _element(0x02, 0x00, "UL", struct.pack("<I", len(meta))) + meta + dataset


@pytest.fixture(scope="module")
def series() -> Series:
    """Files of a series with two echoes: a steep ramp, wrapped, or its smooth magnitude."""
    x, y, z = np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")

    def make(number: int, phase: bool, echoes: tuple[int, ...] = (1, 2), **options: Any) -> dict[str, bytes]:
        files = {}
        for echo in echoes:
            time = ECHO_TIMES_MS[echo - 1]
            angle = time * (0.17 * x + 0.11 * y + 0.05 * z)
            wrapped = np.angle(np.exp(1j * angle))
            magnitude = 900 * np.exp(-time / 30) * np.exp(-((x - 12) ** 2 + (y - 10) ** 2) / 200)
            volume = (
                np.clip(np.round((wrapped / np.pi + 1) * 2048), 0, 4095) if phase else np.round(magnitude)
            )
            for index in range(SHAPE[2]):
                files[f"{options.get('study', 9999)}/{number}/{echo}-{index}.dcm"] = _slice(
                    volume[:, :, index],
                    series=number,
                    echo=echo,
                    index=index,
                    phase=phase,
                    **options,
                )
        return files

    return make


def _folder(root: Path, *groups: dict[str, bytes]) -> Path:
    for group in groups:
        for name, content in group.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


def _zip(*groups: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for group in groups:
            for name, content in group.items():
                archive.writestr(name, content)
    return packed.getvalue()


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_multi_echo_series_is_found_and_read(series: Series, tmp_path: Path, packed: bool) -> None:
    groups = (series(5, False), series(6, True))
    given = SourceFile("jane.zip", _zip(*groups)) if packed else _folder(tmp_path / "jane", *groups)
    with convert_dicom(given) as found:
        assert found.name == "series-6"
        assert (len(found.phase), len(found.magnitude), len(found.sidecars)) == (2, 2, 2)
        scan = load_scan(found.phase, found.magnitude, sidecars=found.sidecars, name=found.name)
        sidecar = json.loads(found.sidecars[0].path.read_text())  # type: ignore[union-attr]
        scratch = found.phase[0].path
    assert scan.echo_times == pytest.approx((0.004, 0.009))
    assert scan.field_strength == 3
    assert scan.grid.voxel_size == pytest.approx((1, 1, 2))
    assert scan.phase_rule
    assert scan.phase is not None
    assert scan.phase.shape == (2, *SHAPE)
    assert np.ptp(scan.phase) > 6
    assert not any("Doe" in str(v) or "SECRET" in str(v) for v in sidecar.values())
    assert [file.name for file in found.phase] == ["s6_e1_ph.nii", "s6_e2_ph.nii"]
    assert [file.name for file in found.magnitude] == ["s5_e1.nii", "s5_e2.nii"]
    assert not any("9999" in file.name for file in (*found.phase, *found.magnitude, *found.sidecars))
    assert scratch is not None
    assert not scratch.exists(), "nothing of a patient stays in the temporary folder"


def test_the_phase_follows_the_pixels(series: Series, tmp_path: Path) -> None:
    with convert_dicom(_folder(tmp_path, series(5, False), series(6, True))) as found:
        scan = load_scan(found.phase, sidecars=found.sidecars)
    assert scan.phase is not None
    step = np.angle(np.exp(1j * np.diff(scan.phase[0], axis=0)))
    assert abs(np.median(step)) == pytest.approx(4 * 0.17, abs=0.01)


def test_without_phase_it_says_so(series: Series, tmp_path: Path) -> None:
    with pytest.raises(FileRefusal, match="no phase"), convert_dicom(_folder(tmp_path, series(5, False))):
        pass


def test_two_phase_series_are_not_guessed_between(series: Series, tmp_path: Path) -> None:
    folder = _folder(tmp_path, series(6, True), series(9, True))
    with pytest.raises(FileRefusal, match=r"several phase series \(numbers 6, 9\)"), convert_dicom(folder):
        pass


def test_two_patients_are_not_mixed_into_one_map(series: Series, tmp_path: Path) -> None:
    """Scanners number the series of every patient alike."""
    folder = _folder(tmp_path, series(6, True, study=1, echoes=(1,)), series(6, True, study=2, echoes=(2,)))
    with pytest.raises(FileRefusal, match="several examinations"), convert_dicom(folder):
        pass


def test_two_series_of_one_number_are_told_apart(series: Series, tmp_path: Path) -> None:
    folder = _folder(tmp_path, series(6, True, echoes=(1,)), series(6, True, echoes=(2,), uid=7))
    with pytest.raises(FileRefusal, match=r"several phase series \(numbers 6, 6\)"), convert_dicom(folder):
        pass


def test_the_magnitude_is_that_of_the_same_patient(series: Series, tmp_path: Path) -> None:
    folder = _folder(tmp_path, series(6, True, study=1), series(5, False, study=2))
    with convert_dicom(folder) as found:
        assert found.magnitude == ()


def test_missing_slices_are_not_drawn_together(series: Series, tmp_path: Path) -> None:
    files = {n: c for n, c in series(6, True).items() if not n.endswith(("-5.dcm", "-6.dcm"))}
    with (
        pytest.raises(FileRefusal, match="lacks slices of series 6") as caught,
        convert_dicom(_folder(tmp_path, files)),
    ):
        pass
    assert "Export" in caught.value.mend


def test_missing_slices_of_another_series_do_not_matter(series: Series, tmp_path: Path) -> None:
    other = {n: c for n, c in series(3, False, echoes=(1,)).items() if not n.endswith("-5.dcm")}
    with convert_dicom(_folder(tmp_path, other, series(5, False), series(6, True))) as found:
        assert (len(found.phase), len(found.magnitude)) == (2, 2)


def test_a_file_that_ends_early_costs_no_echo_silently(series: Series, tmp_path: Path) -> None:
    files = series(6, True)
    name = "9999/6/2-5.dcm"
    folder = _folder(tmp_path, {**files, name: files[name][: len(files[name]) // 2]})
    with pytest.raises(FileRefusal, match="could not be converted completely"), convert_dicom(folder):
        pass


def test_a_conversion_without_room_says_so(
    series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "dcm2niix"
    program.write_text("#!/bin/sh\necho 'Error: Unable to write x.nii (disk full?)' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(dicom, "_program", lambda: str(program))
    folder = _folder(tmp_path / "in", series(6, True))
    with pytest.raises(FileRefusal, match="completely") as caught, convert_dicom(folder):
        pass
    assert "TMPDIR" in caught.value.mend


def test_without_a_folder_for_temporary_files_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(FileRefusal) as caught, convert_dicom(tmp_path):
        pass
    assert "TMPDIR" in caught.value.mend


def test_echoes_without_times_are_in_the_order_of_their_numbers(series: Series, tmp_path: Path) -> None:
    folder = _folder(tmp_path, series(5, False, timed=False), series(6, True, timed=False))
    with convert_dicom(folder) as found:
        scan = load_scan(found.phase, found.magnitude, te_ms=ECHO_TIMES_MS, b0=3)
    assert scan.phase is not None
    step = np.angle(np.exp(1j * np.diff(scan.phase, axis=1)))
    assert np.abs(np.median(step, axis=(1, 2, 3))) == pytest.approx([4 * 0.17, 9 * 0.17], abs=0.01)
    assert scan.magnitude is not None


def test_an_option_counts_more_than_the_sidecars_of_a_conversion(series: Series, tmp_path: Path) -> None:
    corrected = tmp_path / "corrected.json"
    corrected.write_text(json.dumps({"EchoTime": [0.005, 0.010]}))
    folder = _folder(tmp_path / "in", series(6, True))
    with open_given([folder], [], [corrected]) as found:
        scan = load_scan(found.phase, sidecars=found.sidecars, name=found.name)
    assert scan.echo_times == pytest.approx((0.005, 0.010))
    assert scan.field_strength == 3


def test_a_zip_of_nifti_images_is_called_that() -> None:
    content = _zip({"a/sub-1_part-phase_MEGRE.nii.gz": b"x"})
    with (
        pytest.raises(NotAnImage, match="zip of NIfTI") as caught,
        convert_dicom(SourceFile("a.zip", content)),
    ):
        pass
    assert "Unpack" in caught.value.mend


def test_names_in_a_zip_lead_nowhere(series: Series, tmp_path: Path) -> None:
    evil = {"../../../escaped.txt": b"x", "/absolute.txt": b"x", "a\\..\\b.txt": b"x"}
    packed = tmp_path / "in.zip"
    packed.write_bytes(_zip(evil, series(6, True)))
    with convert_dicom(packed) as found:
        assert len(found.phase) == 2
    assert not list(tmp_path.parent.rglob("escaped.txt"))
    assert not Path("/absolute.txt").exists()


def test_a_zip_bomb_is_stopped_while_it_unfolds() -> None:
    bomb = _zip({"a": bytes(30 << 20)})
    assert len(bomb) < 100_000
    with (
        pytest.raises(TooLarge, match="unpacks"),
        convert_dicom(SourceFile("b.zip", bomb), Limits(unpacked=10 << 20)),
    ):
        pass


@pytest.mark.parametrize(
    ("content", "refusal"),
    [(b"no zip at all", NotAnImage), (_zip({"a.txt": b"hello"}), NotAnImage), (_zip(), NotAnImage)],
    ids=["not a zip", "a zip of text", "an empty zip"],
)
def test_other_files_are_refused(content: bytes, refusal: type[FileRefusal]) -> None:
    with pytest.raises(refusal) as caught, convert_dicom(SourceFile("a.zip", content)):
        pass
    assert caught.value.file == "a.zip"


def test_a_damaged_zip_is_refused(series: Series) -> None:
    content = bytearray(_zip(series(6, True)))
    content[200:400] = bytes(200)
    with pytest.raises(Damaged), convert_dicom(SourceFile("a.zip", bytes(content))):
        pass


def test_a_zip_over_the_limit_is_not_opened(series: Series) -> None:
    content = _zip(series(6, True))
    with pytest.raises(TooLarge), convert_dicom(SourceFile("a.zip", content), Limits(stored=1000)):
        pass
