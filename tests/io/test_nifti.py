"""A NIfTI file is believed only as far as it can be checked before memory is taken for it."""

from __future__ import annotations

import gzip
import io
import struct
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.io.nifti import Image, read_image, require_same_grid
from qsm_ai.io.source import Limits, SourceFile
from qsm_ai.scan import (
    Damaged,
    FileRefusal,
    GridRefusal,
    NotAnImage,
    Refusal,
    TooLarge,
    Truncated,
    WrongDimensions,
)

SHAPE = (9, 10, 11)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def nifti(
    volume: NDArray[np.generic] | None = None, affine: NDArray[np.float64] | None = AFFINE
) -> bytearray:
    """An uncompressed NIfTI-1 file."""
    if volume is None:
        volume = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    image = nib.Nifti1Image(volume, affine)
    return bytearray(image.to_bytes())


def patched(content: bytearray, offset: int, form: str, *values: float) -> bytes:
    struct.pack_into("<" + form, content, offset, *values)
    return bytes(content)


def read(content: bytes, name: str = "a.nii", limits: Limits | None = None) -> Image:
    return read_image(SourceFile(name, content), limits or Limits())


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_plain_data_type_reads_as_nibabel_reads_it(dtype: str, packed: bool) -> None:
    volume = np.random.default_rng(1).integers(0, 100, SHAPE).astype(dtype)
    image = nib.Nifti1Image(volume, AFFINE, dtype=dtype)
    content = image.to_bytes()
    found = read(gzip.compress(content) if packed else content)
    np.testing.assert_array_equal(found.data[0], volume.astype(np.float32))
    assert found.data.dtype == np.float32


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_versions_and_big_endian_files_are_read(kind: type[nib.Nifti1Image]) -> None:
    volume = np.random.default_rng(2).standard_normal((*SHAPE, 3)).astype(">f4")
    header = kind.header_class(endianness=">")
    header.set_data_dtype(">f4")
    image = kind(volume, AFFINE, header)
    found = read(image.to_bytes())
    np.testing.assert_array_equal(found.data, np.moveaxis(volume, -1, 0))
    assert found.grid.shape == SHAPE
    assert found.grid.voxel_size == (1.0, 2.0, 3.0)


def test_slope_and_intercept_are_applied() -> None:
    content = patched(nifti(), 112, "2f", 0.5, -7.0)
    expected = np.arange(np.prod(SHAPE)).reshape(SHAPE) * 0.5 - 7
    np.testing.assert_allclose(read(content).data[0], expected)


@pytest.mark.parametrize("slope", [0.0, float("nan"), float("inf")])
def test_a_slope_that_is_none_means_not_scaled(slope: float) -> None:
    content = patched(nifti(), 112, "2f", slope, 3.0)
    assert read(content).data[0, 0, 0, 1] == 1


def test_an_intercept_that_is_no_number_is_refused() -> None:
    with pytest.raises(Damaged, match="intercept"):
        read(patched(nifti(), 112, "2f", 2.0, float("nan")))


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        pytest.param(b"", Truncated, id="empty"),
        pytest.param(b"\x1f\x8b", Truncated, id="two bytes of gzip"),
        pytest.param(b"PATIENT: Doe^Jane " * 100, NotAnImage, id="text"),
        pytest.param(b"\0" * 128 + b"DICM" + b"\0" * 500, NotAnImage, id="DICOM"),
        pytest.param(gzip.compress(b"hello" * 200), NotAnImage, id="gzipped text"),
        pytest.param(bytes(nifti())[:200], Truncated, id="half a header"),
        pytest.param(bytes(nifti())[:-1], Truncated, id="one byte short"),
        pytest.param(gzip.compress(bytes(nifti()))[:-9], Truncated, id="gzip without its end"),
        pytest.param(gzip.compress(bytes(nifti()))[:60], Truncated, id="gzip cut early"),
        pytest.param(
            gzip.compress(bytes(nifti()))[:-8] + b"\1" * 8, Damaged, id="gzip with a wrong checksum"
        ),
        pytest.param(gzip.compress(bytes(nifti())) + b"and more", Damaged, id="bytes behind the gzip data"),
        pytest.param(patched(nifti(), 40, "h", 0), WrongDimensions, id="0 dimensions"),
        pytest.param(patched(nifti(), 40, "h", 2), WrongDimensions, id="2 dimensions"),
        pytest.param(patched(nifti(), 40, "h", 5), WrongDimensions, id="5 dimensions"),
        pytest.param(patched(nifti(), 42, "h", -9), WrongDimensions, id="negative axis"),
        pytest.param(patched(nifti(), 46, "h", 1), WrongDimensions, id="a single slice"),
        pytest.param(patched(nifti(), 70, "h", 128), FileRefusal, id="RGB"),
        pytest.param(patched(nifti(), 70, "h", 32), FileRefusal, id="complex"),
        pytest.param(patched(nifti(), 70, "h", 1536), FileRefusal, id="128 bits"),
        pytest.param(patched(nifti(), 70, "h", 9999), FileRefusal, id="unknown data type"),
        pytest.param(patched(nifti(), 344, "4s", b"ni1\0"), NotAnImage, id="half of a pair"),
        pytest.param(patched(nifti(), 344, "4s", b"\0\0\0\0"), NotAnImage, id="Analyze"),
        pytest.param(patched(nifti(), 108, "f", 1e9), Truncated, id="data beyond the end"),
        pytest.param(patched(nifti(), 280, "4f", *[float("nan")] * 4), Damaged, id="affine of NaN"),
        pytest.param(patched(nifti(), 280, "4f", 0, 0, 0, 0), Damaged, id="flat affine"),
    ],
)
def test_a_bad_file_is_refused(content: bytes, refusal: type[Refusal]) -> None:
    # nibabel writes no qform code for an affine, so that the sform alone counts here.
    with pytest.raises(refusal) as caught:
        read(content, "doe.nii")
    assert type(caught.value) is refusal
    assert caught.value.file == "doe.nii"
    assert caught.value.mend
    assert "Doe^Jane" not in str(caught.value)


def test_zeros_that_pad_a_gzip_file_and_several_members_are_no_damage() -> None:
    content = bytes(nifti())
    packed = gzip.compress(content[:500]) + gzip.compress(content[500:]) + b"\0" * 512
    np.testing.assert_array_equal(read(packed).data, read(content).data)


def test_a_file_over_the_stored_limit_is_refused() -> None:
    with pytest.raises(TooLarge, match="limit"):
        read(bytes(nifti()), limits=Limits(stored=1000))


def test_a_promise_of_too_much_is_refused_from_the_header_alone() -> None:
    header = bytes(patched(nifti(), 40, "4h", 3, 4000, 4000, 4000))
    tracemalloc.start()
    with pytest.raises(TooLarge, match="unpacks"):
        read(gzip.compress(header))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def test_a_gzip_bomb_behind_an_honest_image_is_not_unfolded() -> None:
    bomb = gzip.compress(bytes(nifti()) + b"\0" * (64 << 20))
    assert len(bomb) < 1e6
    tracemalloc.start()
    with pytest.raises(TooLarge, match="far more data"):
        read(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


def test_a_header_that_no_gzip_of_that_size_can_fulfil_is_refused_at_once() -> None:
    big = bytes(patched(nifti(), 40, "4h", 3, 500, 500, 500))
    packed = gzip.compress(big)
    tracemalloc.start()
    with pytest.raises(Truncated):
        read(packed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def test_paths_bytes_and_spooled_files_give_the_same(tmp_path: Path) -> None:
    content = gzip.compress(bytes(nifti()))
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    with tempfile.SpooledTemporaryFile(max_size=10) as spooled:
        spooled.write(content)
        for given in (path, content, io.BytesIO(content), spooled):
            found = read_image(SourceFile("a.nii.gz", given), Limits())
            np.testing.assert_array_equal(found.data, read(content).data)


@pytest.mark.parametrize(("make", "words"), [(Path.mkdir, "folder"), (lambda _: None, "does not exist")])
def test_a_path_without_a_file_is_refused(tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    make(tmp_path / "x.nii")
    with pytest.raises(FileRefusal, match=words) as caught:
        read_image(SourceFile.of(tmp_path / "x.nii"), Limits())
    assert str(tmp_path) not in str(caught.value)


def test_metres_and_micrometres_become_millimetres() -> None:
    content = nifti(affine=np.diag([0.001, 0.002, 0.003, 1.0]))
    content[123] = 1
    assert read(bytes(content)).grid.voxel_size == pytest.approx((1, 2, 3))


def test_the_direction_comes_from_the_form_in_scanner_coordinates() -> None:
    tilt = np.eye(4)
    tilt[:3, :3] = [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]
    image = nib.Nifti1Image(np.zeros(SHAPE, np.float32), None)
    image.set_sform(np.eye(4), code=4)
    image.set_qform(tilt, code=1)
    found = read(image.to_bytes())
    np.testing.assert_allclose(found.b0_direction, (0, 0.6, 0.8), atol=1e-6)
    assert found.b0_source == "qform"
    np.testing.assert_allclose(found.grid.affine, np.eye(4))


def both(sform: NDArray[np.float64], qform: NDArray[np.float64], codes: tuple[int, int] = (1, 1)) -> Image:
    """An image with the two forms and their codes."""
    image = nib.Nifti1Image(np.zeros(SHAPE, np.float32), sform if codes[0] else qform)
    image.set_qform(qform, code=codes[1])
    image.set_sform(sform, code=codes[0])
    return read(image.to_bytes())


TEMPLATE = np.diag([1.25, 1.1, 1.4, 1.0])
SHEARED = np.array([[1, 0.5, 0.5, 0], [0, 1, 0.7, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
OBLIQUE = np.array([[1, 0, 0, 5], [0, 0.8, -0.6, 6], [0, 0.6, 0.8, 7], [0, 0, 0, 1.0]]) @ AFFINE


@pytest.mark.parametrize("code", [2, 3, 4, 5])
@pytest.mark.parametrize("sform", [TEMPLATE, SHEARED, np.eye(4)])
def test_the_voxel_size_is_the_scanners_where_the_sform_leads_to_a_template(
    code: int, sform: NDArray[np.float64]
) -> None:
    found = both(sform, AFFINE, (code, 1))
    assert found.grid.voxel_size == pytest.approx((1, 2, 3))
    np.testing.assert_allclose(found.grid.affine, sform, atol=1e-6)
    assert (found.b0_source, found.doubt) == ("qform", "")


@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (1, 2), (0, 1), (2, 0), (2, 2), (4, 1)])
@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE, np.diag([-1, 1, 1, 1]) @ OBLIQUE])
def test_forms_that_agree_up_to_rounding_are_believed(
    codes: tuple[int, int], affine: NDArray[np.float64]
) -> None:
    rounded = affine.copy()
    rounded[:3, :3] *= 1 + 1e-4
    rounded[0, 1] += 2e-3
    found = both(rounded, affine, codes)
    assert found.doubt == ""
    assert found.oriented
    assert found.grid.voxel_size == pytest.approx((1, 2, 3), rel=1e-3)
    expected = affine[2, :3] / (1, 2, 3)
    np.testing.assert_allclose(found.b0_direction, expected, atol=5e-3)


def test_two_forms_of_the_scanner_that_contradict_each_other_are_doubted() -> None:
    turned = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    assert both(np.eye(4), turned).doubt == "direction"
    assert both(np.eye(4), AFFINE).doubt == "voxel size"
    moved = np.eye(4)
    moved[:3, 3] = (10, -20, 30)
    assert both(np.eye(4), moved).doubt == ""
    assert both(np.eye(4), np.diag([-1, -1, 1, 1.0])).doubt == ""


def test_sheared_axes_are_doubted_unless_the_scanners_are_known() -> None:
    assert both(SHEARED, AFFINE, (1, 0)).doubt == "sheared"
    assert both(SHEARED, AFFINE, (4, 0)).doubt == "sheared"
    assert both(SHEARED, AFFINE, (1, 1)).doubt == "sheared"
    straight = both(SHEARED, OBLIQUE, (2, 2))
    assert (straight.doubt, straight.b0_source) == ("", "qform")
    assert straight.grid.voxel_size == pytest.approx((1, 2, 3))


def test_an_image_without_orientation_says_so() -> None:
    image = nib.Nifti1Image(np.zeros(SHAPE, np.float32), None)
    image.header.set_zooms((1, 2, 3))
    found = read(image.to_bytes())
    assert not found.oriented
    assert found.grid.voxel_size == (1.0, 2.0, 3.0)


def test_images_of_different_grids_are_refused_with_both_names() -> None:
    first = read(bytes(nifti()), "phase.nii")
    require_same_grid(first, [read(bytes(nifti()), "mag.nii")], "Phase and magnitude")
    shifted = AFFINE.copy()
    shifted[0, 3] = 0.5
    rounded = AFFINE.copy()
    rounded[0, 3] = 0.001
    require_same_grid(first, [read(bytes(nifti(affine=rounded)), "mag.nii")], "Phase and magnitude")
    for other in (nifti(affine=shifted), nifti(np.zeros((9, 10, 12), np.int16))):
        with pytest.raises(GridRefusal) as caught:
            require_same_grid(first, [read(bytes(other), "mag.nii")], "Phase and magnitude")
        assert "mag.nii" in str(caught.value)
        assert "phase.nii" in str(caught.value)
