"""Faults change what they say and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from qsm_ai.benchmark.faults import OFF_DEGREES, with_wrong_direction, with_wrong_sign
from qsm_ai.scan import Grid, Scan

FIELD = np.arange(8, dtype=np.float32).reshape(2, 2, 2)


def scan(direction: tuple[float, float, float] = (0.0, 0.0, 1.0), **measured: object) -> Scan:
    return Scan(
        name="sub-1",
        grid=Grid((2, 2, 2), np.eye(4)),
        b0_direction=direction,
        field_strength=3.0,
        mask=np.ones((2, 2, 2), dtype=bool),
        **measured,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_direction_is_wrong_by_as_much_as_is_said(seed: int) -> None:
    x, y, z = Rotation.random(random_state=seed).as_matrix()[2]
    right = scan((float(x), float(y), float(z)), local_field=FIELD)
    wrong = with_wrong_direction(right)
    cosine = np.dot(wrong.b0_direction, right.b0_direction)
    assert np.rad2deg(np.arccos(cosine)) == pytest.approx(OFF_DEGREES)
    assert np.linalg.norm(wrong.b0_direction) == pytest.approx(1)
    assert wrong.local_field is FIELD


@pytest.mark.parametrize("what", ["phase", "total_field", "local_field"])
def test_the_sign_of_what_was_measured_is_wrong(what: str) -> None:
    volume = FIELD[None] if what == "phase" else FIELD
    magnitude = np.ones_like(volume)
    wrong = with_wrong_sign(scan(**{what: volume, "magnitude": magnitude}))
    np.testing.assert_array_equal(getattr(wrong, what), -volume)
    assert wrong.magnitude is magnitude
    assert wrong.b0_direction == (0.0, 0.0, 1.0)
