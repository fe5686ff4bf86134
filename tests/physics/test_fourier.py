"""Transforms of real volumes, padding, and boxes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsm_ai.physics.fourier import bounding_box, fast_shape, frequencies, irfftn, like, pad_to, rfftn

SHAPES = [(8, 9, 10), (7, 5, 3), (2, 16, 11)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_transform_and_its_inverse_cancel_for_odd_and_even_shapes(shape: tuple[int, ...]) -> None:
    volume = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    back = irfftn(rfftn(volume), shape)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, volume, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_frequencies_are_those_of_the_half_spectrum(shape: tuple[int, int, int]) -> None:
    voxel_size = (1.0, 0.5, 2.0)
    cycles = 1
    kx = frequencies(shape, voxel_size)[0]
    position = np.arange(shape[0]) * voxel_size[0]
    wave = np.cos(2 * np.pi * cycles * position / (shape[0] * voxel_size[0]))
    spectrum = np.abs(rfftn(np.broadcast_to(wave[:, None, None], shape).astype(np.float32)))
    peak = np.unravel_index(spectrum.argmax(), spectrum.shape)
    assert abs(kx[peak[0], 0, 0]) == pytest.approx(cycles / (shape[0] * voxel_size[0]))
    assert peak[1:] == (0, 0)


@given(st.tuples(*[st.integers(1, 300)] * 3), st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_a_fast_shape_is_large_enough_and_has_small_factors(shape: tuple[int, int, int], margin: int) -> None:
    for wanted, n in zip(shape, fast_shape(shape, margin), strict=True):
        assert n >= wanted + margin
        assert (2 * 3 * 5) ** 20 % n == 0


def test_padding_is_behind_the_volume_and_zero() -> None:
    volume = np.ones((2, 3, 4, 5), np.float32)
    padded = pad_to(volume, (4, 6, 5))
    assert padded.shape == (2, 4, 6, 5)
    assert (padded[:, :3, :4, :5] == 1).all()
    assert padded.sum() == volume.sum()


def test_torch_tensors_give_the_same_and_stay_tensors() -> None:
    torch = pytest.importorskip("torch")
    volume = np.random.default_rng(0).standard_normal((6, 7, 8)).astype(np.float32)
    tensor = torch.from_numpy(volume)
    spectrum = rfftn(tensor)
    assert isinstance(spectrum, torch.Tensor)
    np.testing.assert_allclose(spectrum.numpy(), rfftn(volume), atol=1e-4)
    np.testing.assert_allclose(irfftn(spectrum, (6, 7, 8)).numpy(), volume, atol=1e-5)
    np.testing.assert_array_equal(pad_to(tensor, (9, 9, 9)).numpy(), pad_to(volume, (9, 9, 9)))
    assert isinstance(like(volume, tensor), torch.Tensor)
    assert like(volume, volume) is volume


def test_the_box_of_a_mask_touches_it_on_every_face() -> None:
    mask = np.zeros((9, 9, 9), bool)
    mask[2, 3, 4] = mask[5, 3, 8] = True
    assert bounding_box(mask) == (slice(2, 6), slice(3, 4), slice(4, 9))
    with pytest.raises(ValueError, match="empty"):
        bounding_box(np.zeros((3, 3, 3), bool))


def test_a_margin_of_a_box_ends_at_the_grid() -> None:
    mask = np.zeros((10, 10, 10), bool)
    mask[1, 4:6, 9] = True
    assert bounding_box(mask, 3) == (slice(0, 5), slice(1, 9), slice(6, 10))
