"""Regions that are measured."""

from __future__ import annotations

import numpy as np
import pytest

from qsm_ai.api.statistics import sphere
from qsm_ai.io.canonical import Canonical


def test_a_sphere_is_round_in_millimetres() -> None:
    volume = Canonical(np.zeros((21, 21, 21), np.float32), (1.0, 1.0, 2.0))
    inside = sphere(volume, (10, 10, 10), 4.0)
    assert [int(np.ptp(np.flatnonzero(inside.any(axis=axes)))) for axes in ((1, 2), (0, 2), (0, 1))] == [
        8,
        8,
        4,
    ]
    assert inside.sum() * 2.0 == pytest.approx(4 / 3 * np.pi * 4**3, rel=0.1)
