"""A labelled head keeps its anatomy and gets new susceptibilities."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import label

from qsm_ai.network.anatomy import simulate_head
from qsm_ai.network.geometry import Noise, head_coordinates
from qsm_ai.network.labelled_brain import labelled_brain, sample_labels

SHAPE, VOXEL = (45, 54, 45), (4.0, 4.0, 4.0)


def test_labels_are_found_where_they_lie(labels: NDArray[np.int16]) -> None:
    c = head_coordinates(labels.shape, (1.0, 1.0, 1.0), np.eye(3))
    values = np.arange(int(labels.max()) + 1, dtype=np.float32)
    np.testing.assert_array_equal(sample_labels(labels, c, values), labels)


def test_beyond_the_labels_there_is_nothing(labels: NDArray[np.int16]) -> None:
    far = [np.full((2, 2, 2), 300, np.float32)] * 3
    assert not sample_labels(labels, far, np.ones(int(labels.max()) + 1, np.float32)).any()


def test_a_labelled_brain_is_one_piece_as_large_as_the_labels(labels: NDArray[np.int16]) -> None:
    rng = np.random.default_rng(0)
    c = head_coordinates(SHAPE, VOXEL, np.eye(3))
    brain = labelled_brain(rng, c, Noise(rng, SHAPE, VOXEL), 1.0, labels)
    assert label(brain.mask)[1] == 1
    assert brain.mask.sum() * np.prod(VOXEL) == pytest.approx((labels > 0).sum(), rel=0.3)
    assert not brain.chi[~brain.mask].any()
    assert np.abs(brain.chi).max() < 0.5


def test_susceptibilities_differ_from_one_draw_to_the_next(labels: NDArray[np.int16]) -> None:
    def pallidum(seed: int) -> tuple[float, float]:
        rng = np.random.default_rng(seed)
        c = head_coordinates(SHAPE, VOXEL, np.eye(3))
        brain = labelled_brain(rng, c, Noise(rng, SHAPE, VOXEL), 1.0, labels)
        inside = (np.abs(c[0] - 24) < 3) & (np.abs(c[1]) < 8) & (np.abs(c[2]) < 5)
        beside = (np.abs(c[0] - 40) < 6) & (np.abs(c[1]) < 30) & (np.abs(c[2]) < 15)
        return float(brain.chi[inside].mean()), float(brain.chi[beside].mean())

    drawn = np.array([pallidum(seed) for seed in range(6)])
    iron, white = drawn.mean(axis=0)
    assert white + 0.04 < iron < 0.2
    assert drawn.std(axis=0).min() > 0.005


def test_a_head_can_be_made_of_labels(labels: NDArray[np.int16]) -> None:
    head = simulate_head(np.random.default_rng(3), VOXEL, labels=labels)
    assert label(head.brain)[1] == 1
    assert all(np.isfinite(x).all() for x in (head.chi, head.signal, head.r2star))
