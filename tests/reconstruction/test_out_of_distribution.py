"""The warning is silent on scans like those of the calibration, and fires on what they never were."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qsm_ai.reconstruction.calibration import shipped_calibration
from qsm_ai.reconstruction.out_of_distribution import (
    SENTENCES,
    cone_energy,
    familiarity,
    statistics_of,
)

if TYPE_CHECKING:
    from tests.reconstruction.conftest import Make

Ranges = dict[str, tuple[float, float]]


@pytest.fixture(scope="module")
def ranges(make_evidence: Make) -> Ranges:
    """As if the made-up brain stood in the middle of all calibration heads."""
    spread = {"cone": 1.5, "asymmetry": 0.3, "volume": 0.4}
    return {
        name: (value - spread.get(name, 0.5), value + spread.get(name, 0.5))
        for name, value in statistics_of(make_evidence()).items()
    }


def strange(ranges: Ranges, evidence: Any) -> tuple[str, ...]:
    return familiarity(statistics_of(evidence), ranges).strange


def test_a_scan_in_the_middle_of_all_is_familiar(make_evidence: Make, ranges: Ranges) -> None:
    judged = familiarity(statistics_of(make_evidence()), ranges)
    assert judged.score == pytest.approx(0, abs=1e-6)
    assert not judged.warnings


@pytest.mark.parametrize(
    ("statistic", "changes"),
    [
        pytest.param("field_strength", {"field_strength": 0.05}, id="a portable scanner"),
        pytest.param("field_strength", {"field_strength": 21.0}, id="a small-animal scanner"),
        pytest.param("finest_voxel", {"voxel_size": (0.1, 0.1, 0.1)}, id="microscopy"),
        pytest.param("coarsest_voxel", {"voxel_size": (1.0, 1.0, 8.0)}, id="thick slices"),
        pytest.param("noise", {"noise": 0.05}, id="mostly noise"),
        pytest.param("contrast", {"scale": 0.15}, id="a liver full of iron, or a phase scaled wrongly"),
    ],
)
def test_what_was_never_covered_is_told(
    make_evidence: Make, ranges: Ranges, statistic: str, changes: dict[str, Any]
) -> None:
    judged = familiarity(statistics_of(make_evidence(**changes)), ranges)
    assert statistic in judged.strange
    assert judged.score > 1
    assert len(judged.warnings) == 1


def test_a_wrong_sign_is_told(make_evidence: Make, ranges: Ranges) -> None:
    evidence = make_evidence()
    flipped = replace(evidence, chi=-evidence.chi, local_field=-evidence.local_field)
    judged = familiarity(statistics_of(flipped), ranges)
    assert judged.strange == ("asymmetry",)
    assert "sign" in judged.warnings[0]


def test_a_wrong_direction_of_b0_is_told(make_evidence: Make, ranges: Ranges) -> None:
    judged = familiarity(statistics_of(make_evidence(b0_direction=(1.0, 0.0, 0.0))), ranges)
    assert "cone" in judged.strange
    assert "direction" in judged.warnings[0]


def test_the_cone_is_empty_for_the_right_direction_alone(make_evidence: Make) -> None:
    assert cone_energy(make_evidence()) < -1.5
    assert cone_energy(make_evidence(b0_direction=(0.0, 1.0, 0.0))) > -0.7


def test_a_scan_that_is_better_than_any_is_no_reason_to_warn(make_evidence: Make, ranges: Ranges) -> None:
    evidence = make_evidence(noise=1e-7)
    quiet = replace(evidence, residual=evidence.residual * np.float32(1e-3))
    assert strange(ranges, quiet) == ()


def test_a_smooth_ball_and_another_size_of_body_are_told(make_evidence: Make, ranges: Ranges) -> None:
    evidence = make_evidence()
    x = np.linspace(-1, 1, 40, dtype=np.float32)
    smooth = np.broadcast_to(x[:, None, None], evidence.chi.shape) * evidence.mask
    assert "extremes" in strange(ranges, replace(evidence, chi=smooth.astype(np.float32) * np.float32(0.05)))
    small = np.zeros_like(evidence.mask)
    small[15:25, 15:25, 15:25] = True
    assert "volume" in strange(ranges, replace(evidence, mask=small, known=small))


def test_an_empty_or_constant_field_gives_numbers_all_the_same(make_evidence: Make) -> None:
    evidence = make_evidence()
    nothing = np.zeros_like(evidence.chi)
    found = statistics_of(replace(evidence, chi=nothing, local_field=nothing, residual=nothing))
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.parametrize("removed", [True, False])
def test_the_shipped_ranges_are_of_known_statistics(removed: bool) -> None:
    ranges = shipped_calibration().ranges_of(removed)
    assert set(ranges) <= set(SENTENCES)
    assert {"field_strength", "finest_voxel", "noise", "contrast", "cone"} <= set(ranges)
    assert all(low <= high for low, high in ranges.values())
    covered = ranges["field_strength"]
    assert covered[0] < np.log(3.0) < covered[1]
