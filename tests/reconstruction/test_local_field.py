"""The background is removed once blindly, and better with every map of what lies inside."""

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.physics.dipole import forward_field
from qsm_ai.reconstruction.local_field import BackgroundRemoval

SHAPE, VOXEL, B0 = (48, 48, 44), (1.0, 1.0, 1.0), (0.0, 0.2, 0.98)
X, Y, Z = np.meshgrid(*[np.arange(n) - n / 2 for n in SHAPE], indexing="ij")
MASK: NDArray[np.bool_] = X**2 + Y**2 + Z**2 < 14**2


def ball(x: float, y: float, z: float, radius: float) -> NDArray[np.float32]:
    return ((X - x) ** 2 + (Y - y) ** 2 + (Z - z) ** 2 < radius**2).astype(np.float32)


INNER = forward_field(0.1 * ball(4, -3, 2, 3) - 0.1 * ball(-10, 2, 0, 2), VOXEL, B0) * MASK
TOTAL = INNER + forward_field(9 * ball(0, 0, 20, 4) - 2 * ball(19, 3, 0, 3), VOXEL, B0) * MASK
METHODS = pytest.mark.parametrize("method", ["pdf", "lbv"])


def error(local: NDArray[np.float32], where: NDArray[np.bool_] = MASK) -> float:
    off = (local - INNER)[where]
    return float(np.std(off) / np.std(INNER[where]))


@METHODS
def test_knowing_the_inner_field_leaves_less_background(method: str) -> None:
    removal = BackgroundRemoval(TOTAL, MASK, MASK, VOXEL, B0, method=method)  # type: ignore[arg-type]
    blind, half, told = (removal.local_field(known) for known in (None, INNER / 2, INNER))
    assert error(told) < error(half) < error(blind)


@METHODS
def test_nothing_is_said_where_the_field_is_not_known(method: str) -> None:
    hole = ball(4, -3, 2, 2) > 0
    wild = np.where(hole, np.float32(50), TOTAL)
    known = MASK & ~hole
    disturbed, calm = (
        BackgroundRemoval(total, MASK, known, VOXEL, B0, method=method)  # type: ignore[arg-type]
        for total in (wild, TOTAL)
    )
    for inner in (None, INNER):
        local = disturbed.local_field(inner)
        assert not local[~known].any()
        np.testing.assert_allclose(local, calm.local_field(inner), atol=1e-5)


def test_sources_where_the_field_is_not_known_are_not_taken_for_background() -> None:
    """A calcification without signal is still there."""
    calcification = ball(4, -3, 2, 2) > 0
    field = forward_field(-3 * calcification.astype(np.float32), VOXEL, B0) * MASK
    known = MASK & ~calcification
    local = BackgroundRemoval(field * known, MASK, known, VOXEL, B0).local_field()
    near = known & (ball(4, -3, 2, 5) > 0)
    assert np.corrcoef(local[near], field[near])[0, 1] > 0.99
    assert 0.8 < np.std(local[near]) / np.std(field[near]) < 1.2
