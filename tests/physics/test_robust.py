"""Statistics that a few wild values do not move."""

from __future__ import annotations

import numpy as np
import pytest

from qsm_ai.physics.robust import robust_spread


def test_it_is_the_standard_deviation_of_normal_values() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 100_000).astype(np.float32)
    assert robust_spread(values) == pytest.approx(2.0, rel=0.02)


def test_a_few_wild_values_do_not_move_it_and_a_unit_scales_it() -> None:
    values = np.random.default_rng(1).normal(size=10_000).astype(np.float32)
    calm = robust_spread(values)
    values[:100] = 1e6
    assert robust_spread(values) == pytest.approx(calm, rel=0.03)
    assert robust_spread(values * 1000) == pytest.approx(1000 * robust_spread(values), rel=1e-5)
