"""Random heads: susceptibility, signal and relaxation of people that never were."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from qsm_ai.network.geometry import Noise, Triple, Volume, head_coordinates
from qsm_ai.network.inclusions import VEIN, add_calcification, add_lesions, veins
from qsm_ai.network.labelled_brain import labelled_brain
from qsm_ai.network.surroundings import bone_and_air, surroundings
from qsm_ai.network.tissue import invented_brain, iron_r2star, nuclei

EXTENT = (172, 212, 182)
"""Of an adult's head with the air around it: right, front, up, mm."""


@dataclass(frozen=True)
class Head:
    """A head on a grid.

    Attributes
    ----------
    chi : (X, Y, Z) float32, ppm
        Of everything: tissue relative to water, bone, and air.
    brain : (X, Y, Z) bool
        One connected part.
    signal : (X, Y, Z) float32
        Magnitude at echo time zero, white matter near one.
    r2star : (X, Y, Z) float32, 1/s at 3 T
    voxel_size : mm
    """

    chi: Volume
    brain: NDArray[np.bool_]
    signal: Volume
    r2star: Volume
    voxel_size: Triple


def simulate_head(
    rng: np.random.Generator,
    voxel_size: Triple,
    *,
    scale: float = 1.0,
    tilt: NDArray[np.float64] | None = None,
    labels: NDArray[np.int16] | None = None,
    lesions: bool = True,
    calcification: bool = False,
    variety: float = 1.0,
) -> Head:
    """Invent a head.

    Parameters
    ----------
    rng : numpy Generator
    voxel_size : mm
    scale : float
        Size of the head, one being an adult's.
    tilt : (3, 3) rotation or None
        From voxel axes to head axes.
    labels : (L, M, N) int or None
        FreeSurfer labels of a real head (1 mm, right-front-up): its anatomy instead of an invented one.
    lesions : bool
        Whether microbleeds, calcifications and haemorrhages may occur.
    calcification : bool
        Whether the choroid plexus carries one calcification, surely; nothing is drawn for it.
    variety : float
        How far susceptibilities, sizes and places stray from the published ones; zero is the textbook.

    Returns
    -------
    Head
    """
    rotation = np.eye(3) if tilt is None else tilt
    reach = np.abs(rotation.T) @ (np.array(EXTENT) * scale)
    shape = grid_shape(reach, voxel_size)
    c = head_coordinates(shape, voxel_size, rotation)
    noise = Noise(rng, shape, voxel_size)
    width = float(np.mean(voxel_size))
    if labels is None:
        made = invented_brain(rng, c, noise, scale, width, variety)
    else:
        made = labelled_brain(rng, c, noise, scale, labels)
    brain, chi, signal, r2star = made.mask, made.chi, made.signal, made.r2star
    deep, share = nuclei(rng, c, scale, width, variety)
    if labels is None or rng.random() < 0.5:
        chi = chi * (1 - share) + deep * share
        r2star = r2star + iron_r2star(deep, share)
    chi += np.float32(0.004 + 0.008 * rng.random() * variety) * noise.field(rng.uniform(3, 8)) * brain
    chi += np.float32(0.010 * rng.random() * variety) * noise.field(rng.uniform(20, 60)) * brain

    litres = float(brain.sum() * np.prod(voxel_size)) / 1e6
    vessel = veins(rng, brain, voxel_size, int(rng.integers(60, 260) * litres))
    blood = VEIN * (1 + 0.3 * variety * float(rng.standard_normal()))
    chi = chi * (1 - vessel) + blood * vessel
    r2star = r2star + 40 * vessel
    if lesions:
        add_lesions(rng, brain, chi, r2star, voxel_size)
    if calcification:
        add_calcification(c, scale, chi, r2star, voxel_size)

    outside, around = surroundings(rng, c, brain, noise, voxel_size)
    chi = np.where(brain, chi, outside).astype(np.float32)
    signal = np.where(brain, signal, around) * (1 + 0.25 * noise.field(120)).clip(0.3, 1.7)
    return Head(chi, brain, signal.astype(np.float32), np.clip(r2star, 1, 400).astype(np.float32), voxel_size)


def grid_shape(reach: Iterable[float], voxel_size: Triple) -> tuple[int, ...]:
    """Shape of a grid that holds a head and is quick to transform.

    Parameters
    ----------
    reach, voxel_size : mm along each axis

    Returns
    -------
    tuple of int
    """
    return tuple(
        next_fast_len(int(np.ceil(r / v)), real=True) for r, v in zip(reach, voxel_size, strict=True)
    )


def bared(head: Head, skull: float = 6.0) -> Head:
    """The head with nothing but bone and air around its brain, neither of which gives a signal.

    Parameters
    ----------
    head : Head
    skull : mm
        Thickness of the bone.

    Returns
    -------
    Head
    """
    return replace(
        head,
        chi=np.where(head.brain, head.chi, bone_and_air(head.brain, head.voxel_size, skull)),
        signal=np.where(head.brain, head.signal, np.float32(0)),
    )
