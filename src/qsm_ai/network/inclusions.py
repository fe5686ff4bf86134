"""Small things of strong susceptibility: veins, microbleeds, haemorrhages, calcifications."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsm_ai.network.geometry import Coordinates, Triple, Volume

VEIN = 0.19
"""Susceptibility of venous blood, ppm."""


class Lesion(NamedTuple):
    """A kind of lesion.

    Attributes
    ----------
    number : float
        Mean in a head.
    chi : ppm
        Range.
    radius : mm
        Range.
    """

    number: float
    chi: tuple[float, float]
    radius: tuple[float, float]


LESIONS: dict[str, Lesion] = {
    "microbleed": Lesion(1.5, (0.2, 2.0), (0.7, 2.5)),
    "calcification": Lesion(0.8, (-3.3, -0.2), (0.8, 4.0)),
    "haemorrhage": Lesion(0.25, (0.2, 1.2), (4.0, 11.0)),
}

CHOROID_PLEXUS: Triple = (20.0, -34.0, 6.0)
"""In the atrium of the right lateral ventricle, mm right, front, up: where most adults carry some calcium."""

CALCIFICATION_CHI, CALCIFICATION_RADIUS = -2.0, 1.5
"""ppm, mm."""

R2STAR_OF_A_PPM, STEEPEST_PPM = 60.0, 2.0
"""What a lesion adds to R2*, 1/s for each ppm, and up to which χ."""


def paint_balls(
    target: Volume, centres: NDArray[np.float64], radii: NDArray[np.float64], voxel_size: Triple
) -> None:
    """Raise ``target``, in place, to the share of each voxel that small balls fill.

    Parameters
    ----------
    target : (X, Y, Z) float32
    centres : (N, 3), voxels
    radii : (N,), mm
    voxel_size : mm
    """
    h = np.asarray(voxel_size)
    width = float(h.min())
    reach = np.ceil((radii.max() + width) / h).astype(int)
    grids = np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij")
    offsets = np.stack([g.ravel() for g in grids], axis=1)
    base = np.round(centres).astype(int)
    # A ball thinner than a voxel fills no more of it than its cross-section does.
    filled = np.minimum(1, 2 * radii / width) ** 2
    for offset in offsets:
        voxel = base + offset
        ok = ((voxel >= 0) & (voxel < target.shape)).all(axis=1)
        distance = np.linalg.norm((voxel[ok] - centres[ok]) * h, axis=1)
        share = np.clip((radii[ok] - distance) / width + 0.5, 0, 1) * filled[ok]
        np.maximum.at(target, tuple(voxel[ok].T), share.astype(np.float32))


def veins(rng: np.random.Generator, inside: NDArray[np.bool_], voxel_size: Triple, count: int) -> Volume:
    """Let winding vessels of 0.25 to 2.2 mm radius start anywhere in a brain.

    Parameters
    ----------
    rng : numpy Generator
    inside : (X, Y, Z) bool
        Where they start.
    voxel_size : mm
    count : int

    Returns
    -------
    (X, Y, Z) float32
        Share of each voxel that they fill.
    """
    share = np.zeros(inside.shape, np.float32)
    h = np.asarray(voxel_size)
    starts = np.argwhere(inside)
    if count == 0 or starts.size == 0:
        return share
    step = 0.7 * h.min()
    centres, radii = [], []
    for _ in range(count):
        point = starts[rng.integers(len(starts))].astype(np.float64)
        heading = rng.standard_normal(3)
        length = int(rng.uniform(10, 70) / step)
        radius = float(rng.uniform(0.25, 1.0) if rng.random() < 0.8 else rng.uniform(1.0, 2.2))
        bends = np.cumsum(rng.standard_normal((length, 3)) * 0.12, axis=0)
        path = heading / np.linalg.norm(heading) + bends
        path /= np.linalg.norm(path, axis=1, keepdims=True)
        centres.append(point + np.cumsum(path * step / h, axis=0))
        radii.append(np.linspace(radius, radius * rng.uniform(0.4, 1), length))
    points, thickness = np.concatenate(centres), np.concatenate(radii)
    held = ((points >= 0) & (points < np.asarray(inside.shape) - 1)).all(axis=1)
    points, thickness = points[held], thickness[held]
    # Apart, for the thin ones need only look at their nearest voxels.
    for low, high in ((0.0, 1.0), (1.0, 9.0)):
        some = (thickness >= low) & (thickness < high)
        if some.any():
            paint_balls(share, points[some], thickness[some], voxel_size)
    return share


def add_lesions(
    rng: np.random.Generator, brain: NDArray[np.bool_], chi: Volume, r2star: Volume, voxel_size: Triple
) -> None:
    """Put lesions of random number, size and place into a head, in place; kinds are in ``LESIONS``.

    Parameters
    ----------
    rng : numpy Generator
    brain : (X, Y, Z) bool
    chi : (X, Y, Z) float32, ppm
    r2star : (X, Y, Z) float32, 1/s
    voxel_size : mm
    """
    places = np.argwhere(brain)
    # All numbers are drawn before the first lesion.
    numbers = [rng.poisson(kind.number) for kind in LESIONS.values()]
    for number, kind in zip(numbers, LESIONS.values(), strict=True):
        weak, strong = np.log(np.sort(np.abs(kind.chi)))
        for _ in range(number):
            middle = places[rng.integers(len(places))]
            radius = rng.uniform(*kind.radius)
            blobs = rng.integers(1, 5)
            centres = middle + rng.standard_normal((blobs, 3)) * radius / 2 / np.asarray(voxel_size)
            radii = radius * rng.uniform(0.6, 1, blobs)
            value = np.sign(sum(kind.chi)) * np.exp(rng.uniform(weak, strong))
            _add(chi, r2star, value, np.vstack([middle, centres]), np.append(radius, radii), voxel_size)


def add_calcification(c: Coordinates, scale: float, chi: Volume, r2star: Volume, voxel_size: Triple) -> None:
    """Calcify the choroid plexus of a head, in place: a ball 3 mm across of −2 ppm, always at the same spot.

    Parameters
    ----------
    c : three (X, Y, Z) float32 volumes
        Head coordinates, mm.
    scale : float
        Size of the head, one being an adult's.
    chi : (X, Y, Z) float32, ppm
    r2star : (X, Y, Z) float32, 1/s
    voxel_size : mm
    """
    # In the middle of a voxel, so that voxels wider than the ball hold it too.
    away = sum((x - np.float32(scale * p)) ** 2 for x, p in zip(c, CHOROID_PLEXUS, strict=True))
    middle = np.array(np.unravel_index(np.argmin(away), chi.shape), np.float64)
    _add(chi, r2star, CALCIFICATION_CHI, middle[None], np.array([CALCIFICATION_RADIUS]), voxel_size)


def _add(
    chi: Volume,
    r2star: Volume,
    value: float,
    centres: NDArray[np.float64],
    radii: NDArray[np.float64],
    voxel_size: Triple,
) -> None:
    """Balls (N centres, voxels; N radii, mm) of one susceptibility (ppm) into a head's volumes, in place."""
    share = np.zeros(chi.shape, np.float32)
    paint_balls(share, centres, radii, voxel_size)
    chi *= 1 - share
    chi += value * share
    r2star += share * R2STAR_OF_A_PPM * min(STEEPEST_PPM, abs(value))
