"""Balls, parts and holes against definitions that leave no doubt."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from qsm_ai.physics.morphology import (
    depth_below_surface,
    dilate,
    erode,
    fill_holes,
    largest_component,
    periodic_ball,
)

Voxel = tuple[float, float, float]
VOXELS = [(1.0, 1.0, 1.0), (0.5, 1.0, 2.0)]


def within(mask: NDArray[np.bool_], radius: float, voxel_size: Voxel) -> NDArray[np.bool_]:
    """By comparing every voxel with every voxel of the mask."""
    at = np.argwhere(np.ones(mask.shape, bool)) * voxel_size
    of_mask = np.argwhere(mask) * voxel_size
    nearest = np.sqrt(((at[:, None] - of_mask[None]) ** 2).sum(-1)).min(axis=1)
    return (nearest <= radius + 1e-6).reshape(mask.shape)


@pytest.mark.parametrize("voxel_size", VOXELS)
@pytest.mark.parametrize("radius", [0.4, 1.0, 2.0, 3.3])
def test_dilation_reaches_a_ball_in_millimetres(radius: float, voxel_size: Voxel) -> None:
    mask = np.zeros((13, 12, 11), bool)  # nothing on a face
    mask[6, 5, 5] = mask[5, 6, 4] = mask[7, 5, 6] = True
    np.testing.assert_array_equal(dilate(mask, radius, voxel_size), within(mask, radius, voxel_size))


@given(st.integers(0, 2**31), st.sampled_from([1.0, 1.5, 2.3]))
@settings(max_examples=15, deadline=None)
def test_erosion_of_a_mask_is_dilation_of_its_complement(seed: int, radius: float) -> None:
    mask = np.random.default_rng(seed).random((9, 9, 9)) < 0.7
    eroded, dilated = erode(mask, radius, (1, 1, 1)), dilate(mask, radius, (1, 1, 1))
    np.testing.assert_array_equal(eroded, ~dilate(~mask, radius, (1, 1, 1)))
    assert not (eroded & ~mask).any()
    assert not (mask & ~dilated).any()


def test_a_face_of_the_volume_is_no_edge_of_the_mask() -> None:
    assert erode(np.ones((8, 8, 8), bool), 3.0, (1, 1, 1)).all()
    half = np.zeros((10, 8, 8), bool)
    half[:5] = True
    eroded = erode(half, 2.0, (1, 1, 1))
    assert eroded[:3].all()
    assert not eroded[3:].any()


def test_a_periodic_ball_is_centred_on_the_first_voxel() -> None:
    ball = periodic_ball((8, 8, 8), (1, 1, 2), 2.0)
    assert ball[0, 0, 0] == ball[2, 0, 0] == ball[-2, 0, 0] == ball[0, 0, 1] == ball[0, 0, -1] == 1
    assert ball[2, 1, 0] == ball[0, 0, 2] == 0
    assert ball.sum() == 13 + 2


def test_the_largest_part_is_joined_by_faces() -> None:
    mask = np.zeros((8, 8, 8), bool)
    mask[:3, :3, :3] = True
    mask[3, 3, 3] = True  # touches by a corner only
    mask[6:, 6:, 6:] = True
    largest = largest_component(mask)
    assert largest[:3, :3, :3].all()
    assert largest.sum() == 27
    assert not largest_component(np.zeros((3, 3, 3), bool)).any()


def test_holes_are_filled_bays_and_large_holes_are_not() -> None:
    mask = np.ones((12, 12, 12), bool)
    mask[3:5, 3:5, 3:5] = False  # hole of 8
    mask[7:10, 7:10, 7:10] = False  # hole of 27
    mask[0:3, 11, 11] = False  # on the face
    filled = fill_holes(mask, largest=10)
    assert filled[3:5, 3:5, 3:5].all()
    assert not filled[7:10, 7:10, 7:10].any()
    assert not filled[0:3, 11, 11].any()
    assert fill_holes(mask)[7:10, 7:10, 7:10].all()


def test_depth_is_counted_from_the_surface_and_from_the_faces_of_the_volume() -> None:
    full = depth_below_surface(np.ones((9, 9, 9), bool), (1.0, 2.0, 1.0))
    assert full[0, 4, 4] == full[-1, 4, 4] == 1.0
    assert full[4, 0, 4] == 2.0
    assert full[4, 4, 4] == 5.0
    inner = np.zeros((12, 12, 12), bool)
    inner[2:9, 3:10, 2:9] = True
    np.testing.assert_array_equal(
        depth_below_surface(inner, (1.0, 1.5, 2.0)), distance_transform_edt(inner, sampling=(1.0, 1.5, 2.0))
    )
