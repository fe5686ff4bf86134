"""Phantoms: new heads, a record that agrees with its field, a truth that agrees with its local field."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

pytest.importorskip("qsm_ci")
pytest.importorskip("qsm_forward")

from qsm_ai.benchmark import speed
from qsm_ai.benchmark.cases import CASES, Case
from qsm_ai.benchmark.phantoms import DSEG, ECHO_TIMES, FIRST_TEST_SEED, Phantom, make_phantom
from qsm_ai.network import commands
from qsm_ai.physics.dipole import GYROMAGNETIC_RATIO, forward_field
from qsm_ai.physics.unwrapping import wrap

MOST_EXAMPLES = 100_000
"""Far more than any training makes."""


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_the_quick_set_and_the_full_one_cover_every_axis() -> None:
    axes = {case.axis for case in CASES}
    assert axes == {"reference", "SNR", "tilt", "voxel", "field", "lesion", "heads"}
    for quick in (False, True):
        assert {case.axis for case in CASES if case.quick == quick} == axes


def test_a_sweep_varies_one_thing_alone() -> None:
    reference = next(case for case in CASES if case.axis == "reference" and not case.quick)
    same = {"head", "anatomy", "lesions"}
    for case in CASES:
        if case.axis in {"SNR", "tilt", "field", "lesion"} and not case.quick:
            varied = {k for k, v in vars(case).items() if v != vars(reference)[k]} - {"name", "axis", "value"}
            assert len(varied) == 1
            assert not varied & same


def test_heads_are_neither_those_of_training_nor_of_validation() -> None:
    seeds = {FIRST_TEST_SEED + case.head for case in CASES} | {speed.SEED}
    validation = range(commands.VALIDATION_SEED, commands.VALIDATION_SEED + commands.VALIDATION_EXAMPLES)
    assert seeds.isdisjoint(range(MOST_EXAMPLES))
    assert seeds.isdisjoint(validation)
    assert commands.VALIDATION_SEED >= MOST_EXAMPLES


def test_around_a_bare_brain_nothing_shines_and_the_field_is_that_of_bone_and_air() -> None:
    voxel = (6.0, 6.0, 6.0)
    usual, bare = (make_phantom(Case("coarse", voxel_size=voxel, bare=bare)) for bare in (False, True))
    assert bare.scan.mask is not None
    assert usual.scan.magnitude is not None
    assert bare.scan.magnitude is not None
    np.testing.assert_array_equal(bare.scan.mask, usual.scan.mask)
    np.testing.assert_array_equal(bare.chi, usual.chi)
    outside = ~binary_dilation(bare.scan.mask)
    assert bare.scan.magnitude[0][outside].max() < 0.1 * np.median(bare.scan.magnitude[0][bare.scan.mask])
    assert usual.scan.magnitude[0][outside].max() > 0.3 * np.median(usual.scan.magnitude[0][bare.scan.mask])
    assert (bare.total_field - usual.total_field)[bare.scan.mask].std() > 0.01


def test_the_truth_has_mean_zero_in_the_brain_and_is_zero_outside(coarse: Phantom) -> None:
    assert coarse.scan.mask is not None
    assert abs(coarse.chi[coarse.scan.mask].mean()) < 1e-6
    assert not coarse.chi[~coarse.scan.mask].any()
    assert coarse.chi[coarse.scan.mask].std() > 0.005


def test_the_local_field_is_the_field_of_the_truth(coarse: Phantom) -> None:
    mask = coarse.scan.mask
    assert mask is not None
    ours = forward_field(coarse.chi, coarse.scan.grid.voxel_size, coarse.scan.b0_direction)
    difference = (ours - coarse.local_field)[mask]
    assert np.sqrt((difference**2).mean()) < 0.1 * coarse.local_field[mask].std()


def test_the_field_points_along_the_tilted_b0(coarse: Phantom) -> None:
    mask = coarse.scan.mask
    assert mask is not None
    upright = forward_field(coarse.chi, coarse.scan.grid.voxel_size, (0.0, 0.0, 1.0))
    difference = (upright - coarse.local_field)[mask]
    assert np.sqrt((difference**2).mean()) > 0.2 * coarse.local_field[mask].std()


def test_phase_grows_with_echo_time_by_one_field(coarse: Phantom) -> None:
    """The echoes are equally far apart, so the phase between neighbours is the same for each pair."""
    scan = coarse.scan
    assert scan.phase is not None
    assert scan.mask is not None
    assert np.allclose(np.diff(ECHO_TIMES), ECHO_TIMES[1] - ECHO_TIMES[0])
    steps = wrap(np.diff(scan.phase, axis=0))[:, scan.mask]
    assert np.median(np.abs(wrap(steps[1:] - steps[:-1]))) < 0.1
    assert np.median(np.abs(steps)) > 0.1


def test_phase_is_that_of_the_local_field_and_of_sources_outside_alone(coarse: Phantom) -> None:
    """Phase less that of the local field is harmonic: far smoother, in the brain, than the phase itself."""
    scan = coarse.scan
    assert scan.phase is not None
    assert scan.mask is not None
    rate = 2 * np.pi * GYROMAGNETIC_RATIO * scan.field_strength * (ECHO_TIMES[1] - ECHO_TIMES[0])
    measured = np.exp(1j * (scan.phase[1] - scan.phase[0]))

    def roughness(signal: np.ndarray) -> float:
        inside = scan.mask & np.roll(scan.mask, 1, 0) & np.roll(scan.mask, -1, 0)  # type: ignore[operator]
        bend = np.angle(np.roll(signal, 1, 0) * np.roll(signal, -1, 0) / signal**2)
        return float(np.median(np.abs(bend[inside])))

    assert roughness(measured * np.exp(-1j * rate * coarse.local_field)) < roughness(measured)
    assert roughness(measured * np.exp(1j * rate * coarse.local_field)) > roughness(measured)


@pytest.mark.parametrize("start", ["total field", "local field"])
def test_the_same_phantom_enters_by_its_fields(coarse: Phantom, start: str) -> None:
    scan = coarse.starting_from(start)
    assert scan.phase is None
    assert (scan.local_field is coarse.local_field) == (start == "local field")
    assert (scan.total_field is coarse.total_field) == (start == "total field")
    assert scan.mask is coarse.scan.mask
    assert scan.magnitude is coarse.scan.magnitude


def test_it_enters_by_nothing_else(coarse: Phantom) -> None:
    assert coarse.starting_from("phase") is coarse.scan
    with pytest.raises(ValueError, match="magnitude"):
        coarse.starting_from("magnitude")


def test_deep_nuclei_have_their_published_susceptibility(coarse: Phantom) -> None:
    means = {name: coarse.chi[coarse.regions == n].mean() for name, n in DSEG.items()}
    assert means["dentate"] - means["caudate"] == pytest.approx(0.152 - 0.044, abs=0.03)
    assert means["lesion"] > 0.4
