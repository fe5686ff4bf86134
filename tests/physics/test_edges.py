"""Edges of the magnitude: where tissue ends, whatever the unit, the coil or the mask."""

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.physics.edges import magnitude_edges, slopes

Volume = NDArray[np.float32]
SHAPE, VOXEL = (24, 22, 20), (1.0, 1.5, 2.0)


def slab(axis: int = 0) -> tuple[Volume, NDArray[np.bool_]]:
    """Two tissues, met in the middle of an axis, in two echoes with a little noise."""
    rng = np.random.default_rng(0)
    step = np.where(np.arange(SHAPE[axis]) < SHAPE[axis] // 2, 1.0, 0.7)
    tissue = np.broadcast_to(np.expand_dims(step, [a for a in range(3) if a != axis]), SHAPE)
    echoes = np.stack([tissue, 0.6 * tissue]) + rng.normal(0, 0.005, (2, *SHAPE))
    mask = np.zeros(SHAPE, dtype=bool)
    mask[3:-3, 3:-3, 3:-3] = True
    return echoes.astype(np.float32), mask


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_border_is_found_where_it_is_and_faces_the_right_way(axis: int) -> None:
    magnitude, mask = slab(axis)
    edges = magnitude_edges(magnitude, mask, VOXEL)
    before = [slice(4, -4)] * 3
    before[axis] = slice(SHAPE[axis] // 2 - 1, SHAPE[axis] // 2)
    border = tuple(before)
    assert edges.smoothness[border].max() < 0.05
    assert np.abs(edges.normal[axis][border]).min() > 0.95
    flat = mask.copy()
    flat[border] = False
    assert np.median(edges.smoothness[flat]) == pytest.approx(0.5, abs=0.1)


def test_slopes_are_by_the_mm_and_end_at_the_mask() -> None:
    plane = np.add.outer(np.add.outer(np.arange(24) * 1.0, np.arange(22) * 3.0), np.arange(20) * -1.0)
    _, mask = slab()
    found = slopes(plane.astype(np.float32), mask, VOXEL)
    inner = (slice(4, -4),) * 3
    for axis, slope in enumerate((1.0, 2.0, -0.5)):
        np.testing.assert_allclose(found[axis][inner], slope, rtol=1e-5)
    assert not found[0][-4].any()
    assert not found[:, ~mask].any()


def test_normals_have_a_length_of_one_or_none() -> None:
    magnitude, mask = slab()
    length = np.linalg.norm(magnitude_edges(magnitude, mask, VOXEL).normal, axis=0)
    assert np.all((np.abs(length - 1) < 1e-4) | (length == 0))
    assert not length[~mask].any()


def test_a_change_by_space_counts_in_mm_not_in_voxels() -> None:
    ramp = np.add.outer(np.add.outer(np.arange(24) * 1.0, np.arange(22) * 1.5), np.arange(20) * 2.0)
    mask = np.ones(SHAPE, dtype=bool)
    edges = magnitude_edges(ramp[None].astype(np.float32), mask, VOXEL)
    inner = (slice(0, -1),) * 3
    np.testing.assert_allclose(edges.normal[(slice(None), *inner)], 1 / np.sqrt(3), atol=1e-3)
    np.testing.assert_allclose(edges.smoothness[inner], 0.5, atol=1e-3)


@pytest.mark.parametrize("factor", [1e-3, 4095.0])
def test_the_unit_of_the_magnitude_does_not_matter(factor: float) -> None:
    magnitude, mask = slab()
    one = magnitude_edges(magnitude, mask, VOXEL)
    other = magnitude_edges(np.float32(factor) * magnitude, mask, VOXEL)
    np.testing.assert_allclose(other.smoothness, one.smoothness, rtol=1e-3)
    np.testing.assert_allclose(other.normal, one.normal, atol=1e-3)


def test_the_rim_of_the_mask_is_no_border_of_tissue() -> None:
    magnitude, mask = slab()
    magnitude[:, ~mask] = 50
    edges = magnitude_edges(magnitude, mask, VOXEL)
    magnitude[:, ~mask] = 0
    np.testing.assert_array_equal(magnitude_edges(magnitude, mask, VOXEL).smoothness, edges.smoothness)
    np.testing.assert_array_equal(edges.smoothness[~mask], 1)


def test_a_magnitude_that_says_nothing_has_no_edges() -> None:
    mask = np.ones(SHAPE, dtype=bool)
    for value in (0.0, 7.0):
        edges = magnitude_edges(np.full((3, *SHAPE), value, np.float32), mask, VOXEL)
        np.testing.assert_array_equal(edges.smoothness, 1)
        assert not edges.normal.any()


def test_an_empty_mask_is_refused() -> None:
    magnitude, mask = slab()
    with pytest.raises(ValueError, match="empty"):
        magnitude_edges(magnitude, np.zeros_like(mask), VOXEL)
