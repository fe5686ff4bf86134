"""Veins and lesions: volumes, ranges, places."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from qsm_ai.network.geometry import head_coordinates
from qsm_ai.network.inclusions import (
    CALCIFICATION_CHI,
    CHOROID_PLEXUS,
    LESIONS,
    add_calcification,
    add_lesions,
    paint_balls,
    veins,
)

BRAIN = np.ones((40, 40, 40), np.bool_)
VOXEL = (1.0, 1.0, 1.0)


@pytest.mark.parametrize("voxel", [(1.0, 1.0, 1.0), (1.0, 1.5, 2.0)])
def test_a_painted_ball_has_the_volume_of_a_ball(voxel: tuple[float, float, float]) -> None:
    target = np.zeros((32, 32, 32), np.float32)
    paint_balls(target, np.array([[15.3, 16.1, 15.8]]), np.array([6.0]), voxel)
    assert target.max() == 1
    assert target.sum() * np.prod(voxel) == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.05)


def test_painting_only_raises_and_stops_at_the_edge_of_the_grid() -> None:
    target = np.full((8, 8, 8), 0.5, np.float32)
    paint_balls(target, np.array([[0.0, 0.0, 0.0], [30.0, 3.0, 3.0]]), np.array([2.0, 2.0]), VOXEL)
    assert target[0, 0, 0] == 1
    assert target.min() == 0.5
    assert target[7, 7, 7] == 0.5


def test_a_ball_thinner_than_a_voxel_fills_little_of_it() -> None:
    target = np.zeros((5, 5, 5), np.float32)
    paint_balls(target, np.array([[2.0, 2.0, 2.0]]), np.array([0.1]), VOXEL)
    assert 0 < target.max() < 0.1


def test_veins_fill_a_small_share_of_the_brain() -> None:
    share = veins(np.random.default_rng(0), BRAIN, VOXEL, 20)
    assert share.min() == 0
    assert 0.3 < share.max() <= 1
    assert 0.001 < share.mean() < 0.2


@pytest.mark.parametrize(("inside", "count"), [(BRAIN, 0), (~BRAIN, 5)])
def test_no_veins_where_there_are_none(inside: np.ndarray, count: int) -> None:
    assert not veins(np.random.default_rng(0), inside, VOXEL, count).any()


def test_lesions_stay_within_what_was_ever_measured() -> None:
    lowest = min(kind.chi[0] for kind in LESIONS.values())
    highest = max(kind.chi[1] for kind in LESIONS.values())
    seen_bleed = seen_calcification = False
    brain = BRAIN[:20, :20, :20]
    for seed in range(6):
        chi, r2star = np.zeros(brain.shape, np.float32), np.full(brain.shape, 20, np.float32)
        add_lesions(np.random.default_rng(seed), brain, chi, r2star, (3.0, 3.0, 3.0))
        assert lowest <= chi.min() <= 0 <= chi.max() <= highest
        assert r2star.min() == 20
        assert ((r2star > 20) == (chi != 0)).all()
        seen_bleed |= chi.max() > 0.2
        seen_calcification |= chi.min() < -0.2
    assert seen_bleed
    assert seen_calcification


@pytest.mark.parametrize("voxel", [(1.0, 1.0, 1.0), (1.25, 1.25, 1.5), (4.0, 4.0, 4.0)])
def test_the_calcification_is_one_spot_in_the_choroid_plexus(voxel: tuple[float, float, float]) -> None:
    shape = tuple(int(100 / v) for v in voxel)
    c = head_coordinates(shape, voxel, np.eye(3))
    chi, r2star = np.zeros(shape, np.float32), np.full(shape, 3, np.float32)
    add_calcification(c, 1.0, chi, r2star, voxel)
    assert CALCIFICATION_CHI <= chi.min() < CALCIFICATION_CHI / 3
    assert label(chi < 0)[1] == 1
    centre = [float((x * chi).sum() / chi.sum()) for x in c]
    assert np.abs(np.array(centre) - CHOROID_PLEXUS).max() <= max(voxel) / 2 + 1e-3
    assert r2star.max() > 30
