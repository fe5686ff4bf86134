"""Shape and tissues of invented brains, and the deep nuclei of all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsm_ai.network.geometry import (
    Coordinates,
    Noise,
    Triple,
    Volume,
    box_around,
    ellipsoid,
    random_rotation,
    share_inside,
)
from qsm_ai.physics.morphology import largest_component

WHITE, GREY, CSF = -0.03, 0.02, 0.019
"""Published susceptibilities relative to water, ppm."""

NUCLEI: dict[str, tuple[float, Triple, Triple]] = {
    "caudate": (0.044, (13, 16, 12), (5, 13, 8)),
    "putamen": (0.038, (26, 6, 4), (5, 15, 9)),
    "pallidum": (0.130, (19, 3, 0), (4, 9, 6)),
    "thalamus": (0.020, (11, -12, 6), (8, 13, 8)),
    "red nucleus": (0.100, (5, -17, -9), (3.2, 3.5, 4)),
    "substantia nigra": (0.111, (10, -14, -13), (2.6, 7, 4)),
    "dentate": (0.152, (15, -52, -33), (5, 8, 4)),
}
"""Published χ (ppm), centre and half axes (mm: right, front, up from the middle of the brain)."""


@dataclass(frozen=True)
class Brain:
    """A brain on a grid, before nuclei, vessels and lesions.

    Attributes
    ----------
    mask : (X, Y, Z) bool
        One connected part.
    chi : (X, Y, Z) float32, ppm
        Zero outside the mask.
    signal : (X, Y, Z) float32
        Magnitude at echo time zero, white matter near one.
    r2star : (X, Y, Z) float32, 1/s at 3 T
    """

    mask: NDArray[np.bool_]
    chi: Volume
    signal: Volume
    r2star: Volume


def invented_brain(
    rng: np.random.Generator, c: Coordinates, noise: Noise, scale: float, width: float, variety: float
) -> Brain:
    """Invent a brain.

    Parameters
    ----------
    rng : numpy Generator
    c : three (X, Y, Z) float32 volumes
        Head coordinates, mm.
    noise : Noise
    scale : float
        Size of the head, one being an adult's.
    width : mm
        Width of tissue borders: the partial volume of a voxel.
    variety : float
        How far susceptibilities stray from the published ones.

    Returns
    -------
    Brain
    """

    def stray(spread: float) -> float:
        return variety * spread * float(rng.standard_normal())

    distance, tissue = tissues(rng, c, noise, scale, width)
    brain = largest_component(distance > 0)
    chi = (WHITE + stray(0.012)) * tissue["white"]
    chi = chi + (GREY + stray(0.012)) * tissue["grey"]
    chi = chi + (CSF + stray(0.01)) * tissue["csf"]
    # Bundles of white matter differ in orientation and myelin.
    chi = chi + np.float32(0.012 * (0.5 + rng.random())) * noise.field(rng.uniform(9, 25)) * tissue["white"]
    # A layer of iron along the deep cortex.
    chi = chi + np.float32(0.01 * rng.random()) * np.minimum(tissue["grey"], tissue["white"]) * 4
    signal, r2star = appearance(tissue)
    return Brain(brain, (chi * brain).astype(np.float32), signal, r2star)


def appearance(tissue: dict[str, Volume]) -> tuple[Volume, Volume]:
    """How an invented brain looks to a gradient-echo sequence.

    Parameters
    ----------
    tissue : dict of (X, Y, Z) float32
        Share of grey, white and csf in each voxel.

    Returns
    -------
    signal : (X, Y, Z) float32
        Magnitude at echo time zero, white matter one.
    r2star : (X, Y, Z) float32, 1/s at 3 T
    """
    signal = 1.0 * tissue["white"] + 0.85 * tissue["grey"] + 0.7 * tissue["csf"]
    r2star = 20 * tissue["white"] + 16 * tissue["grey"] + 3 * tissue["csf"]
    return signal, r2star


def tissues(
    rng: np.random.Generator, c: Coordinates, noise: Noise, scale: float, width: float
) -> tuple[Volume, dict[str, Volume]]:
    """Shape an invented brain: cerebrum, cerebellum and stem, folded, with ventricles.

    Parameters
    ----------
    rng : numpy Generator
    c : three (X, Y, Z) float32 volumes
        Head coordinates, mm.
    noise : Noise
    scale : float
        Size of the head, one being an adult's.
    width : mm
        Width of tissue borders: the partial volume of a voxel.

    Returns
    -------
    distance : (X, Y, Z) float32
        Signed distance to the brain's surface, mm, positive inside.
    tissues : dict of (X, Y, Z) float32
        Share of grey, white and csf in each voxel.
    """

    def jitter(spread: float = 0.06) -> float:
        return float(1 + spread * rng.standard_normal())

    c = [x / np.float32(scale * jitter(0.04)) + np.float32(2.5) * noise.field(45) for x in c]
    cerebrum = ellipsoid(c, (0, 0, 8), (66 * jitter(), 82 * jitter(), 58 * jitter()))
    cerebrum = np.minimum(cerebrum, c[2] + 28 * jitter() - 0.1 * np.abs(c[1]))
    cerebellum = ellipsoid(c, (0, -48, -34), (48 * jitter(), 30 * jitter(), 24 * jitter()))
    stem = ellipsoid(c, (0, -22, -38), (15 * jitter(), 14 * jitter(), 36 * jitter()))
    brain = np.maximum(np.maximum(cerebrum, cerebellum), stem) * np.float32(scale)

    folds = noise.field(rng.uniform(13, 20), 0.25)
    fine = noise.field(rng.uniform(7, 10), 0.3)
    fissure = np.abs(c[0] + 2 * folds) - rng.uniform(0.3, 1.2)
    thickness = rng.uniform(2.2, 4.0)
    sulcus = np.where(c[2] > -25, 2.5 * folds + 1.0 * fine, 2.0 * fine) - rng.uniform(2.2, 4.5)
    sulcus -= np.maximum(brain - rng.uniform(10, 22), 0) * 0.5
    outer = np.minimum(brain - rng.uniform(0.5, 2.0), -sulcus)
    outer = np.minimum(outer, np.where((c[2] > 5) & (np.abs(c[1]) < 80), fissure, 99))
    parenchyma = share_inside(outer, width)
    white = share_inside(outer - thickness - 0.8 * folds, width)
    mirrored = [np.abs(c[0]), c[1], c[2]]
    aside = 12 * jitter(0.3)
    body = ellipsoid(mirrored, (aside, 4, 17), (4.5 * jitter(0.4), 28 * jitter(), 6 * jitter(0.3)))
    atrium = ellipsoid(mirrored, (aside + 8, -32, 6), (5 * jitter(0.3), 9, 12))
    ventricle = share_inside(np.maximum(body, atrium) + 1.2 * fine, width)
    white *= 1 - ventricle
    parenchyma *= 1 - ventricle
    return brain, {"white": white, "grey": parenchyma - white * (parenchyma > 0), "csf": 1 - parenchyma}


def nuclei(
    rng: np.random.Generator, c: Coordinates, scale: float, width: float, variety: float = 1.0
) -> tuple[Volume, Volume]:
    """Deep nuclei in both halves.

    Parameters
    ----------
    rng : numpy Generator
    c : three (X, Y, Z) float32 volumes
        Head coordinates, mm.
    scale : float
        Size of the head, one being an adult's.
    width : mm
        Width of their borders.
    variety : float
        How far susceptibilities, sizes and places stray from the published ones.

    Returns
    -------
    chi : (X, Y, Z) float32, ppm
    share : (X, Y, Z) float32
        Of each voxel that they fill.
    """
    chi = np.zeros(c[0].shape, np.float32)
    share = np.zeros_like(chi)
    for value, centre, axes in NUCLEI.values():
        level = value * float(np.clip(rng.normal(1, 0.35 * variety), 0.2, 2.5)) + variety * 0.01 * float(
            rng.standard_normal()
        )
        for side in (-1, 1):
            x, y, z = (
                float(scale * (v + 1.5 * variety * rng.standard_normal()))
                for v in (side * centre[0], centre[1], centre[2])
            )
            p, q, s = (float(scale * a * np.exp(0.12 * variety * rng.standard_normal())) for a in axes)
            tilted = random_rotation(rng, 25 * variety).astype(np.float32)
            box = box_around(c, (x, y, z), max(p, q, s) + 3 * width)
            if box is None:
                continue
            local = [axis[box] - middle for axis, middle in zip(c, (x, y, z), strict=True)]
            turned = [np.asarray(sum(tilted[i, j] * local[j] for j in range(3))) for i in range(3)]
            inside = share_inside(ellipsoid(turned, (0, 0, 0), (p, q, s)), width)
            gradient = 1 + 0.15 * variety * float(rng.standard_normal()) * turned[1] / q
            chi[box] = chi[box] * (1 - inside) + level * gradient * inside
            share[box] = np.maximum(share[box], inside)
    return chi, share


def iron_r2star(deep: Volume, share: Volume) -> Volume:
    """R2* that the iron of deep nuclei adds.

    Parameters
    ----------
    deep, share : (X, Y, Z) float32
        See :func:`nuclei`.

    Returns
    -------
    (X, Y, Z) float32, 1/s at 3 T
    """
    added: Volume = 25 * share * np.maximum(deep, 0) / 0.1
    return added
