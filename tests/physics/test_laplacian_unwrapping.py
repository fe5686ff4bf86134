"""The Laplacian's unwrapping: exact where neighbours differ by less than π, smooth elsewhere."""

import numpy as np
import pytest

from qsm_ai.physics.laplacian_unwrapping import unwrap_laplacian

TWO_PI = 2 * np.pi
SHAPE = (30, 27, 24)


def wrapped(phase: np.ndarray) -> np.ndarray:
    return np.angle(np.exp(1j * phase)).astype(np.float32)


@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), (0.5, 1.0, 2.0)])
@pytest.mark.parametrize("kind", ["ramp", "bowl"])
def test_a_phase_without_singularities_comes_back_up_to_whole_turns(
    kind: str, voxel_size: tuple[float, float, float]
) -> None:
    x, y, z = np.indices(SHAPE).astype(np.float64)
    true = (
        1.4 * x - 0.7 * y + 0.3 * z
        if kind == "ramp"
        else 0.04 * (x - 15) ** 2 + 0.05 * (y - 12) ** 2 - 0.6 * z
    )
    assert np.ptp(true) > 3 * TWO_PI
    unwrapped = unwrap_laplacian(wrapped(true), voxel_size)
    assert unwrapped.dtype == np.float32
    difference = unwrapped - true
    assert np.ptp(difference) < 2e-3
    assert difference.mean() / TWO_PI == pytest.approx(np.round(difference.mean() / TWO_PI), abs=1e-3)


def test_each_echo_is_unwrapped_by_itself() -> None:
    x = np.indices(SHAPE)[0] * 0.9
    series = wrapped(np.stack([x, 2 * x, 0.1 * x]))
    together = unwrap_laplacian(series, (1, 1, 1))
    for echo in range(3):
        np.testing.assert_allclose(together[echo], unwrap_laplacian(series[echo], (1, 1, 1)), atol=1e-4)


def test_a_singularity_is_smoothed_not_spread() -> None:
    """A pole in the middle of a slice: far from it the phase is still right but for a smooth error."""
    x, y, _ = np.indices(SHAPE) - 13.5
    unwrapped = unwrap_laplacian(wrapped(np.arctan2(y, x)), (1, 1, 1))
    assert np.isfinite(unwrapped).all()
    assert np.abs(np.diff(unwrapped, axis=0)).max() < np.pi


def test_noise_in_the_background_leaves_no_jump_inside() -> None:
    rng = np.random.default_rng(0)
    x, y, z = (np.indices(SHAPE) - 13.0) / 13
    inside = x**2 + y**2 + z**2 < 0.7
    phase = np.where(inside, 9 * x**2 + 4 * y, rng.uniform(-np.pi, np.pi, SHAPE))
    unwrapped = unwrap_laplacian(wrapped(phase), (1, 1, 1))
    steps = np.abs(np.diff(unwrapped, axis=0))[inside[1:] & inside[:-1]]
    assert np.quantile(steps, 0.99) < np.pi
