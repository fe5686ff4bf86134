"""Volumes lie along the patient's axes however they are stored, and slices as radiologists look at them."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.io.canonical import PLANES, Canonical, Plane, canonical_geometry, grey
from qsm_ai.scan import Grid

SHAPE = (10, 12, 14)
SIZES = (0.8, 1.0, 2.5)


def marked() -> NDArray[np.float32]:
    """Zero, but for the voxel furthest to the right, front and top of the patient."""
    volume = np.zeros(SHAPE, np.float32)
    volume[-1, -1, -1] = 1
    return volume


def stored(
    volume: NDArray[np.float32], order: tuple[int, ...], signs: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The volume with its axes in another order and direction, and the affine that says so."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for column, axis in enumerate(order):
        affine[axis, column] = signs[column] * SIZES[axis]
    turned = np.transpose(volume, order)[tuple(slice(None, None, sign) for sign in signs)]
    return turned, affine


STORAGE = list(itertools.product(itertools.permutations(range(3)), itertools.product([1, -1], repeat=3)))


@pytest.mark.parametrize("plane", PLANES)
def test_right_is_left_front_and_top_are_up(plane: Plane) -> None:
    canonical = Canonical.of(marked(), Grid(SHAPE, np.eye(4)))
    last = SHAPE[PLANES.index(plane)] - 1
    assert np.argwhere(canonical.plane(plane, last) == 1).tolist() == [[0, 0]]


def test_every_axis_runs_as_a_radiologist_expects() -> None:
    right, front, top = (
        Canonical(np.broadcast_to(a, (4, 5, 6)).astype(np.float32), (1, 1, 1)) for a in np.ogrid[:4, :5, :6]
    )
    for plane in ("axial", "coronal"):
        assert (np.diff(right.plane(plane, 0), axis=1) < 0).all(), "the patient's right is on the left"
    assert (np.diff(front.plane("axial", 0), axis=0) < 0).all(), "the front is on top"
    assert (np.diff(top.plane("coronal", 0), axis=0) < 0).all(), "the top is on top"
    assert (np.diff(top.plane("sagittal", 0), axis=0) < 0).all(), "the top is on top"
    assert (np.diff(front.plane("sagittal", 0), axis=1) < 0).all(), "the front is on the left"
    assert right.plane("sagittal", 3).tolist() == np.full((6, 5), 3).tolist()


@pytest.mark.parametrize(("order", "signs"), STORAGE)
def test_any_storage_order_is_the_same(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    turned, affine = stored(marked(), order, signs)
    grid = Grid(turned.shape, affine)  # type: ignore[arg-type]
    canonical = Canonical.of(turned, grid)
    np.testing.assert_array_equal(canonical.volume, marked())
    assert canonical.voxel_size == SIZES
    assert canonical_geometry(grid) == (SHAPE, SIZES)


@pytest.mark.parametrize(("order", "signs"), STORAGE[::7])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_is_read_as_it_lies_in_the_patient(
    tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...], suffix: str
) -> None:
    path = tmp_path / f"chi{suffix}"
    nib.save(nib.Nifti1Image(*stored(marked(), order, signs)), path)  # type: ignore[no-untyped-call]
    canonical = Canonical.read(path)
    path.write_bytes(b"")
    assert canonical.volume.dtype == np.float32
    np.testing.assert_array_equal(canonical.volume, marked())
    assert canonical.voxel_size == pytest.approx(SIZES)


def test_voxels_that_are_not_cubes_keep_their_proportions() -> None:
    canonical = Canonical(marked(), (1.0, 2.0, 3.0))
    assert [canonical.pixel(plane) for plane in PLANES] == [(2, 3), (1, 3), (1, 2)]
    assert [canonical.extent(plane) for plane in PLANES] == [(24, 42), (10, 42), (10, 24)]


def test_the_middle_is_where_the_brain_is() -> None:
    volume = np.zeros((40, 40, 40), np.float32)
    volume[4:9, 20:29, 30:35] = 0.1
    assert Canonical(volume, (1, 1, 1)).centre() == (6, 24, 32)
    assert Canonical(volume * 0, (1, 1, 1)).centre() == (20, 20, 20)


def test_shades_run_from_black_to_white_and_what_is_no_number_is_black() -> None:
    values = np.array([-np.inf, -0.2, -0.1, 0.05, 0.2, 0.3, np.inf, np.nan], np.float32)
    assert grey(values, (-0.1, 0.2)).tolist() == [0, 0, 0, 128, 255, 255, 255, 0]
