"""Cutting and blending undo each other, whatever the volume."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsm_ai.reconstruction.patches import OVERLAP, PATCH, plan_patches

shapes = st.tuples(*[st.integers(5, 40)] * 3)


@settings(max_examples=60, deadline=None)
@given(shape=shapes, size=st.integers(4, 16), overlap=st.integers(0, 3), seed=st.integers(0, 2**16))
def test_blending_undoes_cutting(shape: tuple[int, int, int], size: int, overlap: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.02
    mask[tuple(n // 2 for n in shape)] = True
    volume = rng.standard_normal((1, *shape)).astype(np.float32)
    plan = plan_patches(mask, size, overlap)
    blended = plan.blend(plan.cut(volume))
    np.testing.assert_allclose(blended[mask], volume[0][mask], rtol=1e-5, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(shape=shapes, size=st.integers(4, 16), overlap=st.integers(0, 3))
def test_weights_sum_to_one_in_the_mask_and_never_exceed_it(
    shape: tuple[int, int, int], size: int, overlap: int
) -> None:
    mask = np.zeros(shape, bool)
    mask[: shape[0] // 2] = True
    plan = plan_patches(mask, size, overlap)
    ones = np.ones((len(plan), size, size, size), np.float32)
    total = plan.blend(ones)
    np.testing.assert_allclose(total[mask], 1, rtol=1e-6)
    assert total.min() >= 0
    assert total.max() <= 1 + 1e-6


@settings(max_examples=60, deadline=None)
@given(shape=shapes, size=st.integers(4, 16), overlap=st.integers(0, 3))
def test_neighbours_overlap_as_much_as_asked(shape: tuple[int, int, int], size: int, overlap: int) -> None:
    plan = plan_patches(np.ones(shape, bool), size, overlap)
    for axis, length in enumerate(shape):
        starts = sorted({corner[axis] for corner in plan.corners})
        assert starts[0] == 0
        assert starts[-1] == max(0, length - size)
        assert all(size - (b - a) >= overlap for a, b in pairwise(starts))


def test_only_patches_with_mask_voxels_are_kept() -> None:
    mask = np.zeros((40, 40, 40), bool)
    mask[2, 3, 4] = True
    plan = plan_patches(mask, 16, 4)
    assert plan.corners == ((0, 0, 0),)


def test_a_volume_smaller_than_a_patch_is_filled_with_zeros() -> None:
    volume = np.ones((2, 5, 6, 7), np.float32)
    plan = plan_patches(np.ones((5, 6, 7), bool), 8, 2)
    patches = plan.cut(volume)
    assert patches.shape == (1, 2, 8, 8, 8)
    assert patches.sum() == volume.sum()
    assert plan.blend(patches[:, :1]).shape == (5, 6, 7)


def test_batches_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    volume = rng.standard_normal((3, 30, 20, 25)).astype(np.float32)
    plan = plan_patches(np.ones((30, 20, 25), bool), 12, 4)
    whole = plan.blend(plan.cut(volume)[:, :1])
    parts = np.zeros((30, 20, 25), np.float32)
    batches = list(plan.batches(4))
    for batch in batches:
        plan.blend(plan.cut(volume, batch)[:, :1], parts, batch)
    assert len(batches) > 2
    np.testing.assert_array_equal(parts, whole)


def test_seams_do_not_show() -> None:
    """Patches that disagree by a constant blend into a smooth ramp, not a step."""
    plan = plan_patches(np.ones((1, 1, 40), bool), 24, 8)
    disagreeing = np.stack([np.full((24, 24, 24), float(i), np.float32) for i in range(len(plan))])
    line = plan.blend(disagreeing)[0, 0]
    assert line[0] == 0
    assert line[-1] == len(plan) - 1
    assert np.abs(np.diff(line)).max() < 0.25
    assert (np.diff(line) >= -1e-6).all()


def test_a_head_at_one_millimetre_takes_eight_patches() -> None:
    for shape in ((150, 168, 140), (140, 173, 130)):
        assert len(plan_patches(np.ones(shape, bool))) == 8
    assert (PATCH, OVERLAP) == (96, 19)


def test_impossible_overlaps_and_other_volumes_are_errors() -> None:
    with pytest.raises(ValueError, match="overlap"):
        plan_patches(np.ones((9, 9, 9), bool), 8, 8)
    with pytest.raises(ValueError, match="do not fit"):
        plan_patches(np.ones((9, 9, 9), bool), 8, 2).cut(np.zeros((1, 9, 9, 8), np.float32))
