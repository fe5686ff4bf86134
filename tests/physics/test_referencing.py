"""What zero means."""

import numpy as np
import pytest

from qsm_ai.physics.referencing import reference

CHI = np.random.default_rng(0).normal(0.3, 0.1, (6, 6, 6)).astype(np.float32)
MASK = np.zeros((6, 6, 6), bool)
MASK[1:5, 1:5, 1:4] = True


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


def test_the_input_stays_as_it_is() -> None:
    before = CHI.copy()
    reference(CHI, MASK, "mean")
    np.testing.assert_array_equal(CHI, before)


def test_an_unknown_reference_and_an_empty_mask_are_refused() -> None:
    with pytest.raises(ValueError, match="csf"):
        reference(CHI, MASK, "csf")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty"):
        reference(CHI, np.zeros_like(MASK))
