"""Slices are shown as radiologists look at them: the patient's right on the left."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from qsm_ai.io.picture import PLANES, Canonical, slice_image, three_planes
from qsm_ai.scan import Grid

SHAPE = (10, 12, 14)


def marked() -> np.ndarray:
    """Zero, but for the voxel furthest to the right, front and top of the patient."""
    volume = np.zeros(SHAPE, np.float32)
    volume[-1, -1, -1] = 1
    return volume


@pytest.mark.parametrize(
    ("plane", "index", "row", "column"),
    [("axial", 13, 0, 0), ("coronal", 11, 0, 0), ("sagittal", 9, 0, 0)],
)
def test_right_is_left_front_and_top_are_up(plane: str, index: int, row: int, column: int) -> None:
    canonical = Canonical.of(marked(), Grid(SHAPE, np.eye(4)))
    cut = canonical.plane(plane, index)  # type: ignore[arg-type]
    assert np.argwhere(cut == 1).tolist() == [[row, column]]


@pytest.mark.parametrize("signs", list(itertools.product([1, -1], repeat=3)))
def test_any_storage_order_shows_the_same(signs: tuple[int, int, int]) -> None:
    flips = tuple(slice(None, None, s) for s in signs)
    affine = np.diag([*map(float, signs), 1.0])
    reference = Canonical.of(marked(), Grid(SHAPE, np.eye(4)))
    turned = np.transpose(marked()[flips], (2, 0, 1))
    order = np.zeros((4, 4))
    order[:, 0], order[:, 1], order[:, 2], order[:, 3] = (
        affine[:, 2],
        affine[:, 0],
        affine[:, 1],
        affine[:, 3],
    )
    other = Canonical.of(turned, Grid(turned.shape, order))
    np.testing.assert_array_equal(other.volume, reference.volume)


def test_voxels_that_are_not_cubes_keep_their_proportions() -> None:
    canonical = Canonical.of(marked(), Grid(SHAPE, np.diag([1.0, 1.0, 3.0, 1.0])))
    assert canonical.extent("coronal") == (10, 42)
    assert slice_image(canonical, "coronal", 5, (0, 1), 2.0).size == (20, 84)


def test_the_window_maps_to_black_and_white() -> None:
    ramp = np.broadcast_to(np.linspace(-0.3, 0.3, 10, dtype=np.float32)[:, None, None], SHAPE)
    image = slice_image(Canonical.of(ramp, Grid(SHAPE, np.eye(4))), "axial", 7, (-0.1, 0.2), 1.0)
    line = np.asarray(image)[6]
    assert line[0] == 255
    assert line[-1] == 0
    assert (np.diff(line.astype(int)) <= 0).all()


def test_the_middle_is_where_the_brain_is() -> None:
    volume = np.zeros((40, 40, 40), np.float32)
    volume[4:9, 20:29, 30:35] = 0.1
    assert Canonical.of(volume, Grid(volume.shape, np.eye(4))).centre() == (6, 24, 32)
    assert Canonical.of(volume * 0, Grid(volume.shape, np.eye(4))).centre() == (20, 20, 20)


def test_labels_are_left_out_where_nobody_knows_the_sides() -> None:
    grid = Grid(SHAPE, np.eye(4))
    with_labels, without = (
        three_planes(marked(), grid, (0, 1), "Susceptibility", "ppm", oriented=known)
        for known in (True, False)
    )
    assert with_labels != without
    assert len(PLANES) == 3
