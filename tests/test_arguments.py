"""Several values after one flag, as people type them."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsm_ai.arguments import give_back, spread


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        ("p.nii --te-ms 4 12 20 28 -o d", "p.nii --te-ms 4 --te-ms 12 --te-ms 20 --te-ms 28 -o d"),
        ("--te-ms 4 12 p.nii", "--te-ms 4 --te-ms 12 p.nii"),
        ("--te-ms=4,12,20 p.nii", "--te-ms 4 --te-ms 12 --te-ms 20 p.nii"),
        ("--te-ms 4,12 20 p.nii", "--te-ms 4 --te-ms 12 --te-ms 20 p.nii"),
        ("--te-ms 4 --te-ms 12", "--te-ms 4 --te-ms 12"),
        ("--te-ms -4 12", "--te-ms -4 --te-ms 12"),
        ("--te-ms 1e1", "--te-ms 1e1"),
        ("--te-ms four", "--te-ms four"),
        ("--te-ms --b0 3", "--te-ms --b0 3"),
        ("p1 p2 --magnitude m1 m2 --mask k", "p1 p2 --magnitude m1 --magnitude m2 --mask k"),
        ("--sidecar a.json b.JSON p.nii", "--sidecar a.json --sidecar b.JSON p.nii"),
        ("--sidecar a.txt p.nii", "--sidecar a.txt p.nii"),
        ("--magnitude=m1 p1", "--magnitude m1 p1"),
        ("--magnitude m1 -- p1 --te-ms 4 5", "--magnitude m1 -- p1 --te-ms 4 5"),
        ("--b0-direction 0 -0.1 1 p.nii", "--b0-direction 0 -0.1 1 p.nii"),
        ("--b0-direction=0,0,1 p.nii", "--b0-direction 0 0 1 p.nii"),
        ("--b0-direction 0,0,1 p.nii", "--b0-direction 0 0 1 p.nii"),
        ("p.nii --b0 3", "p.nii --b0 3"),
    ],
)
def test_values_are_spread(typed: str, parsed: str) -> None:
    assert spread(typed.split()) == parsed.split()


def test_file_names_with_spaces_and_equals_signs_stay_whole() -> None:
    assert spread(["--magnitude", "my scan=1.nii"]) == ["--magnitude", "my scan=1.nii"]


@pytest.mark.parametrize(
    ("swallowed", "phase", "magnitude"),
    [
        (["mag.nii", "phase.nii"], ["phase.nii"], ["mag.nii"]),
        (["a.nii", "b.nii"], ["b.nii"], ["a.nii"]),
        (
            ["x_part-mag_M.nii", "y_part-mag_M.nii", "x_part-phase_M.nii", "y_part-phase_M.nii"],
            ["x_part-phase_M.nii", "y_part-phase_M.nii"],
            ["x_part-mag_M.nii", "y_part-mag_M.nii"],
        ),
        (["a.nii", "b.nii", "c.nii"], [], ["a.nii", "b.nii", "c.nii"]),
        ([], [], []),
    ],
)
def test_a_phase_that_the_magnitude_flag_swallowed_is_given_back(
    swallowed: list[str], phase: list[str], magnitude: list[str]
) -> None:
    found = give_back([Path(f) for f in swallowed])
    assert found == ([Path(f) for f in phase], [Path(f) for f in magnitude])
