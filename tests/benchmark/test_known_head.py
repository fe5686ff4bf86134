"""A known head is what is expected of it and outcomes of what varies, in bone and air."""

from __future__ import annotations

import numpy as np
import pytest

from qsm_ai.benchmark.known_head import KnownHead, Variation, known_head, known_mean
from qsm_ai.network.geometry import Noise
from qsm_ai.network.surroundings import AIR, BONE

VOXEL = (3.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def known() -> KnownHead:
    return known_head(np.random.default_rng(3), VOXEL)


def test_what_is_not_expected_is_what_varies(known: KnownHead) -> None:
    brain = known.head.brain
    unexpected = (known.head.chi - known.expected)[brain]
    spread = np.sqrt(sum((v.share[brain] * v.spread) ** 2 for v in known.variations))
    assert 0.5 < unexpected.std() / np.median(spread) < 1.5
    assert not known.expected[~brain].any()


def test_around_the_brain_there_is_bone_and_air_and_no_signal(known: KnownHead) -> None:
    outside = ~known.head.brain
    assert set(np.unique(known.head.chi[outside])) == {np.float32(AIR), np.float32(BONE)}
    assert not known.head.signal[outside].any()
    assert known.head.signal[known.head.brain].min() > 0.5


def test_the_mean_of_the_truth_is_taken_off_what_is_expected(known: KnownHead) -> None:
    brain = known.head.brain
    shift = (known.expected - known_mean(known))[brain]
    np.testing.assert_allclose(shift, known.head.chi[brain].mean(), atol=1e-6)


@pytest.mark.parametrize("wavelength", [12.0, np.inf])
def test_a_variation_spreads_as_it_says(wavelength: float) -> None:
    rng = np.random.default_rng(5)
    share = np.full((24, 24, 24), 0.5, np.float32)
    noise = Noise(rng, share.shape, (3.0, 3.0, 3.0))
    outcomes = [Variation(share, 0.02, wavelength).draw(noise) for _ in range(300)]
    assert np.std(outcomes) == pytest.approx(0.01, rel=0.2)
    assert (np.std(outcomes[0]) < 1e-6) == np.isinf(wavelength)
