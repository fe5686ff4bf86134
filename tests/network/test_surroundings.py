"""Around the brain: bone, soft tissue, cavities, and air to the edge of the grid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from qsm_ai.network.anatomy import Head
from qsm_ai.network.geometry import Noise, head_coordinates
from qsm_ai.network.surroundings import AIR, BONE, bone_and_air, surroundings

VOXEL = (4.0, 4.0, 4.0)


def test_air_is_silent_and_everywhere_at_the_edge(head: Head) -> None:
    air = head.chi > AIR - 1e-3
    assert not head.signal[air].any()
    for axis, end in ((0, 0), (0, -1), (1, 0), (1, -1), (2, -1)):
        assert air.take(end, axis).mean() > 0.9


def test_bone_lies_around_the_brain_and_hardly_shines(head: Head) -> None:
    bone = (head.chi < BONE / 2) & ~head.brain
    assert np.median(head.chi[bone]) == pytest.approx(BONE, abs=0.5)
    assert head.signal[bone].max() < 0.1
    # From above, most of the brain is under it, however thin it is beside these voxels.
    assert bone.any(axis=2)[head.brain.any(axis=2)].mean() > 0.6


def test_some_air_lies_within_the_head() -> None:
    shape = (45, 54, 46)
    c = head_coordinates(shape, VOXEL, np.eye(3))
    brain = (c[0] / 60) ** 2 + (c[1] / 75) ** 2 + ((c[2] - 5) / 55) ** 2 < 1
    cavities = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        chi, signal = surroundings(rng, c, brain, Noise(rng, shape, VOXEL), VOXEL)
        air = chi == np.float32(AIR)
        assert not air[brain].any()
        assert not signal[air].any()
        cavities.append(label(air)[1] - 1)
    assert max(cavities) > 0


def test_a_bare_brain_lies_in_a_shell_of_bone_in_air() -> None:
    shape = (60, 60, 60)
    c = head_coordinates(shape, VOXEL, np.eye(3))
    radius = np.sqrt(c[0] ** 2 + c[1] ** 2 + c[2] ** 2)
    chi = bone_and_air(radius < 60, VOXEL, skull=16.0)
    assert set(np.unique(chi)) == {np.float32(BONE), np.float32(AIR)}
    assert (chi[(radius > 64) & (radius < 70)] == np.float32(BONE)).all()
    assert (chi[radius > 84] == np.float32(AIR)).all()
