"""Total variation: what it promises on piecewise constant maps."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from qsm_ai.physics.dipole import forward_field
from qsm_ai.physics.edges import Edges, magnitude_edges
from qsm_ai.physics.inversion import tikhonov, tkd
from qsm_ai.physics.total_variation import total_variation, variation

Volume = NDArray[np.float32]
VOXEL, B0 = (1.0, 1.0, 1.0), (0.2, 0.1, 0.97)
EDGE = 48


def phantom(voxel_size: tuple[float, float, float] = VOXEL) -> tuple[Volume, NDArray[np.bool_]]:
    """Balls and a vein of published susceptibilities."""
    shape = tuple(round(EDGE / h) for h in voxel_size)
    x, y, z = np.meshgrid(
        *[(np.arange(n) - n / 2) * h for n, h in zip(shape, voxel_size, strict=True)], indexing="ij"
    )
    mask = (x / 20) ** 2 + (y / 21) ** 2 + (z / 19) ** 2 < 1
    chi = np.zeros(shape, np.float32)
    for value, (a, b, c), radius in (
        (0.13, (7, 0, 0), 4.2),
        (0.13, (-7, 0, 0), 4.2),
        (0.044, (4, 10, 3), 3.5),
        (-0.1, (-5, -9, 4), 2.6),
        (-0.03, (0, -3, -9), 6.0),
    ):
        chi[(x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < radius**2] = value
    chi[np.hypot(x - 2, z - 9) < 1.3] = 0.19
    return chi * mask, mask


def noisy_field(
    chi: Volume, mask: NDArray[np.bool_], noise: float, voxel_size: tuple[float, ...] = VOXEL
) -> Volume:
    field = forward_field(chi, voxel_size, B0)  # type: ignore[arg-type]
    return ((field + np.random.default_rng(0).normal(0, noise, chi.shape)) * mask).astype(np.float32)


def error(chi: Volume, true: Volume, mask: NDArray[np.bool_]) -> float:
    one, other = chi[mask] - chi[mask].mean(), true[mask] - true[mask].mean()
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@pytest.mark.parametrize("noise", [0.0005, 0.002, 0.005])
def test_it_beats_the_closed_forms_on_a_noisy_piecewise_constant_map(noise: float) -> None:
    chi, mask = phantom()
    field = noisy_field(chi, mask, noise)
    seen = error(total_variation(field, mask, VOXEL, B0), chi, mask)
    assert seen < 0.5 * error(tkd(field, mask, VOXEL, B0), chi, mask)
    assert seen < 0.5 * error(tikhonov(field, mask, VOXEL, B0), chi, mask)


def test_it_recovers_the_map_nearly_when_there_is_little_noise() -> None:
    chi, mask = phantom()
    field = noisy_field(chi, mask, 1e-5)
    recovered = total_variation(field, mask, VOXEL, B0, regularisation=5e-5, iterations=80)
    assert error(recovered, chi, mask) < 0.08


def test_the_map_is_flat_where_the_truth_is_flat() -> None:
    chi, mask = phantom()
    field = noisy_field(chi, mask, 0.003)
    recovered = total_variation(field, mask, VOXEL, B0, regularisation=8e-4)

    def variation(volume: Volume) -> float:
        return float(sum(np.abs(np.diff(volume, axis=a)).sum() for a in range(3)))

    assert variation(recovered) < 1.3 * variation(chi)
    assert variation(tkd(field, mask, VOXEL, B0)) > 3 * variation(chi)


def test_a_field_that_is_missing_is_not_taken_for_zero() -> None:
    chi, mask = phantom()
    field = noisy_field(chi, mask, 0.001)
    gap = np.zeros_like(mask)
    gap[20:28, 20:28, 30:36] = True
    weights = (mask & ~gap).astype(np.float32)
    field[gap] = 0
    aware = total_variation(field, mask, VOXEL, B0, weights=weights)
    blind = total_variation(field, mask, VOXEL, B0)
    assert error(aware, chi, mask) < 0.8 * error(blind, chi, mask)


@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 2.0), (0.75, 1.0, 1.5)])
def test_anisotropic_voxels_need_no_other_weight(voxel_size: tuple[float, float, float]) -> None:
    chi, mask = phantom(voxel_size)
    field = noisy_field(chi, mask, 0.002, voxel_size)
    seen = error(total_variation(field, mask, voxel_size, B0), chi, mask)
    assert seen < 0.6 * error(tkd(field, mask, voxel_size, B0), chi, mask)


def test_what_lies_outside_the_mask_does_not_count() -> None:
    chi, mask = phantom()
    field = noisy_field(chi, mask, 0.001)
    junk = np.where(mask, field, np.float32(100))
    recovered = total_variation(field, mask, VOXEL, B0, iterations=5)
    assert recovered.dtype == np.float32
    assert not recovered[~mask].any()
    np.testing.assert_array_equal(total_variation(junk, mask, VOXEL, B0, iterations=5), recovered)


def magnitude_of(chi: Volume, noise: float = 0.01) -> Volume:
    """A magnitude whose tissues end where those of the map do, with contrasts of its own."""
    tissues = np.unique(chi)
    contrast = np.random.default_rng(1).permutation(np.linspace(0.6, 1.2, len(tissues)))
    clean = contrast[np.searchsorted(tissues, chi)]
    return (clean + np.random.default_rng(2).normal(0, noise, chi.shape)).astype(np.float32)[None]


@pytest.mark.parametrize("voxel_size", [VOXEL, (0.75, 1.0, 1.5)])
@pytest.mark.parametrize("noise", [0.0005, 0.003])
def test_edges_of_the_magnitude_make_the_map_better(
    noise: float, voxel_size: tuple[float, float, float]
) -> None:
    chi, mask = phantom(voxel_size)
    field = noisy_field(chi, mask, noise, voxel_size)
    edges = magnitude_edges(magnitude_of(chi), mask, voxel_size)
    without = total_variation(field, mask, voxel_size, B0, iterations=50)
    with_edges = total_variation(field, mask, voxel_size, B0, iterations=50, edges=edges)
    assert error(with_edges, chi, mask) < 0.8 * error(without, chi, mask)


def test_edges_that_the_map_does_not_have_do_little_harm() -> None:
    chi, mask = phantom()
    field = noisy_field(chi, mask, 0.002)
    elsewhere = np.flip(magnitude_of(chi), axis=(1, 2, 3)).copy()
    with_edges = total_variation(
        field, mask, VOXEL, B0, iterations=50, edges=magnitude_edges(elsewhere, mask, VOXEL)
    )
    without = total_variation(field, mask, VOXEL, B0, iterations=50)
    assert error(with_edges, chi, mask) < 1.15 * error(without, chi, mask)


def test_edges_that_say_nothing_change_nothing() -> None:
    chi, mask = phantom()
    field = noisy_field(chi, mask, 0.002)
    none = Edges(np.ones(chi.shape, np.float32), np.zeros((3, *chi.shape), np.float32))
    np.testing.assert_array_equal(
        total_variation(field, mask, VOXEL, B0, iterations=10, edges=none),
        total_variation(field, mask, VOXEL, B0, iterations=10),
    )


def test_a_prior_is_kept_where_it_weighs_most_and_mended_where_the_field_knows_better() -> None:
    chi, mask = phantom()
    field = noisy_field(chi, mask, 0.002)
    wrong = np.random.default_rng(3).normal(0, 0.02, chi.shape) * mask
    prior = (chi + wrong).astype(np.float32)
    kept = total_variation(field, mask, VOXEL, B0, 1e-8, prior=prior, prior_weight=1e4)
    np.testing.assert_allclose(kept[mask] - kept[mask].mean(), prior[mask] - prior[mask].mean(), atol=1e-4)
    merged = total_variation(field, mask, VOXEL, B0, prior=prior, prior_weight=0.01)
    alone = total_variation(field, mask, VOXEL, B0)
    assert error(merged, chi, mask) < min(error(alone, chi, mask), error(prior, chi, mask))


def test_the_opposite_field_has_the_opposite_map() -> None:
    chi, mask = phantom()
    field = noisy_field(chi, mask, 0.002)
    edges = magnitude_edges(magnitude_of(chi), mask, VOXEL)
    one, other = (
        total_variation(f, mask, VOXEL, B0, iterations=5, edges=edges) for f in (field, np.negative(field))
    )
    np.testing.assert_allclose(other, -one, atol=1e-6)


def test_that_no_source_lies_outside_tells_of_those_inside() -> None:
    """Where variation does not: in a map without flat parts."""
    chi, mask = phantom()
    texture = gaussian_filter(np.random.default_rng(5).standard_normal(chi.shape), 1.5)
    chi = (chi + 0.5 * texture * mask).astype(np.float32)
    field = noisy_field(chi, mask, 2e-4)
    anywhere, dear, inside = (
        error(total_variation(field, mask, VOXEL, B0, 2e-5, iterations=60, outside_weight=weight), chi, mask)
        for weight in (0.0, 0.005, np.inf)
    )
    assert inside < dear < anywhere
    assert inside < 0.85 * anywhere


def test_a_source_outside_is_taken_for_one_inside_where_that_is_made_dear() -> None:
    chi, mask = phantom()
    outside = np.zeros_like(chi)
    outside[24, 24, 45] = 20.0
    assert not mask[outside > 0].any()
    field = noisy_field(chi + outside, mask, 2e-4)
    anywhere, inside = (
        total_variation(field, mask, VOXEL, B0, 2e-5, iterations=60, outside_weight=weight)
        for weight in (0.0, np.inf)
    )
    assert error(anywhere, chi, mask) < 0.8 * error(inside, chi, mask)
    assert variation(anywhere, mask, VOXEL) < 0.95 * variation(inside, mask, VOXEL)


def test_the_outside_counts_for_nothing_at_a_weight_of_nothing_or_next_to_it() -> None:
    chi, mask = phantom()
    field = noisy_field(chi, mask, 0.002)
    prior = np.zeros_like(chi)
    free, nearly = (
        total_variation(field, mask, VOXEL, B0, 2e-3, None, 200, None, prior, 0.01, outside_weight=weight)
        for weight in (0.0, 1e-9)
    )
    assert np.abs(free - nearly).max() < 0.02 * np.abs(free).max()


def test_the_variation_of_a_step_is_its_height_times_its_area_except_along_a_border() -> None:
    x = np.arange(20)
    mask = np.zeros((20, 12, 10), np.bool_)
    mask[2:-2, 2:-2, 2:-2] = True
    step = np.broadcast_to(np.where(x < 10, 0.0, 0.3)[:, None, None], mask.shape).astype(np.float32)
    voxel_size = (0.5, 1.0, 2.0)
    faces = 8 * 6
    assert variation(step, mask, voxel_size) == pytest.approx(0.3 / 0.5 * faces, rel=1e-5)
    assert variation(step + 7, mask, voxel_size) == pytest.approx(0.3 / 0.5 * faces, rel=1e-5)
    normal = np.zeros((3, *mask.shape), np.float32)
    normal[0] = 1
    edges = Edges(np.full(mask.shape, 0.25, np.float32), normal)
    assert variation(step, mask, voxel_size, edges) == pytest.approx(0.25 * 0.3 / 0.5 * faces, rel=1e-5)


def test_a_weight_that_is_not_positive_and_an_empty_mask_are_refused() -> None:
    chi, mask = phantom()
    with pytest.raises(ValueError, match="positive"):
        total_variation(chi, mask, VOXEL, B0, regularisation=0)
    with pytest.raises(ValueError, match="prior"):
        total_variation(chi, mask, VOXEL, B0, prior=chi, prior_weight=0)
    with pytest.raises(ValueError, match="outside"):
        total_variation(chi, mask, VOXEL, B0, outside_weight=-1)
    with pytest.raises(ValueError, match="empty"):
        total_variation(chi, np.zeros_like(mask), VOXEL, B0)
