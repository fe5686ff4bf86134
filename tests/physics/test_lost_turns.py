"""Steep fields at the rim are doubted; steep fields inside are a lesion's, and are kept."""

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.physics.field_mapping import fit_field, reliable
from qsm_ai.physics.lost_turns import lost_turns, turn_in_ppm

SHAPE = (32, 32, 32)
ECHO_TIMES = (0.004, 0.012, 0.020)


@pytest.fixture
def ball() -> NDArray[np.bool_]:
    x = np.arange(32) - 15.5
    return np.asarray(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2 < 13**2)


def steep_at(centre: tuple[float, float, float]) -> NDArray[np.float32]:
    """A field of a few ppm that changes within two voxels around a place."""
    x, y, z = (np.arange(32) - c for c in centre)
    away = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2
    return (3 * np.exp(-away / 6)).astype(np.float32)


def test_a_turn_is_the_field_that_winds_the_phase_once_between_echoes() -> None:
    assert turn_in_ppm(ECHO_TIMES, 3.0) == pytest.approx(0.979, abs=1e-3)
    assert turn_in_ppm((0.020,), 3.0) == pytest.approx(0.3915, abs=1e-3)


def test_nothing_is_lost_in_a_smooth_field(ball: NDArray[np.bool_]) -> None:
    smooth = np.broadcast_to(np.linspace(-3, 3, 32, dtype=np.float32)[:, None, None], SHAPE)
    assert not lost_turns(smooth, ball, turn=1.0).any()


def test_a_steep_field_at_the_rim_is_doubted_around_its_source_alone(ball: NDArray[np.bool_]) -> None:
    lost = lost_turns(steep_at((15, 15, 3)), ball, turn=1.0)
    assert lost[15, 15, 5]
    assert not lost[15, 15, 15:].any()
    assert not (lost & ~ball).any()


def test_a_steep_field_deep_inside_is_kept(ball: NDArray[np.bool_]) -> None:
    assert not lost_turns(steep_at((15, 15, 15)), ball, turn=1.0).any()


def test_the_fit_counts_a_whole_turn_as_the_error_of_such_voxels(ball: NDArray[np.bool_]) -> None:
    field = steep_at((15, 15, 3)) * ball
    rate = 2 * np.pi * 42.576 * 3
    phase = np.stack([rate * t * field for t in ECHO_TIMES]).astype(np.float32)
    phase += np.random.default_rng(0).normal(0, 0.01, phase.shape).astype(np.float32)
    fitted = fit_field(phase, None, ball, ECHO_TIMES, 3.0)
    assert fitted.standard_error[15, 15, 5] > 0.9
    sure = reliable(fitted.standard_error, ball)
    assert not sure[15, 15, 5]
    assert sure[15, 15, 15]
