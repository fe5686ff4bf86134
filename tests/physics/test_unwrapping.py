"""Unwrapping against phases that are known before they are wrapped."""

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.physics.field_mapping import fit_field
from qsm_ai.physics.laplacian_unwrapping import unwrap_laplacian
from qsm_ai.physics.unwrapping import in_step, unwrap_echoes, unwrap_path, wrap

Volume = NDArray[np.float32]
TWO_PI = 2 * np.pi


def axes(shape: tuple[int, int, int] = (32, 28, 24)) -> list[NDArray[np.float64]]:
    return np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")


def truth(kind: str) -> Volume:
    x, y, z = axes()
    volumes = {
        "ramp": 25 * x + 10 * y - 6 * z,
        "quadratic": 20 * (x**2 + y**2) - 12 * z**2,
        "saddle": 18 * x * y + 9 * z,
        "steep": 2.8 * np.arange(32)[:, None, None] + 0 * y,
    }
    return volumes[kind].astype(np.float32)


def assert_equal_but_for_turns(unwrapped: Volume, true: Volume, tolerance: float = 1e-3) -> None:
    """The same up to one multiple of 2π."""
    difference = np.asarray(unwrapped - true, np.float64)
    count = np.round(np.median(difference) / TWO_PI)
    assert np.abs(difference - TWO_PI * count).max() < tolerance


@pytest.mark.parametrize("kind", ["ramp", "quadratic", "saddle", "steep"])
@pytest.mark.parametrize("weighted", [False, True])
def test_many_wraps_are_undone(kind: str, weighted: bool) -> None:
    true = truth(kind)
    assert np.ptp(true) > 3 * TWO_PI
    magnitude = np.ones_like(true) + 0.3 * truth("ramp") / 40 if weighted else None
    unwrapped = unwrap_path(wrap(true), magnitude, np.ones(true.shape, bool))
    assert unwrapped.dtype == np.float32
    assert_equal_but_for_turns(unwrapped, true)


@pytest.mark.parametrize("seed", range(3))
def test_noise_below_half_a_turn_costs_no_wrap(seed: int) -> None:
    noisy = truth("saddle") + np.random.default_rng(seed).normal(0, 0.35, (32, 28, 24)).astype(np.float32)
    unwrapped = unwrap_path(wrap(noisy), None, np.ones(noisy.shape, bool))
    assert_equal_but_for_turns(unwrapped, noisy)


def test_the_path_goes_around_a_region_without_signal() -> None:
    x, y, z = axes()
    true = truth("quadratic")
    dark = x**2 + y**2 + z**2 < 0.2
    wrapped = wrap(true)
    wrapped[dark] = np.random.default_rng(0).uniform(-np.pi, np.pi, int(dark.sum()))
    magnitude = np.where(dark, 0.02, 1).astype(np.float32)
    unwrapped = unwrap_path(wrapped, magnitude, np.ones(true.shape, bool))
    assert_equal_but_for_turns(unwrapped[~dark], true[~dark])


def test_two_parts_of_a_mask_are_each_unwrapped_and_brought_near_zero() -> None:
    true = truth("quadratic") + 40
    mask = np.zeros(true.shape, bool)
    mask[2:12, 4:20, 4:20] = mask[18:30, 4:24, 4:20] = True
    unwrapped = unwrap_path(wrap(true), None, mask)
    for part in (np.s_[2:12, 4:20, 4:20], np.s_[18:30, 4:24, 4:20]):
        assert_equal_but_for_turns(unwrapped[part], true[part])
        assert abs(np.median(unwrapped[part])) <= np.pi + 1e-4


def test_outside_the_mask_is_zero_and_an_empty_mask_gives_zeros() -> None:
    true = truth("ramp")
    mask = np.zeros(true.shape, bool)
    assert not unwrap_path(wrap(true), None, mask).any()
    mask[4:20, 4:20, 4:20] = True
    assert not unwrap_path(wrap(true), None, mask)[~mask].any()


def test_the_wrapped_value_is_congruent_and_within_a_half_turn() -> None:
    phase = np.linspace(-60, 60, 999, dtype=np.float32)
    wrapped = wrap(phase)
    assert np.abs(wrapped).max() <= np.pi + 1e-5
    np.testing.assert_allclose((phase - wrapped) / TWO_PI, np.round((phase - wrapped) / TWO_PI), atol=1e-4)


ECHO_TIMES = (0.004, 0.011, 0.018, 0.030)


def echoes(offset: float = 0.0, noise: float = 0.0) -> tuple[NDArray[np.float32], Volume]:
    """Unwrapped echoes of a field (rad/s, median near zero) with a coil's phase offset."""
    x, y, z = axes()
    rate = (900 * (x**2 + 0.5 * y**2 + 0.3 * x * z) - 420).astype(np.float32)
    coil = offset * (1 + 0.4 * x)
    series = np.stack([coil + rate * t for t in ECHO_TIMES])
    series += np.random.default_rng(0).normal(0, noise, series.shape)
    return series.astype(np.float32), rate


@pytest.mark.parametrize("offset", [0.0, 2.0, -3.0])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_all_echoes_keep_one_slope_whatever_the_offset(offset: float, noise: float) -> None:
    true, rate = echoes(offset, noise)
    assert np.ptp(true[-1]) > 3 * TWO_PI
    mask = np.ones(rate.shape, bool)
    magnitude = np.stack([np.exp(-30 * t) * np.ones(rate.shape) for t in ECHO_TIMES]).astype(np.float32)
    unwrapped = unwrap_echoes(wrap(true), magnitude, mask, ECHO_TIMES)
    np.testing.assert_allclose(wrap(unwrapped - true), 0, atol=1e-3)
    steps = np.diff(unwrapped, axis=0) - np.diff(true, axis=0)
    assert np.abs(steps).max() < 1e-2  # not one echo, in not one voxel, is a turn off


def test_echoes_without_magnitude_and_a_single_echo() -> None:
    true, rate = echoes(1.0)
    mask = np.ones(rate.shape, bool)
    unwrapped = unwrap_echoes(wrap(true), None, mask, ECHO_TIMES)
    assert np.abs(np.diff(unwrapped, axis=0) - np.diff(true, axis=0)).max() < 1e-2
    alone = unwrap_echoes(wrap(true[2:3]), None, mask, ECHO_TIMES[2:3])
    assert_equal_but_for_turns(alone[0], true[2])


def test_a_voxel_that_loses_its_signal_does_not_pull_its_neighbours_along() -> None:
    true, rate = echoes(0.5)
    wrapped = wrap(true)
    magnitude = np.ones_like(true)
    wrapped[2:, 10:13, 10:13, 10:13] = 1.0
    magnitude[2:, 10:13, 10:13, 10:13] = 1e-3
    lost = np.zeros(rate.shape, bool)
    lost[10:13, 10:13, 10:13] = True
    unwrapped = unwrap_echoes(wrapped, magnitude, np.ones(rate.shape, bool), ECHO_TIMES)
    steps = np.diff(unwrapped, axis=0) - np.diff(true, axis=0)
    assert np.abs(steps[:, ~lost]).max() < 1e-2


@pytest.mark.parametrize("f0", [-2.0, 0.3, 2.0])
@pytest.mark.parametrize("weighed", [False, True])
def test_echoes_that_lost_whole_turns_come_back_onto_one_line(f0: float, weighed: bool) -> None:
    """f0 in ppm at 3 T, as many turns off as a phase unwrapped by itself may be."""
    rng = np.random.default_rng(4)
    shape, times = (8, 9, 10), (0.004, 0.009, 0.014, 0.019)
    mask = rng.random(shape) < 0.8
    field = f0 + 0.02 * rng.standard_normal(shape)
    rate = 2 * np.pi * 42.576 * 3
    true = np.stack([0.7 + rate * t * field for t in times])
    lost = np.array([1, -2, 5, 3])[:, None, None, None]
    magnitude = rng.uniform(0.5, 1, true.shape).astype(np.float32) if weighed else None
    aligned = in_step((true + 2 * np.pi * lost).astype(np.float32), magnitude, mask, times)
    slopes = np.diff(aligned[:, mask], axis=0) / np.diff(times)[:, None]
    assert np.ptp(slopes, axis=0).max() < 0.1
    # What one turn between the first two echoes hides no series of echoes can tell.
    hidden = (slopes.mean() / rate - field[mask].mean()) * 42.576 * 3 * (times[1] - times[0])
    assert hidden == pytest.approx(np.round(hidden), abs=1e-3)
    assert not aligned[:, ~mask].any()


@pytest.mark.parametrize("f0", [-2.0, 0.3, 2.0])
def test_a_field_with_f0_is_as_sure_by_the_laplacian_as_along_paths(f0: float) -> None:
    rng = np.random.default_rng(5)
    shape, times, voxel = (20, 18, 16), (0.004, 0.009, 0.014, 0.019), (1.0, 1.0, 1.0)
    x, y, z = np.indices(shape) / 20
    field = f0 + 0.1 * np.sin(3 * x) * np.cos(2 * y) + 0.05 * z
    true = np.stack([0.7 + 2 * np.pi * 42.576 * 3 * t * field for t in times])
    phase = wrap((true + 0.02 * rng.standard_normal(true.shape)).astype(np.float32))
    mask = np.ones(shape, bool)
    ways = in_step(unwrap_laplacian(phase, voxel), None, mask, times), unwrap_echoes(phase, None, mask, times)
    laplacian, along_paths = (fit_field(way, None, mask, times, 3.0, voxel) for way in ways)
    assert np.median(laplacian.standard_error) == pytest.approx(
        np.median(along_paths.standard_error), rel=0.1
    )
    relative = [fit.total_field - np.median(fit.total_field) for fit in (laplacian, along_paths)]
    np.testing.assert_allclose(relative[0], relative[1], atol=0.01)


def test_a_single_echo_is_in_step_with_itself() -> None:
    phase = np.full((1, 3, 3, 3), 9.0, np.float32)
    np.testing.assert_array_equal(in_step(phase, None, np.ones((3, 3, 3), bool), (0.01,)), phase)
