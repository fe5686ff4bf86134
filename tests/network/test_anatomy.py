"""A head is reproducible, whole, and within what is known of heads."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from qsm_ai.network.anatomy import EXTENT, Head, bared, simulate_head
from qsm_ai.network.surroundings import AIR, BONE

COARSE = (4.0, 4.5, 5.0)


def volumes(head: Head) -> list[np.ndarray]:
    return [head.chi, head.brain, head.signal, head.r2star]


def test_the_same_seed_is_the_same_head(head: Head) -> None:
    again = simulate_head(np.random.default_rng(11), COARSE, lesions=False)
    for first, second in zip(volumes(head), volumes(again), strict=True):
        np.testing.assert_array_equal(first, second)


def test_another_seed_is_another_head(head: Head) -> None:
    other = simulate_head(np.random.default_rng(12), COARSE, lesions=False)
    assert (other.brain != head.brain).mean() > 0.01


def test_the_brain_is_one_piece_of_an_adults_volume(head: Head) -> None:
    assert label(head.brain)[1] == 1
    assert 0.8 < head.brain.sum() * np.prod(COARSE) / 1e6 < 1.8


def test_susceptibilities_within_the_brain_are_those_of_tissue_and_blood(head: Head) -> None:
    inside = head.chi[head.brain]
    assert -0.2 < inside.min() < -0.02
    assert 0.1 < inside.max() < 0.5
    assert abs(np.median(inside)) < 0.05


def test_volumes_are_single_precision_finite_and_positive_where_they_must_be(head: Head) -> None:
    for volume in (head.chi, head.signal, head.r2star):
        assert volume.dtype == np.float32
        assert np.isfinite(volume).all()
    assert (head.signal >= 0).all()
    assert head.r2star.min() >= 1
    assert head.r2star.max() <= 400
    assert (head.signal[head.brain] > 0).all()


def test_a_smaller_head_has_a_smaller_brain_on_a_smaller_grid(head: Head) -> None:
    small = simulate_head(np.random.default_rng(11), COARSE, scale=0.8, lesions=False)
    assert small.brain.sum() < 0.75 * head.brain.sum()
    assert small.brain.size < head.brain.size


def test_a_head_on_its_side_needs_a_grid_on_its_side() -> None:
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    turned = simulate_head(np.random.default_rng(2), (5.0, 5.0, 5.0), tilt=quarter, lesions=False)
    right, front, up = (n * 5 for n in turned.brain.shape)
    assert right >= EXTENT[1] > EXTENT[0]
    assert EXTENT[0] <= front < right
    assert up >= EXTENT[2]
    where = np.argwhere(turned.brain)
    extent = where.max(axis=0) - where.min(axis=0)
    assert extent[0] > extent[1]


@pytest.mark.parametrize("lesions", [False, True])
def test_the_calcification_changes_nothing_else(lesions: bool) -> None:
    plain, calcified = (
        simulate_head(np.random.default_rng(4), COARSE, lesions=lesions, calcification=wanted)
        for wanted in (False, True)
    )
    changed = plain.chi != calcified.chi
    assert 1 <= changed.sum() <= 27
    assert changed[calcified.brain].sum() == changed.sum()
    assert calcified.chi[changed].min() < -0.7
    np.testing.assert_array_equal(plain.signal, calcified.signal)
    np.testing.assert_array_equal(plain.brain, calcified.brain)


@pytest.mark.parametrize("seed", range(3))
def test_the_calcification_is_in_every_head(seed: int) -> None:
    head = simulate_head(np.random.default_rng(seed), (4.0, 4.0, 4.0), lesions=False, calcification=True)
    assert head.chi[head.brain].min() < -0.7


def test_a_bared_head_keeps_its_brain_and_has_bone_and_air_without_signal_around() -> None:
    head = simulate_head(np.random.default_rng(5), (3.0, 3.0, 3.0), lesions=False)
    bare, thick = bared(head), bared(head, skull=12.0)
    for before, after in zip(volumes(head), volumes(bare), strict=True):
        np.testing.assert_array_equal(before[head.brain], after[head.brain])
    assert not bare.signal[~head.brain].any()
    assert set(np.unique(bare.chi[~head.brain])) == {np.float32(BONE), np.float32(AIR)}
    assert (thick.chi == np.float32(BONE)).sum() > 1.2 * (bare.chi == np.float32(BONE)).sum()
