"""The warning is silent on scans like those of the calibration, and fires on what they never were."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qsm_ai.physics.inversion import tikhonov
from qsm_ai.reconstruction.calibration import shipped_calibration
from qsm_ai.reconstruction.out_of_distribution import (
    SENTENCES,
    cone_energy,
    familiarity,
    statistics_of,
)
from qsm_ai.reconstruction.quality import physics_check

if TYPE_CHECKING:
    from tests.reconstruction.conftest import Make

    from qsm_ai.reconstruction.evidence import Evidence

Ranges = dict[str, tuple[float, float]]
Direction = tuple[float, float, float]


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


def inverted(evidence: Evidence, b0_direction: Direction) -> Evidence:
    """The evidence of the map that a field gives where B0 is taken to point in some direction."""
    geometry = evidence.voxel_size, b0_direction
    chi = tikhonov(evidence.local_field, evidence.mask, *geometry, 0.0005) * evidence.mask
    check = physics_check(chi, evidence.local_field, evidence.known, *geometry)
    return replace(evidence, b0_direction=b0_direction, chi=chi, residual=check.residual)


def noisy(evidence: Evidence, noise: float) -> Evidence:
    rng = np.random.default_rng(4)
    field = evidence.local_field + noise * rng.standard_normal(evidence.mask.shape) * evidence.mask
    return replace(evidence, local_field=field.astype(np.float32), noise=noise)


@pytest.mark.parametrize("turned", [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.95, 0.312)])
@pytest.mark.parametrize("noise", [0.0005, 0.002, 0.006])
def test_a_wrong_direction_of_b0_is_told_however_noisy_the_field(
    make_evidence: Make, ranges: Ranges, noise: float, turned: Direction
) -> None:
    evidence = noisy(make_evidence(), noise)
    right = inverted(evidence, evidence.b0_direction)
    around = {**ranges, "cone": (cone_energy(right) - 0.5, cone_energy(right) + 0.5)}
    judged = familiarity(statistics_of(inverted(evidence, turned)), around)
    assert "cone" in judged.strange
    assert "direction" in judged.warnings[0]


def test_the_right_direction_is_known_from_little_noise_and_from_much(make_evidence: Make) -> None:
    found = []
    for noise in (0.0005, 0.002, 0.006):
        evidence = noisy(make_evidence(), noise)
        found.append(cone_energy(inverted(evidence, evidence.b0_direction)))
        assert cone_energy(inverted(evidence, (0.0, 1.0, 0.0))) > found[-1] + 1.5
    assert max(found) - min(found) < 1.5


def test_what_a_map_leaves_of_a_bleeding_is_no_wrong_direction(make_evidence: Make) -> None:
    evidence = noisy(make_evidence(), 0.002)
    right = inverted(evidence, evidence.b0_direction)
    left = right.residual.copy()
    left[18:21, 18:21, 18:21] = 1.0
    assert cone_energy(replace(right, residual=left)) < cone_energy(right) + 0.7
    assert cone_energy(inverted(evidence, (0.0, 1.0, 0.0))) > cone_energy(right) + 1.5


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
