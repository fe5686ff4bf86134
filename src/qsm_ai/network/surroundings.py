"""What lies around an invented brain: meninges, bone, scalp, neck, sinuses, ear canals and air."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, zoom

from qsm_ai.network.geometry import Coordinates, Noise, Triple, Volume, ellipsoid
from qsm_ai.network.tissue import CSF

AIR, BONE = 9.2, -2.1
"""Susceptibility relative to soft tissue, ppm."""


def surroundings(
    rng: np.random.Generator, c: Coordinates, brain: NDArray[np.bool_], noise: Noise, voxel_size: Triple
) -> tuple[Volume, Volume]:
    """Lay bone, scalp, sinuses, ear canals and air around a brain.

    Parameters
    ----------
    rng : numpy Generator
    c : three (X, Y, Z) float32 volumes
        Head coordinates, mm.
    brain : (X, Y, Z) bool
    noise : Noise
    voxel_size : mm

    Returns
    -------
    chi : (X, Y, Z) float32, ppm
        Zero in soft tissue; meant for voxels outside the brain.
    signal : (X, Y, Z) float32
        Magnitude at echo time zero, zero in air; meant for voxels outside the brain.
    """
    distance = _distance_to_hull(brain, voxel_size) + 1.0 * noise.field(20)
    dura, skull = rng.uniform(1.5, 4.0), rng.uniform(5, 9)
    skin = dura + skull + rng.uniform(4, 8)
    neck = (c[2] < -45) & (np.hypot(c[0], c[1] + 20) < rng.uniform(55, 70))
    head = (distance < skin) | brain | neck
    chi = np.zeros(brain.shape, np.float32)
    bone = (distance > dura) & (distance < dura + skull)
    chi[bone] = BONE + 0.15 * rng.standard_normal()
    signal = np.where(head, np.float32(rng.uniform(0.5, 1.1)), np.float32(0))
    gap = (distance < dura) & ~brain
    signal[gap] = rng.uniform(0.3, 0.8)
    chi[gap] = CSF
    signal[bone] = 0.05
    cavities: list[tuple[Triple, Triple]] = [
        ((0, rng.uniform(55, 75), rng.uniform(-38, -22)), (22, 22, 12)),
        ((-45, -12 + 5 * rng.standard_normal(), -38), (16, 6, 6)),
        ((45, -12 + 5 * rng.standard_normal(), -38), (16, 6, 6)),
        ((0, rng.uniform(72, 84), rng.uniform(-5, 12)), (18, 6, 10)),
    ]
    keep_off = rng.uniform(1.5, 6)
    for centre, (right, front, up) in cavities:
        if rng.random() < 0.85:
            size = rng.uniform(0.6, 1.2)
            hole = ellipsoid(c, centre, (size * right, size * front, size * up)) > 2 * rng.standard_normal()
            hole &= (distance > keep_off) & head & ~brain
            chi[hole] = AIR
            signal[hole] = 0
    chi[~head] = AIR
    return chi, signal.astype(np.float32)


def bone_and_air(brain: NDArray[np.bool_], voxel_size: Triple, skull: float = 6.0) -> Volume:
    """Lay nothing but a shell of bone, and air beyond it, around a brain.

    Parameters
    ----------
    brain : (X, Y, Z) bool
    voxel_size : mm
    skull : mm
        Thickness of the bone, from a hull of the brain outwards.

    Returns
    -------
    (X, Y, Z) float32, ppm
        Meant for voxels outside the brain; neither gives a signal.
    """
    return np.where(_distance_to_hull(brain, voxel_size) < skull, np.float32(BONE), np.float32(AIR))


def _distance_to_hull(brain: NDArray[np.bool_], voxel_size: Triple) -> Volume:
    """Distance (X, Y, Z), mm, to a hull of the brain, zero inside, reckoned at half the resolution.

    The skull spans the fissures: the hull has no gaps narrower than 20 mm.
    """
    spacing = [2 * v for v in voxel_size]
    near = distance_transform_edt(~np.pad(brain[::2, ::2, ::2], 8), sampling=spacing) < 10
    hull = distance_transform_edt(near, sampling=spacing) > 10
    distance = distance_transform_edt(~hull, sampling=spacing)[8:-8, 8:-8, 8:-8].astype(np.float32)
    ratio = [n / m for n, m in zip(brain.shape, distance.shape, strict=True)]
    return np.asarray(zoom(distance, ratio, order=1))
