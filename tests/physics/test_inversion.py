"""Closed-form inversions: exact where theory says so, and what they do elsewhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qsm_ai.physics.dipole import dipole_kernel, forward_field
from qsm_ai.physics.fourier import irfftn, rfftn
from qsm_ai.physics.inversion import Inverter, data_consistency, tikhonov, tkd

Volume = NDArray[np.float32]
SHAPE, VOXEL, B0 = (32, 30, 36), (1.0, 1.2, 0.8), (0.2, -0.1, 0.97)
EVERYWHERE = np.ones(SHAPE, bool)
KERNEL = dipole_kernel(SHAPE, VOXEL, B0)


def well_conditioned(threshold: float, seed: int = 0) -> Volume:
    """A map with nothing in k-space where the dipole is weaker than the threshold."""
    spectrum = rfftn(np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32))
    return irfftn(spectrum * (np.abs(KERNEL) > threshold), SHAPE)


def field_of(chi: Volume) -> Volume:
    """On the periodic grid, where nothing is lost at the edges."""
    return irfftn(rfftn(chi) * KERNEL, SHAPE)


def balls() -> tuple[Volume, NDArray[np.bool_]]:
    x, y, z = np.meshgrid(
        *[(np.arange(n) - n / 2) * h for n, h in zip(SHAPE, VOXEL, strict=True)], indexing="ij"
    )
    chi = 0.1 * ((x - 3) ** 2 + y**2 + z**2 < 9) - 0.08 * ((x + 4) ** 2 + (y - 3) ** 2 + (z - 2) ** 2 < 6)
    return chi.astype(np.float32), x**2 + y**2 + z**2 < 169


def test_tkd_is_exact_where_the_dipole_exceeds_its_threshold() -> None:
    chi = well_conditioned(0.2)
    recovered = Inverter(field_of(chi), VOXEL, B0, margin=0).tkd(0.15)
    np.testing.assert_allclose(recovered, chi, atol=1e-4)


def test_tkd_divides_by_the_signed_threshold_elsewhere() -> None:
    noise = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    seen = rfftn(Inverter(noise, VOXEL, B0, margin=0).tkd(0.15))
    weak = (np.abs(KERNEL) < 0.149) & (KERNEL != 0)
    weak[[0, 16], :, :] = weak[:, [0, 15], :] = weak[:, :, [0, 18]] = False
    np.testing.assert_allclose(
        seen[weak], (rfftn(noise) * np.sign(KERNEL) / 0.15)[weak], rtol=1e-3, atol=1e-2
    )


def test_tikhonov_becomes_exact_as_its_weight_vanishes() -> None:
    chi = well_conditioned(0.1)
    inverter = Inverter(field_of(chi), VOXEL, B0, margin=0)
    errors = [np.abs(inverter.tikhonov(weight) - chi).max() for weight in (1e-1, 1e-3, 1e-7)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3


@given(st.floats(1e-3, 0.3), st.tuples(st.integers(1, 10), st.integers(1, 10), st.integers(1, 10)))
@settings(max_examples=25, deadline=None)
def test_tikhonov_shrinks_a_wave_by_what_its_formula_says(weight: float, wave: tuple[int, int, int]) -> None:
    at = np.indices(SHAPE)
    chi = np.cos(2 * np.pi * sum(w * i / n for w, i, n in zip(wave, at, SHAPE, strict=True))).astype(
        np.float32
    )
    d = float(KERNEL[wave])
    recovered = Inverter(field_of(chi), VOXEL, B0, margin=0).tikhonov(weight)
    np.testing.assert_allclose(recovered, chi * d**2 / (d**2 + weight), atol=1e-4)


@pytest.mark.parametrize("invert", [tkd, tikhonov])
def test_maps_are_zero_outside_the_mask_and_scale_with_the_field(invert: object) -> None:
    chi, mask = balls()
    field = forward_field(chi, VOXEL, B0) * mask
    one = invert(field, mask, VOXEL, B0)  # type: ignore[operator]
    assert one.shape == SHAPE
    assert one.dtype == np.float32
    assert not one[~mask].any()
    np.testing.assert_allclose(invert(2 * field, mask, VOXEL, B0), 2 * one, atol=1e-5)  # type: ignore[operator]


@pytest.mark.parametrize("invert", [tkd, tikhonov])
def test_sources_come_back_with_their_sign_and_about_their_size(invert: object) -> None:
    chi, mask = balls()
    recovered = invert(forward_field(chi, VOXEL, B0) * mask, mask, VOXEL, B0)  # type: ignore[operator]
    assert np.corrcoef(recovered[mask], chi[mask])[0, 1] > 0.8
    assert recovered[chi > 0].mean() - recovered[mask].mean() > 0.05
    assert recovered[chi < 0].mean() - recovered[mask].mean() < -0.03


def test_the_forward_field_of_an_inverter_is_that_of_the_dipole() -> None:
    chi, mask = balls()
    inverter = Inverter(np.zeros(SHAPE, np.float32), VOXEL, B0, margin=24)
    np.testing.assert_allclose(inverter.forward(chi)[mask], forward_field(chi, VOXEL, B0)[mask], atol=2e-4)


@pytest.mark.parametrize("weight", [1e-3, 0.02, 1.0])
def test_a_prior_that_explains_the_field_stays_as_it_is(weight: float) -> None:
    """Whatever lies outside the mask: there the field is unknown, not zero."""
    chi, mask = balls()
    inverter = Inverter(np.zeros(SHAPE, np.float32), VOXEL, B0)
    field = inverter.forward(chi) * mask
    np.testing.assert_allclose(data_consistency(field, chi, mask, VOXEL, B0, weight), chi, atol=1e-5)


def test_a_large_weight_keeps_the_prior_and_a_small_one_the_measurement() -> None:
    chi, mask = balls()
    field = forward_field(chi, VOXEL, B0) * mask
    prior = (0.5 * chi).astype(np.float32)
    kept = data_consistency(field, prior, mask, VOXEL, B0, 1e4)
    np.testing.assert_allclose(kept, prior, atol=1e-4)

    def misfit(weight: float) -> float:
        merged = data_consistency(field, prior, mask, VOXEL, B0, weight)
        return float(np.linalg.norm((forward_field(merged, VOXEL, B0) - field)[mask]))

    assert misfit(1e-3) < misfit(1e-1) < misfit(1e4)


def test_consistency_moves_any_prior_towards_the_truth() -> None:
    chi, mask = balls()
    field = forward_field(chi, VOXEL, B0) * mask
    rng = np.random.default_rng(0)
    for prior in (np.zeros(SHAPE), 0.6 * chi, chi + rng.normal(0, 0.02, SHAPE)):
        merged = data_consistency(field, (prior * mask).astype(np.float32), mask, VOXEL, B0, 0.02)
        assert np.linalg.norm((merged - chi)[mask]) < np.linalg.norm((prior - chi)[mask])


def test_each_step_of_consistency_comes_nearer_to_prior_and_field_at_once() -> None:
    chi, mask = balls()
    rng = np.random.default_rng(3)
    inverter = Inverter(forward_field(chi, VOXEL, B0) * mask, VOXEL, B0)
    prior = (0.5 * chi + rng.normal(0, 0.02, SHAPE) * mask).astype(np.float32)
    trust = (mask * rng.uniform(0.2, 1, SHAPE)).astype(np.float32)
    weight = 0.02

    def cost(found: NDArray[np.float32]) -> float:
        misfit = trust * (inverter.forward(found) - inverter.local_field) ** 2
        return float((misfit + weight * (found - prior) ** 2).sum())

    costs = [cost(inverter.consistency(prior, weight, trust, steps)) for steps in range(5)]
    assert costs[0] == pytest.approx(cost(prior))
    assert costs[4] < costs[3] < costs[2] < costs[1] < costs[0]
    assert costs[1] - costs[3] > 2 * (costs[3] - costs[4])


def test_without_a_mask_consistency_is_the_weighted_mean_in_k_space() -> None:
    rng = np.random.default_rng(2)
    field, prior = rng.standard_normal((2, *SHAPE)).astype(np.float32)
    merged = Inverter(field, VOXEL, B0, margin=0).consistency(prior, 0.05)
    expected = (KERNEL * rfftn(field) + 0.05 * rfftn(prior)) / (KERNEL**2 + 0.05)
    np.testing.assert_allclose(rfftn(merged), expected, atol=2e-2)


def test_torch_tensors_give_the_same_maps_and_gradients() -> None:
    torch = pytest.importorskip("torch")
    chi, mask = balls()
    field = forward_field(chi, VOXEL, B0) * mask
    tensors = torch.from_numpy(field), torch.from_numpy(mask)
    for invert in (tkd, tikhonov):
        seen = invert(*tensors, VOXEL, B0)
        assert isinstance(seen, torch.Tensor)
        np.testing.assert_allclose(seen.numpy(), invert(field, mask, VOXEL, B0), atol=1e-5)
    prior = torch.from_numpy(0.5 * chi).requires_grad_()
    merged = data_consistency(tensors[0], prior, tensors[1], VOXEL, B0, 0.02)
    expected = data_consistency(field, 0.5 * chi, mask, VOXEL, B0, 0.02)
    np.testing.assert_allclose(merged.detach().numpy(), expected, atol=1e-5)
    merged.square().sum().backward()
    assert torch.isfinite(prior.grad).all()
    assert prior.grad.abs().max() > 0
