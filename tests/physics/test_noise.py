"""The noise of a field is read off the cone of silence."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from qsm_ai.physics.dipole import forward_field
from qsm_ai.physics.inversion import Inverter
from qsm_ai.physics.noise import cone_noise

SHAPE, VOXEL, DIRECTION = (48, 44, 40), (1.0, 1.0, 1.2), (0.0, 0.28, 0.96)


@pytest.fixture(scope="module")
def mask() -> NDArray[np.bool_]:
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    return x**2 + y**2 + z**2 < 0.9


@pytest.fixture(scope="module")
def field(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    texture = gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), 1.2)
    chi = (0.03 * texture / texture.std() * mask).astype(np.float32)
    found: NDArray[np.float32] = forward_field(chi, VOXEL, DIRECTION) * mask
    return found


@pytest.mark.parametrize("sigma", [0.002, 0.005, 0.02])
def test_it_finds_the_noise_that_was_added(
    field: NDArray[np.float32], mask: NDArray[np.bool_], sigma: float
) -> None:
    noise = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32) * np.float32(sigma)
    inverter = Inverter((field + noise) * mask, VOXEL, DIRECTION)
    assert cone_noise(inverter, mask, scale=0.02) == pytest.approx(sigma, rel=0.15)


def test_signal_is_not_noise(field: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
    spread = float(field[mask].std())
    assert cone_noise(Inverter(field, VOXEL, DIRECTION), mask, scale=0.02) < 0.1 * spread


def test_noise_scales_with_the_field(field: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
    noisy = (field + np.random.default_rng(2).standard_normal(SHAPE) * 0.003).astype(np.float32) * mask
    one = cone_noise(Inverter(noisy, VOXEL, DIRECTION), mask, scale=0.02)
    ten = cone_noise(Inverter(noisy * np.float32(10), VOXEL, DIRECTION), mask, scale=0.2)
    assert ten == pytest.approx(10 * one, rel=1e-4)
