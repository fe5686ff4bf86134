"""Recorded echoes: the physics of the field, the noise that was asked for, phases that wrap and unwrap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.network.anatomy import Head
from qsm_ai.network.geometry import head_coordinates, share_inside
from qsm_ai.network.simulation import Echoes, known_turns, simulate_echoes
from qsm_ai.network.surroundings import AIR
from qsm_ai.physics.dipole import GYROMAGNETIC_RATIO
from qsm_ai.physics.field_mapping import fit_field
from qsm_ai.physics.unwrapping import wrap

SHAPE, VOXEL = (64, 64, 64), (2.0, 2.0, 2.0)
DIRECTION = (0.36, 0.48, 0.8)
NOISELESS = 1e9


def ball_of_water() -> tuple[Head, list[NDArray[np.float32]], NDArray[np.float32]]:
    """A head that is a ball of 45 mm in air, its coordinates, and the distance from its middle."""
    c = head_coordinates(SHAPE, VOXEL, np.eye(3))
    radius = np.sqrt(c[0] ** 2 + c[1] ** 2 + c[2] ** 2)
    brain = radius < 45
    chi = np.where(brain, 0, AIR).astype(np.float32)
    signal = brain.astype(np.float32)
    return Head(chi, brain, signal, np.full(SHAPE, 25, np.float32), VOXEL), c, radius


def record(head: Head, seed: int = 3, **options: object) -> Echoes:
    return simulate_echoes(np.random.default_rng(seed), head, b0_direction=DIRECTION, **options)


def signal_of(echoes: Echoes) -> NDArray[np.complex128]:
    return echoes.magnitude * np.exp(1j * echoes.phase.astype(np.float64))


@pytest.fixture(scope="module")
def noiseless(head: Head) -> Echoes:
    return record(head, snr=NOISELESS)


def test_a_ball_of_susceptibility_makes_the_field_of_a_dipole() -> None:
    water, c, radius = ball_of_water()
    centre_radius, chi = 10.0, 0.5
    ball = np.float32(chi) * share_inside(centre_radius - radius, 2.0)
    field = record(replace(water, chi=water.chi + ball)).true_field - record(water).true_field
    cosine = sum(x * d for x, d in zip(c, DIRECTION, strict=True)) / np.maximum(radius, 1e-3)
    expected = chi / 3 * (centre_radius / np.maximum(radius, 1e-3)) ** 3 * (3 * cosine**2 - 1)
    around = (radius > 1.5 * centre_radius) & water.brain
    wrong = (field - field[around].mean()) - (expected - expected[around].mean())
    assert np.abs(wrong[around]).max() < 0.08 * np.abs(expected[around]).max()
    inside = radius < 0.6 * centre_radius
    assert np.abs((field - field[around].mean())[inside]).max() < 0.05 * chi


def test_a_ball_of_water_in_air_has_no_field_of_its_own() -> None:
    water, _, radius = ball_of_water()
    field = record(water).true_field
    assert np.abs(field[radius < 35]).max() < 0.03 * AIR


def test_the_true_field_has_zero_mean_in_the_brain(noiseless: Echoes, head: Head) -> None:
    assert noiseless.true_field[head.brain].mean() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("snr", [20.0, 200.0])
def test_noise_is_as_strong_as_asked_in_both_parts_and_new_in_each_echo(snr: float) -> None:
    water, _, _ = ball_of_water()
    times = (0.004, 0.010)
    noisy, clean = (signal_of(record(water, echo_times=times, snr=s)) for s in (snr, NOISELESS))
    noise = noisy - clean
    for part in (noise.real, noise.imag):
        assert part.std() == pytest.approx(1 / snr, rel=0.01)
        assert part.mean() == pytest.approx(0, abs=0.02 / snr)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("field_strength", [1.5, 3.0, 7.0])
def test_the_magnitude_decays_with_r2star_of_that_field(field_strength: float) -> None:
    water, _, radius = ball_of_water()
    echoes = record(water, echo_times=(0.004, 0.024), snr=NOISELESS, field_strength=field_strength)
    ratio = echoes.magnitude[1] / np.maximum(echoes.magnitude[0], 1e-6)
    expected = np.exp(-0.020 * 25 * field_strength / 3)
    assert np.median(ratio[radius < 20]) == pytest.approx(expected, rel=0.03)


def test_signal_is_lost_where_the_field_is_steep() -> None:
    water, _, radius = ball_of_water()
    loaded = replace(water, chi=np.where(radius < 6, np.float32(3), water.chi))
    near = (radius > 6) & (radius < 10)
    magnitudes = [record(h, echo_times=(0.02,), snr=NOISELESS).magnitude[0][near] for h in (loaded, water)]
    assert magnitudes[0].mean() < 0.7 * magnitudes[1].mean()


def test_phases_are_wrapped_and_of_the_right_shape(noiseless: Echoes, head: Head) -> None:
    shape = (len(noiseless.echo_times), *head.chi.shape)
    assert noiseless.phase.shape == noiseless.magnitude.shape == shape
    assert noiseless.phase.dtype == noiseless.magnitude.dtype == np.float32
    assert np.abs(noiseless.phase).max() <= np.float32(np.pi)
    turns = np.round((known_turns(noiseless) - noiseless.phase) / (2 * np.pi))
    assert np.abs(turns[-1][head.brain]).max() >= 1


def test_the_same_seed_is_the_same_recording(noiseless: Echoes, head: Head) -> None:
    again = record(head, snr=NOISELESS)
    np.testing.assert_array_equal(again.phase, noiseless.phase)
    np.testing.assert_array_equal(again.magnitude, noiseless.magnitude)


def test_known_turns_add_whole_turns_only(head: Head) -> None:
    echoes = record(head, snr=30)
    added = (known_turns(echoes) - echoes.phase) / (2 * np.pi)
    np.testing.assert_allclose(added, np.round(added), atol=1e-4)


def test_known_turns_leave_the_field_and_the_coil(noiseless: Echoes, head: Head) -> None:
    rate = 2 * np.pi * GYROMAGNETIC_RATIO * noiseless.field_strength
    clear = head.brain & (noiseless.magnitude[-1] > 0.01)
    assert clear.sum() > 0.5 * head.brain.sum()
    truth = np.stack([noiseless.true_field * rate * t for t in noiseless.echo_times])
    offset = (known_turns(noiseless) - truth)[:, clear]
    # The coil's phase is the same in every echo, and never jumps.
    assert np.abs(offset - offset[0]).max() < 0.01
    assert np.ptp(offset[0]) < 2 * np.pi
    assert np.abs(wrap(offset[0] - (noiseless.phase[0] - truth[0])[clear])).max() < 0.01


def test_the_field_map_of_a_clean_recording_is_the_true_field(noiseless: Echoes, head: Head) -> None:
    fit = fit_field(known_turns(noiseless), noiseless.magnitude, head.brain, noiseless.echo_times, 3.0)
    clear = head.brain & (noiseless.magnitude[-1] > 0.01)
    assert np.abs(fit.total_field - noiseless.true_field)[clear].max() < 1e-3
