"""The final map agrees with the network where the field is silent, and with the field where it speaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from qsm_ai.physics.dipole import forward_field
from qsm_ai.physics.edges import Edges, magnitude_edges
from qsm_ai.physics.inversion import Inverter, data_consistency
from qsm_ai.reconstruction.consistency import (
    LEAST_CONSISTENCY,
    MOST_CONSISTENCY,
    consistency_weight,
    hold_to_field,
    rim_trust,
)

Volume = NDArray[np.float32]
SHAPE, VOXEL, DIRECTION = (36, 34, 32), (1.0, 1.2, 1.5), (0.0, 0.6, 0.8)
NOISE, SCALE = 0.002, 0.025


@dataclass(frozen=True)
class Case:
    """A map of two tissues, its noisy field, and a network's map that is wrong in many small places."""

    chi: Volume
    mask: NDArray[np.bool_]
    field: Volume
    prior: Volume
    edges: Edges

    @property
    def trust(self) -> Volume:
        return self.mask.astype(np.float32)

    def held(self, factor: float = 1.0, edges: Edges | None = None) -> Volume:
        times = np.float32(factor)
        inverter = Inverter(self.field * times, VOXEL, DIRECTION)
        prior = self.prior * times
        return hold_to_field(inverter, prior, self.mask, self.trust, factor * NOISE, factor * SCALE, edges)

    def error(self, chi: Volume) -> float:
        one, other = chi[self.mask], self.chi[self.mask]
        return float((one - one.mean() - other + other.mean()).std())


@pytest.fixture(scope="module")
def case() -> Case:
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    mask = x**2 + y**2 + z**2 < 0.8
    tissue = gaussian_filter(rng.standard_normal(SHAPE), 3) > 0
    chi = (np.where(tissue, 0.04, -0.02) * mask).astype(np.float32)
    field = forward_field(chi, VOXEL, DIRECTION) + rng.normal(0, NOISE, SHAPE)
    prior = (chi + 0.02 * rng.standard_normal(SHAPE)) * mask
    magnitude = np.where(tissue, 1.0, 0.7) + rng.normal(0, 0.01, SHAPE)
    return Case(
        chi,
        mask,
        (field * mask).astype(np.float32),
        prior.astype(np.float32),
        magnitude_edges(magnitude.astype(np.float32)[None], mask, VOXEL),
    )


def test_without_edges_it_is_the_closed_form(case: Case) -> None:
    weight = consistency_weight(NOISE, SCALE)
    expected = data_consistency(case.field, case.prior, case.mask, VOXEL, DIRECTION, weight)
    np.testing.assert_array_equal(case.held(), expected)


def test_the_field_mends_the_map_and_edges_mend_it_more(case: Case) -> None:
    assert case.error(case.held()) < 0.95 * case.error(case.prior)
    assert case.error(case.held(edges=case.edges)) < 0.5 * case.error(case.held())


def test_it_is_zero_outside_the_mask(case: Case) -> None:
    for edges in (None, case.edges):
        held = case.held(edges=edges)
        assert held.dtype == np.float32
        assert not held[~case.mask].any()


@pytest.mark.parametrize("factor", [0.1, 20.0])
def test_a_scan_times_a_factor_has_the_map_times_it(case: Case, factor: float) -> None:
    for edges in (None, case.edges):
        expected = np.float32(factor) * case.held(edges=edges)
        np.testing.assert_allclose(case.held(factor, edges), expected, atol=2e-6 * factor)


@pytest.mark.parametrize("noise", [0.0, 10.0])
def test_no_noise_breaks_it(case: Case, noise: float) -> None:
    inverter = Inverter(case.field, VOXEL, DIRECTION)
    held = hold_to_field(inverter, case.prior, case.mask, case.trust, noise, SCALE, case.edges)
    assert np.isfinite(held).all()
    assert case.error(held) < 1.2 * case.error(case.prior)


def test_a_field_of_nothing_but_noise_leaves_the_network_its_say(case: Case) -> None:
    rng = np.random.default_rng(4)
    noise = (SCALE * rng.standard_normal(SHAPE) * case.mask).astype(np.float32)
    inverter = Inverter(case.field + noise, VOXEL, DIRECTION)
    held, divided = (
        hold_to_field(inverter, case.chi, case.mask, case.trust, SCALE, SCALE, edges)
        for edges in (case.edges, None)
    )
    assert case.error(held) < case.error(divided)


def test_where_the_mask_holds_all_sources_the_map_is_better_yet(case: Case) -> None:
    inverter = Inverter(forward_field(case.chi, VOXEL, DIRECTION) * case.mask, VOXEL, DIRECTION)
    anywhere, within = (
        hold_to_field(
            inverter, case.prior, case.mask, case.trust, NOISE / 20, SCALE, case.edges, within=known
        )
        for known in (False, True)
    )
    assert case.error(within) < 0.9 * case.error(anywhere)


@pytest.mark.parametrize("guided", [False, True])
def test_what_the_field_says_near_the_rim_is_doubted(case: Case, guided: bool) -> None:
    """As much as a background that was taken for the brain's own is wrong there."""
    x, y, z = (np.linspace(-1, 1, n, dtype=np.float32) for n in SHAPE)
    rim = np.maximum(x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 - 0.5, 0)
    inverter = Inverter(case.field + 0.2 * rim * case.mask, VOXEL, DIRECTION)
    trust = rim_trust(case.mask, VOXEL)
    believed, doubted = (
        hold_to_field(inverter, case.prior, case.mask, w, NOISE, SCALE, case.edges if guided else None)
        for w in (case.trust, trust)
    )
    assert case.error(doubted) < 0.9 * case.error(believed)


def test_trust_grows_with_the_depth_in_millimetres() -> None:
    mask = np.zeros((20, 9, 9), np.bool_)
    mask[2:-2, 1:-1, 1:-1] = True
    trust = rim_trust(mask, (1.0, 20.0, 20.0))
    assert trust.dtype == np.float32
    np.testing.assert_allclose(trust[:8, 4, 4], np.array([0, 0, 1, 4, 9, 16, 25, 36]) / 36, rtol=1e-6)
    assert trust[8:12, 4, 4].tolist() == [1] * 4


def test_the_noisier_the_field_the_more_the_network_weighs() -> None:
    quiet, usual, loud, deafening = (consistency_weight(n, SCALE) for n in (0.0, 1e-3, 2e-3, 1.0))
    assert quiet == LEAST_CONSISTENCY
    assert usual == pytest.approx(5 * (1e-3 / SCALE) ** 2)
    assert loud == pytest.approx(4 * usual)
    assert deafening == MOST_CONSISTENCY
