"""Masks of heads whose brains are known."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.physics.masking import brain_mask


@dataclass(frozen=True)
class Head:
    phase: NDArray[np.float32]
    magnitude: NDArray[np.float32]
    brain: NDArray[np.bool_]
    scalp: NDArray[np.bool_]
    voxel_size: tuple[float, float, float]
    echo_times: tuple[float, ...]


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def test_the_brain_is_found_without_scalp_and_skull(head: Head) -> None:
    mask = brain_mask(head.magnitude, head.phase, head.echo_times, head.voxel_size)
    assert mask.dtype == bool
    assert dice(mask, head.brain) > 0.97
    assert (mask & head.scalp).sum() < 0.005 * head.scalp.sum()


def test_the_phase_alone_is_enough(head: Head) -> None:
    mask = brain_mask(None, head.phase, head.echo_times, head.voxel_size)
    assert dice(mask, head.brain) > 0.93
    assert (mask & head.scalp).sum() < 0.02 * head.scalp.sum()


@pytest.mark.parametrize("echoes", [1, 2])
def test_one_or_two_echoes_are_enough(head: Head, echoes: int) -> None:
    series = slice(0, echoes)
    mask = brain_mask(head.magnitude[series], head.phase[series], head.echo_times[series], head.voxel_size)
    assert dice(mask, head.brain) > 0.9


def test_the_mask_is_one_piece_without_holes(head: Head) -> None:
    from scipy.ndimage import label

    magnitude = head.magnitude.copy()
    magnitude[:, 30:33, 30:33, 30:33] *= 0.02  # a calcification
    mask = brain_mask(magnitude, head.phase, head.echo_times, head.voxel_size)
    assert mask[30:33, 30:33, 30:33].all()
    assert label(mask)[1] == 1
    assert label(~mask)[1] == 1


@pytest.mark.parametrize("factor", [1e-6, 1e4])
def test_the_unit_of_the_magnitude_does_not_count(head: Head, factor: float) -> None:
    arguments = head.phase, head.echo_times, head.voxel_size
    one = brain_mask(head.magnitude, *arguments)
    other = brain_mask(head.magnitude * np.float32(factor), *arguments)
    assert dice(one, other) > 0.999


def test_a_background_that_was_set_to_zero_is_no_brain(head: Head) -> None:
    bright = head.magnitude[0] > 0.2 * np.median(head.magnitude[0][head.brain])
    magnitude, phase = head.magnitude * bright, head.phase * bright
    for given in (magnitude, None):
        mask = brain_mask(given, phase, head.echo_times, head.voxel_size)
        assert dice(mask, head.brain) > 0.93


@pytest.mark.parametrize("voxel_size", [(0.47, 0.47, 1.0), (1.0, 1.0, 1.0)])
def test_a_crop_that_the_brain_fills_is_all_mask(head: Head, voxel_size: tuple[float, float, float]) -> None:
    crop = (slice(None), slice(22, 43), slice(20, 44), slice(24, 41))
    magnitude, phase = head.magnitude[crop], head.phase[crop]
    assert head.brain[crop[1:]].all()
    assert brain_mask(magnitude, phase, head.echo_times, voxel_size).mean() > 0.99
    assert brain_mask(None, phase, head.echo_times, voxel_size).mean() > 0.99


def test_fine_voxels_are_searched_coarsely_and_answered_finely(head: Head) -> None:
    fine = [np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)[:, 1:] for x in (head.magnitude, head.phase)]
    mask = brain_mask(*fine, head.echo_times, (0.5, 0.5, 1.0))
    assert mask.shape == fine[0].shape[1:]
    brain = np.repeat(np.repeat(head.brain, 2, axis=0), 2, axis=1)[1:]
    assert dice(mask, brain) > 0.93


def test_where_nothing_was_measured_the_mask_is_empty() -> None:
    nothing = np.zeros((3, 12, 12, 12), np.float32)
    assert not brain_mask(nothing, nothing, (0.01, 0.02, 0.03), (1, 1, 1)).any()


def test_disagreeing_echoes_are_refused(head: Head) -> None:
    with pytest.raises(ValueError, match="disagree"):
        brain_mask(head.magnitude[:2], head.phase, head.echo_times, head.voxel_size)
    with pytest.raises(ValueError, match="disagree"):
        brain_mask(None, head.phase, head.echo_times[:2], head.voxel_size)


def test_a_neck_that_holds_more_than_the_brain_is_not_taken_for_it() -> None:
    x, y, z = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in (60, 60, 90)), indexing="ij")
    brain = (x - 30) ** 2 + (y - 30) ** 2 + (z - 62) ** 2 < 20**2
    neck = ((x - 30) ** 2 + (y - 30) ** 2 < 22**2) & (z < 30)
    assert neck.sum() > brain.sum()
    rng = np.random.default_rng(3)
    magnitude = np.where(brain | neck, 1.0, 0.0)[None].repeat(3, axis=0)
    magnitude = np.abs(magnitude + 0.01 * rng.standard_normal(magnitude.shape)).astype(np.float32)
    phase = np.where(magnitude > 0.5, 0.1, rng.uniform(-np.pi, np.pi, magnitude.shape)).astype(np.float32)
    mask = brain_mask(magnitude, phase, (0.004, 0.012, 0.020), (2.0, 2.0, 2.0))
    assert mask[brain].mean() > 0.95
    assert not mask[neck].any()


def test_bone_that_the_smoothed_signal_reaches_into_is_left_out() -> None:
    x, y, z = np.meshgrid(*(np.arange(48, dtype=np.float64) - 23.5,) * 3, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    brain = radius < 16
    magnitude = np.where(brain, 1.0, 0.08) * (radius < 21)
    rng = np.random.default_rng(4)
    echoes = np.abs(magnitude[None] + 0.01 * rng.standard_normal((3, *brain.shape))).astype(np.float32)
    phase = np.where(radius < 21, 0.1, rng.uniform(-np.pi, np.pi, echoes.shape)).astype(np.float32)
    mask = brain_mask(echoes, phase, (0.004, 0.012, 0.020), (2.0, 2.0, 2.0))
    assert np.count_nonzero(mask & ~brain) < 0.002 * np.count_nonzero(brain)
    assert mask[brain].mean() > 0.97
