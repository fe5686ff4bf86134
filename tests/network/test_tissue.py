"""Invented brains: one piece, tissues that fill each voxel, nuclei at their published values and places."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from qsm_ai.network.geometry import Noise, head_coordinates
from qsm_ai.network.tissue import NUCLEI, invented_brain, nuclei, tissues
from qsm_ai.physics.morphology import largest_component

SHAPE, VOXEL = (45, 54, 45), (4.0, 4.0, 4.0)


def test_tissues_fill_the_brain_and_no_more() -> None:
    rng = np.random.default_rng(0)
    c = head_coordinates(SHAPE, VOXEL, np.eye(3))
    distance, shares = tissues(rng, c, Noise(rng, SHAPE, VOXEL), 1.0, 4.0)
    brain = distance > 0
    total = sum(shares.values())
    np.testing.assert_allclose(total, 1, atol=1e-5)
    for name, share in shares.items():
        assert share.min() > -0.03, name
        assert share[brain].mean() > 0.05, name


def test_an_invented_brain_is_one_piece_with_nothing_outside() -> None:
    rng = np.random.default_rng(1)
    c = head_coordinates(SHAPE, VOXEL, np.eye(3))
    brain = invented_brain(rng, c, Noise(rng, SHAPE, VOXEL), 1.0, 4.0, variety=1.0)
    assert label(brain.mask)[1] == 1
    assert np.abs(brain.chi[brain.mask]).max() < 0.2
    assert not brain.chi[~brain.mask].any()
    assert brain.signal[brain.mask].max() <= 1.0 + 1e-5


@pytest.mark.parametrize("name", NUCLEI)
def test_a_textbook_nucleus_has_its_published_susceptibility_in_both_halves(name: str) -> None:
    value, centre, _ = NUCLEI[name]
    shape, voxel = (88, 108, 88), (1.0, 1.5, 1.0)
    c = head_coordinates(shape, voxel, np.eye(3))
    chi, share = nuclei(np.random.default_rng(2), c, 1.0, 1.0, variety=0.0)
    for side in (-1, 1):
        away = (c[0] - side * centre[0]) ** 2 + (c[1] - centre[1]) ** 2 + (c[2] - centre[2]) ** 2
        middle = np.unravel_index(away.argmin(), shape)
        assert share[middle] > 0.9
        assert chi[middle] == pytest.approx(value, rel=0.15)


def test_nuclei_off_the_grid_are_left_out() -> None:
    c = [x + np.float32(500) for x in head_coordinates((16, 16, 16), VOXEL, np.eye(3))]
    chi, share = nuclei(np.random.default_rng(3), c, 1.0, 4.0)
    assert not chi.any()
    assert not share.any()


def test_only_the_largest_part_stays() -> None:
    mask = np.zeros((9, 9, 9), np.bool_)
    mask[:2, 0, 0] = mask[4:8, 4, 4] = True
    assert np.argwhere(largest_component(mask)).tolist() == [[x, 4, 4] for x in range(4, 8)]
    assert not largest_component(np.zeros_like(mask)).any()
