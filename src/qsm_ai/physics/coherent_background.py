"""The coarse of a background: whole regions around the brain, f0 and shim, fitted to the field at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, zoom

from qsm_ai.physics.dipole import dipole_kernel
from qsm_ai.physics.fourier import bounding_box, fast_shape, irfftn, rfftn

CLOSING_MM = 10.0
"""Folds of the mask that are narrower than twice this are part of what lies around it."""

SHELLS_MM = (3.0, 6.0, 9.0)
"""Outer ends of the shells around the closed mask: bone, and what lies behind it."""

REACH_MM = CLOSING_MM + SHELLS_MM[-1] + 3.0
"""Room around the mask."""

COARSE_MM = 2.5
"""Voxels on which distances are measured."""

SOFT = 0.8
"""Standard deviation, voxels, over which a region ends: their borders lie within voxels."""


def coherent_background(
    total_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    known: NDArray[np.bool_],
    voxel_size: tuple[float, float, float],
    b0_direction: tuple[float, float, float],
) -> NDArray[np.float32]:
    r"""What few numbers can tell of a background.

    .. math:: f_C = \sum_i a_i \, d * R_i + \sum_{l \le 2} \sum_m b_{lm} H_{lm}, \qquad
              (a, b) = \arg\min \| f_T - f_C \|_2 \text{ where the field is known}

    with regions R of uniform susceptibility (the mask itself, the folds of its surface up to its closing, and
    three shells around that) and the solid harmonics H of orders 0 to 2, as f0 and shims make them. Bone and
    air are thousands of voxels that act together. A search for dipoles of the least norm lays them beside the
    mask one by one, and what it leaves when it ends are long waves and the rim.

    Parameters
    ----------
    total_field : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
    known : (X, Y, Z) bool
        Voxels of the mask whose field can be trusted.
    voxel_size : mm
    b0_direction : unit vector in voxel axes

    Returns
    -------
    (X, Y, Z) float32, ppm
        Zero outside the mask; zero everywhere where fewer voxels are known than there are numbers to find.
    """
    box = bounding_box(mask)
    inner, told = mask[box], known[box]
    fields = [*_of_regions(inner, voxel_size, b0_direction), *_harmonics(inner.shape, voxel_size)]
    background = np.zeros(total_field.shape, dtype=np.float32)
    if np.count_nonzero(told) < len(fields):
        return background
    columns = np.stack([field[told] for field in fields], axis=1).astype(np.float64)
    # Columns of one size: susceptibilities, and ppm at the edge of the mask.
    size = np.maximum(np.sqrt((columns**2).mean(axis=0)), 1e-12)
    numbers, *_ = np.linalg.lstsq(columns / size, total_field[box][told].astype(np.float64), rcond=1e-6)
    explained = sum(np.float32(n / s) * field for n, s, field in zip(numbers, size, fields, strict=True))
    background[box] = np.where(inner, explained, np.float32(0))
    return background


def _of_regions(
    mask: NDArray[np.bool_], voxel_size: tuple[float, float, float], b0_direction: tuple[float, float, float]
) -> Iterator[NDArray[np.float32]]:
    """Fields, in the mask's box, of the mask, the folds around it, and shells of 1 ppm."""
    margins = tuple(int(np.ceil(REACH_MM / h)) for h in voxel_size)
    padded = np.pad(mask, [(m, m) for m in margins])
    place = tuple(slice(m, m + n) for m, n in zip(margins, mask.shape, strict=True))
    hull, distance = _closing(padded, voxel_size)
    shape = fast_shape(padded.shape, margins)
    kernel = dipole_kernel(shape, voxel_size, b0_direction)
    inner = 0.0
    regions = [hull & ~padded]
    for outer in SHELLS_MM:
        regions.append((distance > inner) & (distance <= outer) & ~hull & ~padded)
        inner = outer
    soft = (gaussian_filter(r.astype(np.float32), SOFT) * ~padded for r in regions if r.any())
    for region in (padded.astype(np.float32), *soft):
        whole = np.zeros(shape, dtype=np.float32)
        whole[tuple(slice(n) for n in padded.shape)] = region
        yield irfftn(rfftn(whole) * kernel, shape)[place]


def _closing(
    mask: NDArray[np.bool_], voxel_size: tuple[float, float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """The closed mask, and the distance to it in mm, measured on coarse voxels."""
    steps = tuple(max(1, round(COARSE_MM / h)) for h in voxel_size)
    size = tuple(h * s for h, s in zip(voxel_size, steps, strict=True))
    ends = [(0, -n % s) for n, s in zip(mask.shape, steps, strict=True)]
    x, y, z = (slice(None, None, s) for s in steps)
    coarse = np.pad(mask, ends)[x, y, z]
    outside = distance_transform_edt(~coarse, sampling=size)
    hull = distance_transform_edt(outside < CLOSING_MM, sampling=size) > CLOSING_MM
    hull |= coarse
    away = distance_transform_edt(~hull, sampling=size) - distance_transform_edt(hull, sampling=size)
    fine = zoom(away.astype(np.float32), steps, order=1, grid_mode=True, mode="nearest")
    fine = fine[tuple(slice(n) for n in mask.shape)]
    return (fine <= 0) | mask, fine


def _harmonics(
    shape: tuple[int, ...], voxel_size: tuple[float, float, float]
) -> Iterator[NDArray[np.float32]]:
    """Solid harmonics of orders 0, 1 and 2 around the middle of a box."""
    x, y, z = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * h for n, h in zip(shape, voxel_size, strict=True)),
        indexing="ij",
        sparse=True,
    )
    for harmonic in (1, x, y, z, x * y, x * z, y * z, x**2 - y**2, 2 * z**2 - x**2 - y**2):
        yield np.broadcast_to(np.asarray(harmonic, dtype=np.float32), shape)
