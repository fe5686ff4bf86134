"""What zero means."""

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.physics.referencing import csf_region, reference

CHI = np.random.default_rng(0).normal(0.3, 0.1, (6, 6, 6)).astype(np.float32)
MASK = np.zeros((6, 6, 6), bool)
MASK[1:5, 1:5, 1:4] = True

VOXEL = (2.0, 2.0, 2.0)


def test_the_mean_of_the_mask_becomes_zero_and_differences_stay() -> None:
    referenced = reference(CHI, MASK, "mean")
    assert referenced.dtype == np.float32
    assert referenced[MASK].mean() == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(np.diff(referenced[MASK]), np.diff(CHI[MASK]), atol=1e-6)
    assert not referenced[~MASK].any()


def test_none_leaves_the_constant_and_still_cuts_the_outside() -> None:
    referenced = reference(CHI, MASK, "none")
    np.testing.assert_array_equal(referenced[MASK], CHI[MASK])
    assert not referenced[~MASK].any()


def test_the_mean_of_fluid_becomes_zero() -> None:
    fluid = np.zeros_like(MASK)
    fluid[2:4, 2:4, :3] = True
    referenced = reference(CHI, MASK, "csf", fluid)
    assert referenced[fluid & MASK].mean() == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(np.diff(referenced[MASK]), np.diff(CHI[MASK]), atol=1e-6)


def test_the_input_stays_as_it_is() -> None:
    before = CHI.copy()
    reference(CHI, MASK, "mean")
    np.testing.assert_array_equal(CHI, before)


def test_what_cannot_be_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="skull"):
        reference(CHI, MASK, "skull")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty"):
        reference(CHI, np.zeros_like(MASK))
    for missing in (None, ~MASK):
        with pytest.raises(ValueError, match="fluid"):
            reference(CHI, MASK, "csf", missing)


Brain = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]


@pytest.fixture
def brain() -> Brain:
    """R2*, mask and ventricles of a ball of a brain: fluid in two ventricles, around it, in a far cyst."""
    x, y, z = np.meshgrid(*(np.arange(64.0) - 31.5,) * 3, indexing="ij")
    mask = x**2 + y**2 + z**2 < 30**2
    ventricles = ((np.abs(x) - 6) ** 2 / 4 + y**2 / 64 + z**2 / 9 < 1) & mask
    cyst = x**2 + (y - 22) ** 2 + z**2 < 5**2
    rim = mask & (x**2 + y**2 + z**2 > 28**2)
    rate = np.where(ventricles | rim | cyst, 2.0, 18.0)
    noisy = np.clip(rate + np.random.default_rng(1).normal(0, 2, rate.shape), 0.1, None)
    return np.where(mask, noisy, 0).astype(np.float32), mask, ventricles


def test_fluid_is_found_in_the_ventricles_alone(brain: Brain) -> None:
    r2star, mask, ventricles = brain
    found = csf_region(r2star, mask, VOXEL)
    assert found is not None
    assert np.count_nonzero(found & ventricles) > 0.5 * np.count_nonzero(found)
    assert np.count_nonzero(found & ~ventricles) < 0.05 * np.count_nonzero(found)
    assert np.count_nonzero(found & ventricles) > 0.2 * np.count_nonzero(ventricles)


def test_a_brain_without_ventricles_or_without_r2star_has_none(brain: Brain) -> None:
    r2star, mask, ventricles = brain
    assert csf_region(np.where(ventricles, np.float32(18), r2star), mask, VOXEL) is None
    assert csf_region(np.zeros_like(r2star), mask, VOXEL) is None
