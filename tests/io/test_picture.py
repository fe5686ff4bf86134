"""Pictures of three planes: proportions, window, labels."""

from __future__ import annotations

import numpy as np

from qsm_ai.io.canonical import Canonical
from qsm_ai.io.picture import slice_image, three_planes
from qsm_ai.scan import Grid

SHAPE = (10, 12, 14)


def marked() -> np.ndarray:
    """Zero, but for the voxel furthest to the right, front and top of the patient."""
    volume = np.zeros(SHAPE, np.float32)
    volume[-1, -1, -1] = 1
    return volume


def test_voxels_that_are_not_cubes_keep_their_proportions() -> None:
    canonical = Canonical.of(marked(), Grid(SHAPE, np.diag([1.0, 1.0, 3.0, 1.0])))
    assert slice_image(canonical, "coronal", 5, (0, 1), 2.0).size == (20, 84)


def test_the_window_maps_to_black_and_white() -> None:
    ramp = np.broadcast_to(np.linspace(-0.3, 0.3, 10, dtype=np.float32)[:, None, None], SHAPE)
    image = slice_image(Canonical.of(ramp, Grid(SHAPE, np.eye(4))), "axial", 7, (-0.1, 0.2), 1.0)
    line = np.asarray(image)[6]
    assert line[0] == 255
    assert line[-1] == 0
    assert (np.diff(line.astype(int)) <= 0).all()


def test_labels_are_left_out_where_nobody_knows_the_sides() -> None:
    grid = Grid(SHAPE, np.eye(4))
    with_labels, without = (
        three_planes(marked(), grid, (0, 1), "Susceptibility", "ppm", oriented=known)
        for known in (True, False)
    )
    assert with_labels != without
