"""Random heads: susceptibility, signal and relaxation of brains that never were."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, rfftn
from scipy.ndimage import distance_transform_edt, map_coordinates, zoom

from qsm_ai.physics.fourier import WORKERS, frequencies

Volume = NDArray[np.float32]
Triple = tuple[float, float, float]

AIR, BONE = 9.2, -2.1
"""Susceptibility relative to soft tissue, ppm."""

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

WHITE, GREY, CSF, VEIN = -0.03, 0.02, 0.019, 0.19


@dataclass
class Head:
    """A head on a grid.

    Attributes
    ----------
    chi : (X, Y, Z) float32, ppm
        Of everything: tissue relative to water, bone, and air.
    brain : (X, Y, Z) bool
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


class Noise:
    """Smooth random fields on one grid.

    Parameters
    ----------
    rng : numpy Generator
    shape : (X, Y, Z)
    voxel_size : mm
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...], voxel_size: Triple) -> None:
        self.rng, self.shape = rng, shape
        kx, ky, kz = frequencies(shape, voxel_size)
        self.k = np.sqrt(kx**2 + ky**2 + kz**2)

    def field(self, wavelength: float, bandwidth: float = 0.0) -> Volume:
        """Zero mean, unit variance; a low pass above ``wavelength`` (mm), or a band of relative width around it."""
        centre = 1 / wavelength
        if bandwidth:
            weight = np.exp(-((self.k - centre) ** 2) / (2 * (bandwidth * centre) ** 2))
        else:
            weight = np.exp(-(self.k**2) / (2 * centre**2))
        weight[0, 0, 0] = 0
        white = rfftn(self.rng.standard_normal(self.shape, dtype=np.float32), workers=WORKERS)
        volume = irfftn(white * weight.astype(np.float32), s=self.shape, workers=WORKERS)
        return (volume / volume.std()).astype(np.float32)


def _edge(distance: Volume, width: float) -> Volume:
    """Share of a voxel that lies inside, from the signed distance to a surface (positive inside)."""
    return (1 / (1 + np.exp(-np.clip(4 * distance / width, -30, 30)))).astype(np.float32)


def _coordinates(shape: tuple[int, ...], voxel_size: Triple, rotation: NDArray[np.float64]) -> list[Volume]:
    """Head axes (mm: right, front, up) of every voxel, the middle of the grid being zero."""
    x, y, z = (
        (np.arange(n, dtype=np.float32) - (n - 1) / 2) * h for n, h in zip(shape, voxel_size, strict=True)
    )
    r = rotation.astype(np.float32)
    return [
        r[i, 0] * x[:, None, None] + r[i, 1] * y[None, :, None] + r[i, 2] * z[None, None, :] for i in range(3)
    ]


def _ellipsoid(c: list[Volume], centre: Triple, axes: Triple) -> Volume:
    """Signed distance (mm, positive inside, exact near the surface) to an ellipsoid."""
    a, b, d = ((c[i] - centre[i]) / axes[i] for i in range(3))
    r = np.sqrt(a * a + b * b + d * d) + 1e-6
    return (1 - r) * (sum(axes) / 3)


def random_rotation(rng: np.random.Generator, degrees: float) -> NDArray[np.float64]:
    """Rotation matrix (3, 3) about a random axis by up to ``degrees``."""
    axis = rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    angle = np.deg2rad(rng.uniform(0, degrees))
    cross = np.cross(np.eye(3), axis)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def procedural_brain(
    rng: np.random.Generator, c: list[Volume], noise: Noise, scale: float, width: float
) -> tuple[Volume, dict[str, Volume]]:
    """Shape and tissues of an invented brain.

    Parameters
    ----------
    rng : numpy Generator
    c : three (X, Y, Z) float32 volumes
        Head coordinates, mm.
    noise : Noise
    scale : float
        Size of the head, one being an adult's.
    width : float
        Width of tissue borders, mm: the partial volume of a voxel.

    Returns
    -------
    distance : (X, Y, Z) float32
        Signed distance to the brain's surface, mm, positive inside.
    tissues : dict of (X, Y, Z) float32
        Share of grey, white and csf in each voxel.
    """
    jitter = lambda s=0.06: float(1 + s * rng.standard_normal())  # noqa: E731
    c = [x / np.float32(scale * jitter(0.04)) + np.float32(2.5) * noise.field(45) for x in c]
    cerebrum = _ellipsoid(c, (0, 0, 8), (66 * jitter(), 82 * jitter(), 58 * jitter()))
    cerebrum = np.minimum(cerebrum, c[2] + 28 * jitter() - 0.1 * np.abs(c[1]))
    cerebellum = _ellipsoid(c, (0, -48, -34), (48 * jitter(), 30 * jitter(), 24 * jitter()))
    stem = _ellipsoid(c, (0, -22, -38), (15 * jitter(), 14 * jitter(), 36 * jitter()))
    brain = np.maximum(np.maximum(cerebrum, cerebellum), stem) * np.float32(scale)

    folds = noise.field(rng.uniform(13, 20), 0.25)
    fine = noise.field(rng.uniform(7, 10), 0.3)
    fissure = np.abs(c[0] + 2 * folds) - rng.uniform(0.3, 1.2)
    thickness = rng.uniform(2.2, 4.0)
    sulcus = np.where(c[2] > -25, 2.5 * folds + 1.0 * fine, 2.0 * fine) - rng.uniform(2.2, 4.5)
    sulcus -= np.maximum(brain - rng.uniform(10, 22), 0) * 0.5
    outer = np.minimum(brain - rng.uniform(0.5, 2.0), -sulcus)
    outer = np.minimum(outer, np.where((c[2] > 5) & (np.abs(c[1]) < 80), fissure, 99))
    parenchyma = _edge(outer, width)
    white = _edge(outer - thickness - 0.8 * folds, width)
    side = np.abs(c[0])
    tilt = 12 * jitter(0.3)
    ventricle = np.maximum(
        _ellipsoid([side, c[1], c[2]], (tilt, 4, 17), (4.5 * jitter(0.4), 28 * jitter(), 6 * jitter(0.3))),
        _ellipsoid([side, c[1], c[2]], (tilt + 8, -32, 6), (5 * jitter(0.3), 9, 12)),
    )
    ventricle = _edge(ventricle + 1.2 * fine, width)
    white *= 1 - ventricle
    parenchyma *= 1 - ventricle
    return brain, {"white": white, "grey": parenchyma - white * (parenchyma > 0), "csf": 1 - parenchyma}


def nuclei(
    rng: np.random.Generator, c: list[Volume], scale: float, width: float, spread: float = 1.0
) -> tuple[Volume, Volume]:
    """Deep nuclei in both halves: their χ (ppm) and the share of the voxel they fill, each (X, Y, Z)."""
    chi = np.zeros(c[0].shape, np.float32)
    share = np.zeros_like(chi)
    for value, centre, axes in NUCLEI.values():
        level = value * float(np.clip(rng.normal(1, 0.35 * spread), 0.2, 2.5)) + spread * 0.01 * float(
            rng.standard_normal()
        )
        for side in (-1, 1):
            middle = tuple(
                float(scale * (v + 1.5 * spread * rng.standard_normal()))
                for v in (side * centre[0], centre[1], centre[2])
            )
            half = tuple(float(scale * a * np.exp(0.12 * spread * rng.standard_normal())) for a in axes)
            tilted = random_rotation(rng, 25 * spread).astype(np.float32)
            box = _near(c, middle, max(half) + 3 * width)
            if box is None:
                continue
            local = [x[box] - m for x, m in zip(c, middle, strict=True)]
            turned = [sum(tilted[i, j] * local[j] for j in range(3)) for i in range(3)]
            inside = _edge(_ellipsoid(turned, (0, 0, 0), half), width)
            gradient = 1 + 0.15 * spread * float(rng.standard_normal()) * turned[1] / half[1]
            chi[box] = chi[box] * (1 - inside) + level * gradient * inside
            share[box] = np.maximum(share[box], inside)
    return chi, share


def _near(c: list[Volume], centre: tuple[float, ...], reach: float) -> tuple[slice, ...] | None:
    """Smallest box of voxels that holds every point within ``reach`` (mm) of ``centre``."""
    close = (
        (np.abs(c[0] - centre[0]) < reach)
        & (np.abs(c[1] - centre[1]) < reach)
        & (np.abs(c[2] - centre[2]) < reach)
    )
    slices = []
    for axis in range(3):
        hit = np.flatnonzero(close.any(axis=tuple(a for a in range(3) if a != axis)))
        if hit.size == 0:
            return None
        slices.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(slices)


def paint_balls(
    target: Volume, centres: NDArray[np.float64], radii: NDArray[np.float64], voxel_size: Triple
) -> None:
    """Raise ``target`` (X, Y, Z), in place, to the share of each voxel that small balls fill.

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
    for offset in offsets:
        voxel = base + offset
        ok = ((voxel >= 0) & (voxel < target.shape)).all(axis=1)
        distance = np.linalg.norm((voxel[ok] - centres[ok]) * h, axis=1)
        share = (
            np.clip((radii[ok] - distance) / width + 0.5, 0, 1) * np.minimum(1, 2 * radii[ok] / width) ** 2
        )
        np.maximum.at(target, tuple(voxel[ok].T), share.astype(np.float32))


def veins(rng: np.random.Generator, inside: NDArray[np.bool_], voxel_size: Triple, count: int) -> Volume:
    """Share of each voxel (X, Y, Z) that a tree of winding vessels fills."""
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
    for low, high in ((0.0, 1.0), (1.0, 9.0)):
        some = (thickness >= low) & (thickness < high)
        if some.any():
            paint_balls(share, points[some], thickness[some], voxel_size)
    return share


def warp_labels(
    rng: np.random.Generator,
    labels: NDArray[np.integer],
    c: list[Volume],
    values: NDArray[np.float32],
) -> Volume:
    """A label map (1 mm, right-front-up, centred) with a value for each label, seen at coordinates ``c`` (mm)."""
    native = values[labels]
    where = np.stack([x + (n - 1) / 2 for x, n in zip(c, labels.shape, strict=True)])
    return map_coordinates(native, where, order=1, mode="constant", cval=0.0, prefilter=False).astype(
        np.float32
    )


def surroundings(
    rng: np.random.Generator, c: list[Volume], brain: NDArray[np.bool_], noise: Noise, voxel_size: Triple
) -> tuple[Volume, Volume, NDArray[np.bool_]]:
    """Bone, scalp, sinuses, ear canals and the air around a brain.

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
        Zero in soft tissue and in the brain.
    signal : (X, Y, Z) float32
        Of what lies outside the brain.
    head : (X, Y, Z) bool
        Everything that is not air around the head.
    """
    # The skull spans the fissures: distances count from a hull without gaps narrower than 20 mm.
    spacing = [2 * v for v in voxel_size]
    near = distance_transform_edt(~np.pad(brain[::2, ::2, ::2], 8), sampling=spacing) < 10
    hull = distance_transform_edt(near, sampling=spacing) > 10
    distance = distance_transform_edt(~hull, sampling=spacing)[8:-8, 8:-8, 8:-8].astype(np.float32)
    distance = zoom(distance, [n / m for n, m in zip(brain.shape, distance.shape, strict=True)], order=1)
    distance = distance + 1.0 * noise.field(20)
    dura, skull = rng.uniform(1.5, 4.0), rng.uniform(5, 9)
    skin = dura + skull + rng.uniform(4, 8)
    head = (distance < skin) | brain
    neck = (c[2] < -45) & (np.hypot(c[0], c[1] + 20) < rng.uniform(55, 70))
    head |= neck
    chi = np.zeros(brain.shape, np.float32)
    bone = (distance > dura) & (distance < dura + skull) & ~neck
    chi[bone] = BONE + 0.15 * rng.standard_normal()
    signal = np.where(head, np.float32(rng.uniform(0.5, 1.1)), np.float32(0))
    gap = (distance < dura) & ~brain
    signal[gap] = rng.uniform(0.3, 0.8)
    chi[gap] = CSF
    signal[bone] = 0.05
    cavities = [((0, rng.uniform(55, 75), rng.uniform(-38, -22)), (22, 22, 12))]
    cavities += [((s * 45, -12 + 5 * rng.standard_normal(), -38), (16, 6, 6)) for s in (-1, 1)]
    cavities += [((0, rng.uniform(72, 84), rng.uniform(-5, 12)), (18, 6, 10))]
    keep_off = rng.uniform(1.5, 6)
    for centre, axes in cavities:
        if rng.random() < 0.85:
            size = rng.uniform(0.6, 1.2)
            hole = _ellipsoid(c, centre, tuple(size * a for a in axes)) > 2 * rng.standard_normal()
            hole &= (distance > keep_off) & head & ~brain
            chi[hole] = AIR
            signal[hole] = 0
    chi[~head] = AIR
    return chi, signal.astype(np.float32), head
