"""The best guess is a posterior mean: no worse than what is expected, better the more the field tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.benchmark.known_head import KnownHead, known_head, known_mean
from qsm_ai.benchmark.limit import B0, _Unknowns, best_guess, measure
from qsm_ai.network.geometry import Noise
from qsm_ai.physics.dipole import forward_field

VOXEL = (9.0, 9.0, 9.0)
NOISE = 1e-3


@pytest.fixture(scope="module")
def known() -> KnownHead:
    return known_head(np.random.default_rng(4), VOXEL)


@pytest.fixture(scope="module")
def truth(known: KnownHead) -> NDArray[np.float32]:
    brain = known.head.brain
    return np.where(brain, known.head.chi - known.head.chi[brain].mean(), 0).astype(np.float32)


def field_of(known: KnownHead, chi: NDArray[np.float32], noise: float = NOISE) -> NDArray[np.float32]:
    drawn = noise * np.random.default_rng(6).standard_normal(chi.shape, dtype=np.float32)
    return (forward_field(chi, VOXEL, B0) + drawn) * known.head.brain


def deviation(known: KnownHead, noise: float = NOISE) -> NDArray[np.float32]:
    return (known.head.brain * np.float32(noise)).astype(np.float32)


def error(known: KnownHead, guess: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    brain = known.head.brain
    return float(np.std((guess - truth)[brain]) / np.std(truth[brain]))


def guess_error(
    known: KnownHead, truth: NDArray[np.float32], noise: float = NOISE, *, background_known: bool = True
) -> float:
    """Of the best guess from a field of the brain alone."""
    field, spread = field_of(known, truth, noise), deviation(known, noise)
    guess = best_guess(known, field, spread, background_known=background_known, iterations=300)
    return error(known, guess, truth)


@pytest.mark.parametrize("background_known", [True, False])
def test_field_and_adjoint_are_of_one_another(known: KnownHead, background_known: bool) -> None:
    unknowns = _Unknowns(known, deviation(known), background_known)
    operator = unknowns.operator()
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal(operator.shape[1]), rng.standard_normal(operator.shape[0])
    assert np.vdot(operator.matvec(x), y) == pytest.approx(np.vdot(x, operator.rmatvec(y)), rel=1e-3)


def test_unknowns_of_unit_variance_make_what_a_head_draws(known: KnownHead) -> None:
    unknowns = _Unknowns(known, deviation(known), background_known=True)
    rng = np.random.default_rng(2)
    noise = Noise(rng, known.head.brain.shape, VOXEL)
    brain = known.head.brain
    drawn, made = [], []
    for _ in range(40):
        drawn.append(sum(v.draw(noise)[brain] for v in known.variations))
        made.append(unknowns.chi(rng.standard_normal(sum(unknowns.sizes)))[brain[unknowns.box]])
    assert np.std(made) == pytest.approx(np.std(drawn), rel=0.1)


def test_a_field_that_tells_nothing_leaves_what_is_expected(
    known: KnownHead, truth: NDArray[np.float32]
) -> None:
    guess = best_guess(
        known, field_of(known, truth), np.zeros_like(truth), background_known=True, iterations=20
    )
    np.testing.assert_allclose(guess, known_mean(known), atol=1e-7)


def test_the_less_noise_the_nearer_to_the_truth(known: KnownHead, truth: NDArray[np.float32]) -> None:
    errors = [guess_error(known, truth, noise) for noise in (1e-1, 1e-3, 1e-5)]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]
    assert errors[0] <= 1.02 * error(known, known_mean(known), truth)


def test_a_background_hides_what_its_absence_shows(known: KnownHead, truth: NDArray[np.float32]) -> None:
    told = {is_known: guess_error(known, truth, background_known=is_known) for is_known in (True, False)}
    assert told[True] < told[False] < error(known, known_mean(known), truth)


def test_a_background_that_is_there_does_no_harm_where_it_is_reckoned_with(
    known: KnownHead, truth: NDArray[np.float32]
) -> None:
    x, y, z = np.argwhere(~known.head.brain & (np.arange(truth.shape[2]) > truth.shape[2] // 2))[0]
    source = np.zeros_like(truth)
    source[x, y, z] = 5
    field = field_of(known, truth)
    beside = field + forward_field(source, VOXEL, B0) * known.head.brain
    guesses: dict[str, Any] = {
        name: best_guess(known, f, deviation(known), background_known=False, iterations=300)
        for name, f in (("without", field), ("with", beside))
    }
    assert error(known, guesses["with"], truth) < 1.1 * error(known, guesses["without"], truth)


class Still:
    """A network that corrects nothing."""

    name = "still"

    def predict(self, patches: NDArray[np.float32], on_patch: Any = None) -> NDArray[np.float32]:
        if on_patch is not None:
            on_patch(len(patches))
        return np.zeros_like(patches[:, :1])


def test_the_pipeline_and_the_best_guess_are_judged_from_both_starts() -> None:
    told: list[Any] = []
    found = measure(1, VOXEL, Still(), iterations=200, tell=told.append)
    assert found == told
    assert [(f.start, f.way) for f in found] == [
        ("phase", "qsm-vit"),
        ("phase", "known anatomy"),
        ("local field", "qsm-vit"),
        ("local field", "known anatomy"),
    ]
    errors = [f.quality.brain["nrmse"] for f in found]
    assert errors[1] < errors[0]
    assert errors[3] < errors[2]
    assert errors[3] < errors[1]
