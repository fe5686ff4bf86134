"""The echo fit: exact on straight lines, and honest about its error."""

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.physics.dipole import GYROMAGNETIC_RATIO
from qsm_ai.physics.field_mapping import fit_field, reliable

SHAPE = (24, 22, 20)
ECHO_TIMES = (0.005, 0.011, 0.017, 0.024)
B0 = 3.0
RAD_PER_PPM_S = 2 * np.pi * GYROMAGNETIC_RATIO * B0


@pytest.fixture
def field() -> NDArray[np.float32]:
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    return (0.3 * x - 0.2 * y**2 + 0.05 * z).astype(np.float32)


def echoes(
    field: NDArray[np.float32], offset: float, times: tuple[float, ...] = ECHO_TIMES
) -> NDArray[np.float32]:
    return np.stack([offset + RAD_PER_PPM_S * field * t for t in times]).astype(np.float32)


def decaying(times: tuple[float, ...], rate: float = 30.0) -> NDArray[np.float32]:
    return np.stack([np.full(SHAPE, 700 * np.exp(-rate * t)) for t in times]).astype(np.float32)


def mask() -> NDArray[np.bool_]:
    mask = np.ones(SHAPE, bool)
    mask[:3] = False
    return mask


@pytest.mark.parametrize("offset", [0.0, 1.7])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("times", [ECHO_TIMES, ECHO_TIMES[:3], ECHO_TIMES[:2], (0.004, 0.006, 0.02)])
def test_straight_lines_give_back_field_and_offset(
    field: NDArray[np.float32], offset: float, weighted: bool, times: tuple[float, ...]
) -> None:
    fitted = fit_field(echoes(field, offset, times), decaying(times) if weighted else None, mask(), times, B0)
    np.testing.assert_allclose(fitted.total_field[mask()], field[mask()], atol=2e-5)
    np.testing.assert_allclose(fitted.phase_offset[mask()], offset, atol=2e-4)
    for volume in (fitted.total_field, fitted.standard_error, fitted.phase_offset):
        assert volume.dtype == np.float32
        assert not volume[~mask()].any()
        assert np.isfinite(volume).all()


def test_a_single_echo_is_taken_to_start_at_zero(field: NDArray[np.float32]) -> None:
    fitted = fit_field(echoes(field, 0.0, (0.02,)), None, mask(), (0.02,), B0)
    np.testing.assert_allclose(fitted.total_field[mask()], field[mask()], atol=1e-5)
    assert (fitted.standard_error[mask()] >= 0).all()


def test_the_field_does_not_depend_on_the_unit_of_the_magnitude(field: NDArray[np.float32]) -> None:
    noisy = echoes(field, 0.5) + np.random.default_rng(0).normal(0, 0.05, (4, *SHAPE)).astype(np.float32)
    one = fit_field(noisy, decaying(ECHO_TIMES), mask(), ECHO_TIMES, B0)
    other = fit_field(noisy, 1e-6 * decaying(ECHO_TIMES), mask(), ECHO_TIMES, B0)
    np.testing.assert_allclose(one.total_field, other.total_field, atol=1e-5)
    np.testing.assert_allclose(one.standard_error, other.standard_error, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("snr", [20, 100])
@pytest.mark.parametrize("count", [3, 4])
def test_the_standard_error_is_that_of_repeated_scans(
    field: NDArray[np.float32], snr: float, count: int
) -> None:
    times = ECHO_TIMES[:count]
    magnitude = decaying(times) / 700
    rng = np.random.default_rng(1)
    fields, errors = [], []
    for _ in range(12):
        noise = rng.standard_normal((count, *SHAPE)) / (snr * magnitude)
        fitted = fit_field(
            (echoes(field, 0.3, times) + noise).astype(np.float32), magnitude, mask(), times, B0
        )
        fields.append(fitted.total_field[mask()])
        errors.append(fitted.standard_error[mask()])
    scatter = np.sqrt(np.var(fields, axis=0, ddof=1).mean())
    assert np.mean(errors) / scatter == pytest.approx(1, abs=0.1)


def test_darker_echoes_weigh_less(field: NDArray[np.float32]) -> None:
    rng = np.random.default_rng(2)
    magnitude = decaying(ECHO_TIMES, rate=80.0) / 700
    noisy = (echoes(field, 0.3) + rng.standard_normal((4, *SHAPE)) / (50 * magnitude)).astype(np.float32)
    weighted = fit_field(noisy, magnitude, mask(), ECHO_TIMES, B0).total_field
    plain = fit_field(noisy, None, mask(), ECHO_TIMES, B0).total_field
    assert np.std((weighted - field)[mask()]) < 0.9 * np.std((plain - field)[mask()])


def test_where_the_phase_does_not_follow_a_line_the_error_says_so(field: NDArray[np.float32]) -> None:
    noisy = echoes(field, 0.3) + np.random.default_rng(3).normal(0, 0.02, (4, *SHAPE)).astype(np.float32)
    noisy[2, 10:14, 10:14, 8:12] += 1.5
    error = fit_field(noisy, decaying(ECHO_TIMES), mask(), ECHO_TIMES, B0).standard_error
    assert error[11:13, 11:13, 9:11].min() > 5 * np.median(error[mask()])


def test_wild_voxels_are_not_reliable_and_the_others_are(field: NDArray[np.float32]) -> None:
    error = np.full(SHAPE, 0.001, np.float32)
    error[10, 10, 10] = 1.0
    sure = reliable(error, mask())
    assert sure.dtype == bool
    assert not sure[10, 10, 10]
    assert not sure[~mask()].any()
    assert sure.sum() > 0.98 * mask().sum()


def test_a_smooth_offset_halves_the_error_and_the_standard_error_knows(field: NDArray[np.float32]) -> None:
    magnitude = decaying(ECHO_TIMES, rate=20.0) / 700
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    # A coil changes by two radians or so over ten centimetres.
    offset = (0.5 + 0.25 * x - 0.1 * y**2 + 0.05 * z).astype(np.float32)
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((4, *SHAPE)) / (100 * magnitude)
    fitted = fit_field(
        (echoes(field, 0.0) + offset + noise).astype(np.float32), magnitude, mask(), ECHO_TIMES, B0
    )
    wrong = (fitted.total_field - field)[mask()]
    # Each voxel by itself cannot do better than this.
    times, weights = np.array(ECHO_TIMES), magnitude[:, 0, 0, 0].astype(float) ** 2
    spread = (weights * (times - (weights * times).sum() / weights.sum()) ** 2).sum()
    alone = 0.01 / np.sqrt(spread) / RAD_PER_PPM_S
    assert wrong.std() < 0.7 * alone
    assert np.median(fitted.standard_error[mask()]) == pytest.approx(wrong.std(), rel=0.15)


def test_a_rough_offset_stays_each_voxels_own(field: NDArray[np.float32]) -> None:
    rough = np.random.default_rng(6).normal(0, 0.5, SHAPE).astype(np.float32)
    noise = np.random.default_rng(7).normal(0, 0.01, (4, *SHAPE))
    magnitude = np.ones((4, *SHAPE), np.float32)
    fitted = fit_field(
        (echoes(field, 0.0) + rough + noise).astype(np.float32), magnitude, mask(), ECHO_TIMES, B0
    )
    free = 0.01 / np.sqrt(4 * np.var(ECHO_TIMES)) / RAD_PER_PPM_S
    assert np.std((fitted.total_field - field)[mask()]) < 1.1 * free
    np.testing.assert_allclose(fitted.phase_offset[mask()], rough[mask()], atol=0.06)


def test_whole_turns_of_the_offset_between_regions_do_not_matter(field: NDArray[np.float32]) -> None:
    phase = echoes(field, 0.4)
    turned = phase.copy()
    turned[:, 12:] += np.float32(2 * np.pi)
    one = fit_field(phase, None, mask(), ECHO_TIMES, B0).total_field
    other = fit_field(turned, None, mask(), ECHO_TIMES, B0).total_field
    np.testing.assert_allclose(one, other, atol=2e-5)
