"""What is given as a mask is one: not a magnitude, not its own inverse, not everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from qsm_ai.io.masks import read_mask as read
from qsm_ai.io.masks import require_inside_out
from qsm_ai.io.nifti import read_image
from qsm_ai.io.source import Limits, SourceFile
from qsm_ai.scan import MaskRefusal

if TYPE_CHECKING:
    from tests.conftest import Phantom


def image(volume: np.ndarray, phantom: Phantom, name: str = "m.nii") -> SourceFile:
    return SourceFile(name, nib.Nifti1Image(volume, phantom.affine).to_bytes())


def read_mask(volume: np.ndarray, phantom: Phantom) -> np.ndarray:
    reference = read_image(image(phantom.chi, phantom, "p.nii"), Limits())
    return read(image(volume, phantom), reference, Limits())


def labels_of(phantom: Phantom, edge: int) -> np.ndarray:
    """Cubes of their own numbers, as an atlas of many regions has them."""
    x, y, z = (i // edge for i in np.indices(phantom.mask.shape))
    return np.where(phantom.mask, 1 + x + 20 * y + 400 * z, 0).astype(np.int16)


def noisy(phantom: Phantom, brightest: float) -> np.ndarray:
    noise = np.random.default_rng(3).normal(0, 0.02, phantom.mask.shape)
    tissue = 0.6 + 0.2 * np.sin(np.indices(phantom.mask.shape).sum(0) / 9)
    return np.round(brightest * np.clip(np.where(phantom.mask, tissue, 0.02) + noise, 0, 1)).astype(np.int16)


@pytest.mark.parametrize("brightest", [255, 2000])
@pytest.mark.parametrize("stripped", [False, True])
def test_a_magnitude_in_whole_numbers_is_no_mask(phantom: Phantom, brightest: int, stripped: bool) -> None:
    magnitude = noisy(phantom, brightest)
    with pytest.raises(MaskRefusal, match=r"m\.nii: is no mask"):
        read_mask(magnitude * phantom.mask if stripped else magnitude, phantom)


@pytest.mark.parametrize("edge", [3, 4, 8])
def test_labels_are_a_mask_however_many_there_are(phantom: Phantom, edge: int) -> None:
    np.testing.assert_array_equal(read_mask(labels_of(phantom, edge), phantom), phantom.mask)


def test_a_probability_in_8_bits_could_be_labels(phantom: Phantom) -> None:
    x, y, z = np.indices(phantom.chi.shape)
    distance = np.sqrt((x - 24) ** 2 + (y - 22) ** 2 + (z - 20) ** 2)
    probability = np.clip(3.5 - distance / 5, 0, 1)
    with pytest.raises(MaskRefusal, match="Divide a probability by 255"):
        read_mask(np.round(255 * probability).astype(np.uint8), phantom)
    np.testing.assert_array_equal(
        read_mask(probability.astype(np.float32), phantom), probability.astype(np.float32) > 0.5
    )


def with_air(phantom: Phantom) -> np.ndarray:
    """The phase, with nothing but noise outside."""
    noise = np.random.default_rng(5).uniform(-np.pi, np.pi, phantom.phase.shape)
    return np.where(phantom.mask, phantom.phase, noise).astype(np.float32)


Given = Callable[["Phantom"], dict[str, np.ndarray]]
GIVEN: dict[str, Given] = {
    "magnitude": lambda p: {"magnitude": p.magnitude, "phase": p.phase},
    "phase": lambda p: {"phase": with_air(p)},
    "phase without a background": lambda p: {"phase": p.phase * p.mask},
    "field": lambda p: {"field": p.local_field},
}  # fmt: skip


@pytest.mark.parametrize("known", GIVEN)
@pytest.mark.parametrize(("make", "words"), [(np.ones_like, "whole image"), (np.invert, "inverted")])
def test_a_mask_of_air_is_refused(
    known: str, make: Callable[[np.ndarray], np.ndarray], words: str, phantom: Phantom
) -> None:
    with pytest.raises(MaskRefusal, match=words) as caught:
        require_inside_out(make(phantom.mask), "m.nii", **GIVEN[known](phantom))
    assert caught.value.file == "m.nii"
    require_inside_out(phantom.mask, "m.nii", **GIVEN[known](phantom))


def test_an_inverted_mask_is_told_where_the_air_is_not_all_noise(phantom: Phantom) -> None:
    noise = np.random.default_rng(6).normal(0, 0.5, phantom.phase.shape) * ~phantom.mask
    ghosts = np.angle(np.exp(1j * (phantom.phase + noise))).astype(np.float32)
    with pytest.raises(MaskRefusal, match="inverted"):
        require_inside_out(~phantom.mask, "m.nii", phase=ghosts)


def test_a_crop_with_a_hole_of_noise_is_no_inverted_mask(phantom: Phantom) -> None:
    middle = np.s_[..., 15:33, 13:31, 11:29]
    mask = np.ones((18, 18, 18), bool)
    mask[4:14, 4:14, 4:14] = False
    noise = np.random.default_rng(6).uniform(-3, 3, (3, 18, 18, 18))
    phase = np.where(mask, phantom.phase[middle], noise).astype(np.float32)
    require_inside_out(mask, "m.nii", phase=phase)


@pytest.mark.parametrize("known", ["magnitude", "phase", "field"])
def test_a_crop_of_nothing_but_tissue_may_be_masked_as_a_whole(known: str, phantom: Phantom) -> None:
    middle = np.s_[..., 15:33, 13:31, 11:29]
    given = {name: volume[middle] for name, volume in GIVEN[known](phantom).items()}
    require_inside_out(np.ones((18, 18, 18), bool), "m.nii", **given)
