"""R2* of exponentials that are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsm_ai.physics.r2star import r2star

SHAPE = (6, 5, 4)
EVERYWHERE = np.ones(SHAPE, bool)


@given(
    rate=st.floats(1, 150),
    amplitude=st.floats(1e-4, 1e4),
    gaps=st.lists(st.floats(0.002, 0.01), min_size=1, max_size=6),
)
@settings(max_examples=40, deadline=None)
def test_a_single_exponential_is_recovered_exactly_for_any_spacing(
    rate: float, amplitude: float, gaps: list[float]
) -> None:
    times = tuple(0.003 + np.cumsum([0.0, *gaps]))
    magnitude = np.stack([np.full(SHAPE, amplitude * np.exp(-rate * t)) for t in times]).astype(np.float32)
    np.testing.assert_allclose(r2star(magnitude, EVERYWHERE, times), rate, rtol=1e-3, atol=1e-2)


def test_noise_scatters_it_without_a_bias() -> None:
    rng = np.random.default_rng(0)
    times, shape, rate = (0.004, 0.010, 0.016, 0.022, 0.028), (30, 30, 30), 25.0
    clean = np.stack([np.full(shape, np.exp(-rate * t)) for t in times])
    noisy = np.abs(clean + (rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape)) / 60)
    seen = r2star(noisy.astype(np.float32), np.ones(shape, bool), times)
    assert seen.mean() == pytest.approx(rate, rel=0.02)
    assert 0 < seen.std() < 3


def test_it_is_bounded_and_zero_where_nothing_was_measured() -> None:
    times = (0.004, 0.012, 0.020)
    magnitude = np.zeros((3, *SHAPE), np.float32)
    magnitude[:, 0] = np.array([1.0, 1e-7, 1e-14])[:, None, None]  # gone before the second echo
    magnitude[:, 1] = np.array([1.0, 2.0, 4.0])[:, None, None]  # rising: no decay
    magnitude[0, 2] = 1.0  # a single echo
    magnitude[:, 3] = np.nan
    rate = r2star(magnitude, EVERYWHERE, times)
    assert rate.dtype == np.float32
    np.testing.assert_allclose(rate[0], 5 / 0.008, rtol=1e-5)
    assert not rate[1:].any()


def test_outside_the_mask_is_zero() -> None:
    mask = EVERYWHERE.copy()
    mask[0] = False
    magnitude = np.stack([np.full(SHAPE, np.exp(-30 * t)) for t in (0.01, 0.02)]).astype(np.float32)
    rate = r2star(magnitude, mask, (0.01, 0.02))
    assert not rate[0].any()
    np.testing.assert_allclose(rate[1:], 30, rtol=1e-4)


@pytest.mark.parametrize("times", [(0.01,), (0.01, 0.02, 0.03), (0.02, 0.01)])
def test_echo_times_that_do_not_fit_are_refused(times: tuple[float, ...]) -> None:
    count = 1 if len(times) == 1 else 2
    with pytest.raises(ValueError, match="echo times"):
        r2star(np.ones((count, *SHAPE), np.float32), EVERYWHERE, times)
