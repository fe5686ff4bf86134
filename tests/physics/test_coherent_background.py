"""A few numbers tell the coarse of a background, and nothing of what lies inside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from qsm_ai.physics.coherent_background import coherent_background
from qsm_ai.physics.dipole import forward_field
from qsm_ai.physics.pdf import OuterSources

SHAPE = (64, 60, 56)
SIZE = (2.0, 2.0, 2.5)
B0 = (0.0, 0.6, 0.8)


def flat_below() -> NDArray[np.bool_]:
    """A brain's outline: an ellipsoid with a flat base, which air and bone make a field across."""
    x, y, z = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * h for n, h in zip(SHAPE, SIZE, strict=True)), indexing="ij"
    )
    return np.asarray((x / 38) ** 2 + (y / 32) ** 2 + (z / 34) ** 2 < 1) & (z > -18)


MASK = flat_below()


def brain(seed: int = 3) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    chi = 0.3 * gaussian_filter(rng.standard_normal(SHAPE), 1.5) * MASK
    return np.where(MASK, chi - chi[MASK].mean(), 0).astype(np.float32)


def head(bone_mm: float) -> NDArray[np.float32]:
    """Bone around the mask, air beyond it."""
    away = distance_transform_edt(~MASK, sampling=SIZE)
    around = np.where(MASK, 0.0, np.where(away < bone_mm, -2.1, 9.4))
    # Relative to air, so that the source has an end; borders lie within voxels.
    chi = np.where(MASK, 0.0, gaussian_filter(around, 0.8)) - 9.4
    return forward_field(chi.astype(np.float32), SIZE, B0)


def coarse(field: NDArray[np.float32], known: NDArray[np.bool_] = MASK) -> NDArray[np.float32]:
    return coherent_background((field * MASK).astype(np.float32), MASK, known, SIZE, B0)


def spread(field: NDArray[np.float32]) -> float:
    return float(field[MASK].std())


@pytest.mark.parametrize("bone_mm", [4.0, 6.0, 8.0])
def test_bone_and_air_are_told_by_a_few_numbers(bone_mm: float) -> None:
    field = head(bone_mm)
    assert spread(field - coarse(field)) < 0.25 * spread(field)


def test_the_field_of_what_is_inside_stays() -> None:
    local = forward_field(brain(), SIZE, B0)
    assert spread(coarse(local)) < 0.15 * spread(local)


@settings(deadline=None, max_examples=10)
@given(
    numbers=st.lists(st.floats(-2, 2), min_size=4, max_size=4),
    middle=st.tuples(*[st.floats(-20, 20)] * 3),
)
def test_f0_and_shims_are_taken_off_whole(numbers: list[float], middle: tuple[float, ...]) -> None:
    x, y, z = np.meshgrid(
        *((np.arange(n) * h - m) / 50 for n, h, m in zip(SHAPE, SIZE, middle, strict=True)), indexing="ij"
    )
    constant, slope, saddle, bowl = numbers
    shim = constant + slope * (x + z) + saddle * x * y + bowl * (2 * z**2 - x**2 - y**2)
    left = shim - coarse(shim.astype(np.float32))
    assert np.abs(left[MASK]).max() < 1e-4 * max(1.0, np.abs(shim[MASK]).max())


def test_it_is_linear() -> None:
    one, other = forward_field(brain(), SIZE, B0), head(6.0)
    together = coarse((2 * one - other).astype(np.float32))
    np.testing.assert_allclose(together, 2 * coarse(one) - coarse(other), atol=2e-4)


def test_a_search_after_it_knows_more_than_one_from_nothing() -> None:
    local = forward_field(brain(), SIZE, B0)
    total = ((local + head(6.0) + 1.0) * MASK).astype(np.float32)

    def error(field: NDArray[np.float32]) -> float:
        found = OuterSources(MASK, SIZE, B0).remove(field)
        return spread(found - local * MASK) / spread(local)

    assert error(total - coarse(total)) < 0.6 * error(total)


def test_what_is_not_known_has_no_say() -> None:
    field = head(6.0)
    known = MASK.copy()
    known[:30, 28:32] = False
    wrong = np.where(known, field, np.float32(7))
    np.testing.assert_array_equal(coarse(wrong, known), coarse(field, known))


def test_nothing_is_said_outside_the_mask_or_from_a_few_voxels() -> None:
    field = head(6.0)
    assert not coarse(field)[~MASK].any()
    few = np.zeros_like(MASK)
    few[32, 30, 26:30] = True
    assert not coarse(field, few).any()
