"""Network inputs are dimensionless: the scale of a scan reaches the network only as a number beside them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from qsm_ai.physics.edges import Edges, magnitude_edges
from qsm_ai.physics.inversion import Inverter, tikhonov
from qsm_ai.physics.noise import cone_noise
from qsm_ai.physics.referencing import reference
from qsm_ai.physics.total_variation import total_variation
from qsm_ai.reconstruction.inputs import (
    CHANNELS,
    ERROR_CEILING,
    ERROR_GAIN,
    LEAST_WEIGHT,
    MOST_WEIGHT,
    SMALLEST_SCALE,
    SMOOTH,
    USUAL_SCALE,
    NetworkInputs,
    edge_weight,
    network_inputs,
)

SHAPE, VOXEL, DIRECTION = (28, 26, 24), (1.0, 1.2, 1.5), (0.0, 0.6, 0.8)


@pytest.fixture(scope="module")
def mask() -> NDArray[np.bool_]:
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    return x**2 + y**2 + z**2 < 0.8


@pytest.fixture(scope="module")
def field(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    texture = gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), 1.5)
    return (0.02 * texture / texture.std() * mask).astype(np.float32)


@pytest.fixture(scope="module")
def error(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    spread = np.random.default_rng(1).uniform(0.0005, 0.003, SHAPE)
    spread[10, 10, 10] = 10.0
    return spread.astype(np.float32)


@pytest.fixture(scope="module")
def edges(mask: NDArray[np.bool_]) -> Edges:
    tissue = gaussian_filter(np.random.default_rng(2).standard_normal(SHAPE), 3) > 0
    return magnitude_edges(np.where(tissue, 1.0, 0.7).astype(np.float32)[None], mask, VOXEL)


def inputs_of(
    field: NDArray[np.float32],
    error: NDArray[np.float32] | None,
    mask: NDArray[np.bool_],
    edges: Edges | None = None,
) -> NetworkInputs:
    return network_inputs(Inverter(field, VOXEL, DIRECTION), error, mask, edges=edges)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("factor", [0.3, 2.0, 50.0])
def test_a_scan_times_a_factor_has_the_same_inputs(
    factor: float,
    guided: bool,
    field: NDArray[np.float32],
    error: NDArray[np.float32],
    mask: NDArray[np.bool_],
    edges: Edges,
) -> None:
    known = edges if guided else None
    one = inputs_of(field, error, mask, known)
    times = np.float32(factor)
    other = inputs_of(times * field, times * error, mask, known)
    assert other.scale == pytest.approx(factor * one.scale, rel=1e-5)
    assert other.noise == pytest.approx(factor * one.noise, rel=1e-5)
    np.testing.assert_allclose(other.channels, one.channels, atol=1e-4)
    np.testing.assert_allclose(other.first, factor * one.first, atol=1e-5 * factor)


def test_channels_are_what_their_names_say(
    field: NDArray[np.float32], error: NDArray[np.float32], mask: NDArray[np.bool_]
) -> None:
    inputs = inputs_of(field, error, mask)
    channels, first, scale = inputs.channels, inputs.first, inputs.scale
    assert channels.shape == (len(CHANNELS), *SHAPE)
    assert channels.dtype == first.dtype == np.float32
    named = dict(zip(CHANNELS, channels, strict=True))
    np.testing.assert_allclose(named["local_field"] * scale, field, atol=1e-6)
    smooth = tikhonov(field, mask, VOXEL, DIRECTION, SMOOTH)
    np.testing.assert_allclose(named["tikhonov"] * scale, smooth, atol=1e-6)
    factor = np.float32(USUAL_SCALE / scale)
    least = total_variation(field * factor, mask, VOXEL, DIRECTION) / factor
    np.testing.assert_allclose(first, reference(least, mask, "mean"), atol=1e-6)
    np.testing.assert_allclose(named["total_variation"] * scale, first, atol=1e-6)
    np.testing.assert_array_equal(named["mask"], mask)


def test_edges_of_the_magnitude_shape_the_classical_map_and_are_shown_themselves(
    field: NDArray[np.float32], error: NDArray[np.float32], mask: NDArray[np.bool_], edges: Edges
) -> None:
    without = inputs_of(field, error, mask)
    guided = inputs_of(field, error, mask, edges)
    assert guided.scale == without.scale
    for name, one, other in zip(CHANNELS, without.channels, guided.channels, strict=True):
        assert np.array_equal(one, other) == (name not in {"total_variation", "edges"})
    factor = np.float32(USUAL_SCALE / guided.scale)
    weight = edge_weight(float(np.median(error[mask])), guided.scale)
    least = total_variation(field * factor, mask, VOXEL, DIRECTION, weight, edges=edges) / factor
    np.testing.assert_allclose(guided.first, reference(least, mask, "mean"), atol=1e-6)
    assert not without.channels[CHANNELS.index("edges")].any()
    shown = guided.channels[CHANNELS.index("edges")]
    sharp = np.pad(1 - edges.smoothness, [(1, 0)] * 3, mode="edge")
    around = [
        sharp[tuple(slice(a, a + n) for a, n in zip(corner, mask.shape, strict=True))]
        for corner in np.ndindex(2, 2, 2)
    ]
    np.testing.assert_allclose(shown, np.mean(around, axis=0) * mask, atol=1e-6)


def test_a_border_is_shown_on_both_of_its_sides_alike(
    field: NDArray[np.float32], error: NDArray[np.float32], mask: NDArray[np.bool_]
) -> None:
    step = np.zeros((1, *mask.shape), np.float32)
    half = mask.shape[0] // 2
    step[:, half:] = 1
    shown = inputs_of(field, error, mask, magnitude_edges(step, mask, VOXEL)).channels[
        CHANNELS.index("edges")
    ]
    y, z = (n // 2 for n in mask.shape[1:])
    across = shown[:, y, z]
    assert across[half - 1] == across[half] > 0.4
    assert not np.delete(across, [half - 1, half]).any()


def test_the_noise_is_the_median_of_the_error_or_read_from_the_field(
    field: NDArray[np.float32], error: NDArray[np.float32], mask: NDArray[np.bool_]
) -> None:
    assert inputs_of(field, error, mask).noise == pytest.approx(float(np.median(error[mask])))
    without = inputs_of(field, None, mask)
    found = cone_noise(Inverter(field, VOXEL, DIRECTION), mask, without.scale)
    assert without.noise == pytest.approx(found, rel=1e-5)
    shown = dict(zip(CHANNELS, without.channels, strict=True))["field_error"]
    np.testing.assert_allclose(shown[mask], min(ERROR_GAIN * found / without.scale, ERROR_CEILING), rtol=1e-5)
    assert not shown[~mask].any()


def test_beside_edges_total_variation_weighs_more_the_noisier_the_field() -> None:
    quiet, usual, loud, deafening = (edge_weight(noise, USUAL_SCALE) for noise in (0.0, 2e-3, 3e-3, 1.0))
    assert quiet == LEAST_WEIGHT
    assert usual == pytest.approx(3.6e-3 * 2e-3 / USUAL_SCALE, rel=1e-5)
    assert loud == pytest.approx(1.5 * usual, rel=1e-5)
    assert deafening == MOST_WEIGHT


def test_the_scale_is_the_robust_spread_of_the_smoother_map(
    field: NDArray[np.float32], error: NDArray[np.float32], mask: NDArray[np.bool_]
) -> None:
    scale = inputs_of(field, error, mask).scale
    inside = tikhonov(field, mask, VOXEL, DIRECTION, SMOOTH)[mask]
    assert scale == pytest.approx(1.4826 * np.median(np.abs(inside - np.median(inside))), rel=1e-5)


def test_nothing_is_seen_outside_the_mask(
    field: NDArray[np.float32], error: NDArray[np.float32], mask: NDArray[np.bool_]
) -> None:
    inputs = inputs_of(field, error, mask)
    assert not inputs.channels[:, ~mask].any()
    assert not inputs.first[~mask].any()


def test_a_wild_error_is_cut_and_all_others_keep_their_order(
    field: NDArray[np.float32], error: NDArray[np.float32], mask: NDArray[np.bool_]
) -> None:
    channel = inputs_of(field, error, mask).channels[CHANNELS.index("field_error")]
    assert channel[10, 10, 10] == channel.max() == ERROR_CEILING
    tame = mask & (error < 1)
    assert np.corrcoef(channel[tame], error[tame])[0, 1] > 0.999


def test_an_empty_field_is_not_blown_up(error: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
    inputs = inputs_of(np.zeros(SHAPE, np.float32), error, mask)
    assert inputs.scale == SMALLEST_SCALE
    assert np.isfinite(inputs.channels).all()
    assert not inputs.first.any()
