"""The scan and its refusals."""

from __future__ import annotations

import numpy as np
import pytest

from qsm_ai import scan as scan_module
from qsm_ai.scan import Grid, Refusal, Scan

GRID = Grid((4, 5, 6), np.eye(4))


def tree(kind: type[Refusal]) -> list[type[Refusal]]:
    return [kind, *(deeper for below in kind.__subclasses__() for deeper in tree(below))]


@pytest.mark.parametrize("kind", tree(Refusal))
def test_every_refusal_says_what_how_and_which_file(kind: type[Refusal]) -> None:
    error = kind("is wrong.", mend="Mend it.", file="a.nii")
    assert str(error) == "a.nii: is wrong. Mend it."
    assert str(kind("Is wrong.", mend="Mend it.")) == "Is wrong. Mend it."
    assert kind.__name__ in (scan_module.__doc__ or ""), "the tree in the module's docstring is complete"


def test_codes_tell_refusals_apart() -> None:
    codes = [kind.code for kind in tree(Refusal)]
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and " " not in code for code in codes)


@pytest.mark.parametrize("given", [[], ["phase", "local_field"], ["total_field", "local_field"]])
def test_a_scan_starts_from_exactly_one_place(given: list[str]) -> None:
    values = {name: np.zeros(GRID.shape, np.float32) for name in given}
    with pytest.raises(ValueError, match="exactly one"):
        Scan("a", GRID, (0, 0, 1), 3.0, **values)


@pytest.mark.parametrize("degrees", [0, 17, 40, 90])
def test_the_field_direction_is_the_scanners_axis_seen_from_the_voxels(degrees: float) -> None:
    a = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:3, :3] = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    affine[:3, :3] *= (0.5, 1.0, 2.0)
    grid = Grid((4, 5, 6), affine)
    assert grid.voxel_size == pytest.approx((0.5, 1.0, 2.0))
    assert grid.b0_direction == pytest.approx((0, np.sin(a), np.cos(a)))


def test_flipped_axes_flip_the_direction() -> None:
    assert Grid((4, 5, 6), np.diag([-1.0, -1.0, -2.0, 1.0])).b0_direction == pytest.approx((0, 0, -1))
