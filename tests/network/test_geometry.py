"""Coordinates, shapes and random fields are what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from qsm_ai.network.geometry import (
    Noise,
    box_around,
    ellipsoid,
    head_coordinates,
    random_direction,
    random_rotation,
    share_inside,
)

SHAPE, VOXEL = (40, 36, 32), (1.0, 1.5, 2.0)


def test_coordinates_are_turned_millimetres_from_the_middle() -> None:
    rotation = random_rotation(np.random.default_rng(0), 60)
    c = head_coordinates(SHAPE, VOXEL, rotation)
    place = (3, 30, 11)
    offset = (np.array(place) - (np.array(SHAPE) - 1) / 2) * VOXEL
    np.testing.assert_allclose([x[place] for x in c], rotation @ offset, atol=1e-4)


def test_the_distance_to_a_ball_is_exact() -> None:
    c = head_coordinates(SHAPE, VOXEL, np.eye(3))
    distance = ellipsoid(c, (2.0, -3.0, 1.0), (9.0, 9.0, 9.0))
    expected = 9 - np.sqrt((c[0] - 2) ** 2 + (c[1] + 3) ** 2 + (c[2] - 1) ** 2)
    np.testing.assert_allclose(distance, expected, atol=1e-4)


def test_soft_borders_keep_the_volume_of_a_ball() -> None:
    c = head_coordinates(SHAPE, VOXEL, np.eye(3))
    share = share_inside(ellipsoid(c, (0.3, 0.2, 0.1), (12.0, 12.0, 12.0)), width=1.5)
    assert share.min() >= 0
    assert share.max() <= 1
    assert share.sum() * np.prod(VOXEL) == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.03)


def test_a_border_is_as_wide_as_asked() -> None:
    share = share_inside(np.array([-1.0, 0.0, 1.0], np.float32), width=2.0)
    np.testing.assert_allclose(share, [0.12, 0.5, 0.88], atol=0.005)


@pytest.mark.parametrize("bandwidth", [0.0, 0.3])
def test_random_fields_have_zero_mean_and_unit_variance(bandwidth: float) -> None:
    field = Noise(np.random.default_rng(1), SHAPE, VOXEL).field(8, bandwidth)
    assert field.dtype == np.float32
    assert field.mean() == pytest.approx(0, abs=1e-3)
    assert field.std() == pytest.approx(1, abs=1e-3)


def test_a_band_of_wavelengths_is_in_millimetres_along_every_axis() -> None:
    shape, voxel = (96, 48, 32), (1.0, 2.0, 3.0)
    field = Noise(np.random.default_rng(2), shape, voxel).field(12, 0.15)
    power = np.abs(np.fft.fftn(field)) ** 2
    k = np.sqrt(sum(np.meshgrid(*[np.fft.fftfreq(n, h) ** 2 for n, h in zip(shape, voxel, strict=True)],
                                indexing="ij")))  # fmt: skip
    assert (power * k).sum() / power.sum() == pytest.approx(1 / 12, rel=0.05)


def test_a_low_pass_leaves_only_what_is_longer() -> None:
    field = Noise(np.random.default_rng(3), (64, 64, 64), (1.0, 1.0, 1.0)).field(16)
    power = np.abs(np.fft.fftn(field)) ** 2
    k = np.sqrt(sum(np.meshgrid(*[np.fft.fftfreq(64) ** 2] * 3, indexing="ij")))
    assert power[k > 3 / 16].sum() < 1e-3 * power.sum()


def test_the_box_around_a_point_holds_all_that_is_near_and_no_more() -> None:
    c = head_coordinates(SHAPE, VOXEL, random_rotation(np.random.default_rng(4), 30))
    box = box_around(c, (4.0, -5.0, 3.0), 6.0)
    assert box is not None
    near = np.all([np.abs(x - m) < 6 for x, m in zip(c, (4, -5, 3), strict=True)], axis=0)
    assert near[box].sum() == near.sum() > 0
    for axis in range(3):
        assert near[box].any(axis=tuple(a for a in range(3) if a != axis))[[0, -1]].all()


def test_there_is_no_box_around_a_point_off_the_grid() -> None:
    assert box_around(head_coordinates(SHAPE, VOXEL, np.eye(3)), (500.0, 0.0, 0.0), 6.0) is None


@pytest.mark.parametrize("limit", [0, 10, 90])
def test_rotations_stay_rotations_within_their_limit(limit: float) -> None:
    rng = np.random.default_rng(6)
    for _ in range(50):
        turned = random_rotation(rng, limit)
        np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(turned) == pytest.approx(1)
        angle = np.rad2deg(np.arccos(np.clip((np.trace(turned) - 1) / 2, -1, 1)))
        assert angle <= limit + 1e-4


def test_directions_are_unit_vectors_within_their_tilt() -> None:
    rng = np.random.default_rng(7)
    directions = np.array([random_direction(rng, 30) for _ in range(200)])
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    tilt = np.rad2deg(np.arccos(directions[:, 2]))
    assert 20 < tilt.max() <= 30 + 1e-6
