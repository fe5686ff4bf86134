"""The physics check knows a map that explains its field from one that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from qsm_ai.physics.dipole import forward_field
from qsm_ai.reconstruction.quality import GOOD_SCORE, physics_check

if TYPE_CHECKING:
    from tests.conftest import Phantom

VOXEL = (1.0, 1.1, 1.25)


def test_the_true_map_explains_everything(phantom: Phantom) -> None:
    check = physics_check(phantom.chi, phantom.local_field, phantom.mask, VOXEL, phantom.b0_direction)
    assert check.score > 0.9999
    assert np.abs(check.residual).max() < 1e-4
    assert check.warnings == ()


def test_neither_the_reference_nor_a_constant_field_counts_as_an_error(phantom: Phantom) -> None:
    shifted = np.where(phantom.mask, phantom.chi - 0.03, 0).astype(np.float32)
    field = np.where(phantom.mask, phantom.local_field + 0.005, 0).astype(np.float32)
    check = physics_check(shifted, field, phantom.mask, VOXEL, phantom.b0_direction)
    assert check.score > 0.999


def test_an_empty_map_explains_nothing(phantom: Phantom) -> None:
    check = physics_check(
        np.zeros_like(phantom.chi), phantom.local_field, phantom.mask, VOXEL, phantom.b0_direction
    )
    assert check.score < 0.1
    assert check.residual_relative == pytest.approx(1, abs=0.05)
    assert "look at the residual" in check.warnings[0]


def test_a_wrong_field_direction_is_noticed(phantom: Phantom) -> None:
    check = physics_check(phantom.chi, phantom.local_field, phantom.mask, VOXEL, (1.0, 0.0, 0.0))
    assert check.score < GOOD_SCORE
    assert check.warnings


def test_a_wrong_sign_is_noticed(phantom: Phantom) -> None:
    check = physics_check(-phantom.chi, phantom.local_field, phantom.mask, VOXEL, phantom.b0_direction)
    assert check.score == 0


def test_pure_noise_has_a_chi_square_of_one(phantom: Phantom) -> None:
    rng = np.random.default_rng(3)
    error = np.where(phantom.mask, 0.002 + 0.004 * rng.random(phantom.mask.shape), 0).astype(np.float32)
    noisy = phantom.local_field + error * rng.standard_normal(error.shape).astype(np.float32)
    check = physics_check(phantom.chi, noisy, phantom.mask, VOXEL, phantom.b0_direction, error)
    assert check.chi_square == pytest.approx(1, abs=0.05)
    assert check.scores["residual_chi_square"] == check.chi_square


def test_a_lost_rim_is_not_held_against_the_map(phantom: Phantom) -> None:
    field = phantom.local_field.copy()
    field[: field.shape[0] // 3] = 0
    check = physics_check(phantom.chi, field, phantom.mask, VOXEL, phantom.b0_direction)
    assert check.score > 0.999
    assert not check.residual[: field.shape[0] // 3].any()


def test_residual_and_map_together_are_the_field(phantom: Phantom) -> None:
    half = phantom.chi / 2
    check = physics_check(half, phantom.local_field, phantom.mask, VOXEL, phantom.b0_direction)
    whole = forward_field(half, VOXEL, phantom.b0_direction) + check.residual
    away = (whole - phantom.local_field)[phantom.mask]
    assert np.corrcoef(whole[phantom.mask], phantom.local_field[phantom.mask])[0, 1] > 0.99
    assert away.std() < 0.2 * phantom.local_field[phantom.mask].std()


def test_no_field_at_all_scores_nothing(phantom: Phantom) -> None:
    check = physics_check(phantom.chi, np.zeros_like(phantom.chi), phantom.mask, VOXEL, phantom.b0_direction)
    assert check.score == 0
