"""A mask that was given: read, and refused where it is none."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from qsm_ai.io.nifti import Image, read_image, require_same_grid
from qsm_ai.io.source import Limits, SourceFile
from qsm_ai.scan import MaskRefusal

SMALLEST_MASK = 100
"""Voxels."""

MANY_VALUES = 30
"""Distinct whole numbers above which a mask is looked at as an image."""

EQUAL_NEIGHBOURS = 0.25
"""Share of neighbours of one value: labels come in pieces (above 0.5), a noisy image has a tenth at most."""

FULL_SCALE, STEPS = 255, 100
"""The highest value and the least number of values of a probability that was stored in 8 bits."""

CORNER = 8
"""Into so many parts is an axis divided, the first and last of which belong to corners."""

DARK, BRIGHT = 0.15, 95
"""A corner is air if its mean magnitude is below this share of this percentile of the image."""

NOISE = 0.5
"""A corner is air if the steps of the phase from voxel to voxel have a mean resultant below this."""

HOLE = 0.1
"""Share of the image from which what a mask leaves out may be the brain."""

CORNERS = 6
"""Of the eight, so many have to be air."""

TO_GIVE = "Give an image with 1 in the brain and 0 elsewhere."


def read_mask(source: SourceFile, reference: Image, limits: Limits) -> NDArray[np.bool_]:
    """Read a mask on the grid of an image.

    Parameters
    ----------
    source : SourceFile
        Values up to 1 count from 0.5 on (a probability), whole numbers from 1 on (labels).
    reference : Image
    limits : Limits

    Returns
    -------
    (X, Y, Z) bool

    Raises
    ------
    MaskRefusal
        If it is empty, or its values are those of another image.
    """
    image = read_image(source, limits)
    require_same_grid(reference, [image], "The mask and the images")
    if image.data.shape[0] != 1:
        raise MaskRefusal("holds several volumes.", mend="Give one 3D mask.", file=source.name)
    values = np.nan_to_num(image.data[0], nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    is_whole = bool((values == np.round(values)).all())
    if low < -1e-3 or (high > 1.001 and not is_whole) or (is_whole and _is_picture(values)):
        raise MaskRefusal(
            "is no mask: its values are neither 0 and 1, nor a probability, nor labels.",
            mend=TO_GIVE,
            file=source.name,
        )
    if is_whole and high == FULL_SCALE and np.unique(values).size > STEPS:
        raise MaskRefusal(
            f"has values from 0 to {FULL_SCALE}, which may be a probability or labels.",
            mend=f"Divide a probability by {FULL_SCALE}, or give 1 in the brain and 0 elsewhere.",
            file=source.name,
        )
    mask: NDArray[np.bool_] = values > 0.5
    count = int(np.count_nonzero(mask))
    if count < SMALLEST_MASK:
        raise MaskRefusal(
            "is empty." if count == 0 else f"holds {count} voxels only.",
            mend="Give a mask of the brain, or leave it out.",
            file=source.name,
        )
    return mask


def require_inside_out(
    mask: NDArray[np.bool_],
    file: str,
    *,
    magnitude: NDArray[np.float32] | None = None,
    phase: NDArray[np.float32] | None = None,
    field: NDArray[np.float32] | None = None,
) -> None:
    """Refuse a mask of everything, and one that leaves out the brain instead of the air.

    A scan that was cropped to nothing but tissue may have a mask of everything. That is why there must be
    air in the corners of the mask: darkness, noise, or exact zeros.

    Parameters
    ----------
    mask : (X, Y, Z) bool
    file : str
    magnitude : (E, X, Y, Z)
        Decides where it is there.
    phase : (E, X, Y, Z), rad
    field : (X, Y, Z)

    Raises
    ------
    MaskRefusal
    """
    depths = [max(1, n // CORNER) for n in mask.shape]
    corners = [
        tuple(slice(0, d) if first else slice(-d, None) for d, first in zip(depths, ends, strict=True))
        for ends in product((True, False), repeat=3)
    ]
    if not all(mask[corner].all() for corner in corners):
        return
    if magnitude is not None:
        bright = DARK * float(np.percentile(magnitude[0], BRIGHT))
        air = [float(magnitude[0][corner].mean()) < bright for corner in corners]
    elif phase is not None:
        noise = NOISE
        if np.count_nonzero(~mask) > HOLE * mask.size:
            # Where the phase is smoother in what is left out, the rest is not the brain.
            noise = max(noise, _coherence(phase[0], ~mask))
        air = [_coherence(phase[0][corner]) < noise for corner in corners]
    else:
        air = [field is not None and not field[corner].any() for corner in corners]
    if sum(air) < CORNERS:
        return
    raise MaskRefusal(
        "covers the whole image, air and all."
        if mask.all()
        else "covers the air in all corners of the image: is it inverted?",
        mend=TO_GIVE,
        file=file,
    )


def _is_picture(values: NDArray[np.float32]) -> bool:
    """Whole numbers that change from voxel to voxel, as in a magnitude and unlike in labels."""
    if np.unique(values).size <= MANY_VALUES:
        return False
    one, other = values[:-1], values[1:]
    both = (one > 0.5) & (other > 0.5)
    equal = np.count_nonzero((one == other) & both)
    return bool(equal < EQUAL_NEIGHBOURS * np.count_nonzero(both))


def _coherence(phase: NDArray[np.float32], where: NDArray[np.bool_] | None = None) -> float:
    """Mean resultant of the steps from voxel to voxel: near 1 in tissue, near 0 in noise and in zeros."""
    if not phase.any():
        return 0.0
    found = []
    for axis in range(3):
        steps = np.exp(1j * np.diff(phase, axis=axis))
        if where is not None:
            along = np.moveaxis(where, axis, 0)
            steps = np.moveaxis(steps, axis, 0)[along[:-1] & along[1:]]
        if steps.size:
            found.append(abs(steps.mean()))
    return float(np.mean(found)) if found else 1.0
