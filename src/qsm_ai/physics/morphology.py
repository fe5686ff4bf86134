"""Shapes of masks: balls in mm, parts and holes."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from qsm_ai.physics.fourier import fast_shape, irfftn, pad_to, rfftn

Voxel = tuple[float, float, float]


def periodic_ball(shape: tuple[int, ...], voxel_size: Voxel, radius: float) -> NDArray[np.float32]:
    """Ball of a radius (mm) about the first voxel of a periodic grid: (X, Y, Z), 1 inside and 0 outside."""
    squares = []
    for n, h in zip(shape, voxel_size, strict=True):
        steps = np.minimum(np.arange(n), n - np.arange(n))
        squares.append(np.square(steps * h).astype(np.float32))
    distance2 = squares[0][:, None, None] + squares[1][:, None] + squares[2]
    ball: NDArray[np.float32] = (distance2 <= np.float32(radius**2 * (1 + 1e-6))).astype(np.float32)
    return ball


def dilate(mask: NDArray[np.bool_], radius: float, voxel_size: Voxel) -> NDArray[np.bool_]:
    """Every voxel within a distance of the mask.

    By Fourier transforms, so that the cost does not grow with the radius.

    Parameters
    ----------
    mask : (X, Y, Z) bool
        Taken to go on beyond the volume as it is on its faces.
    radius : mm
    voxel_size : mm

    Returns
    -------
    (X, Y, Z) bool
    """
    reach = [int(radius / h) for h in voxel_size]
    if not any(reach):
        return mask
    extended = np.pad(mask, [(r, r) for r in reach], mode="edge").astype(np.float32)
    shape = fast_shape(extended.shape)
    touched = irfftn(rfftn(pad_to(extended, shape)) * rfftn(periodic_ball(shape, voxel_size, radius)), shape)
    place = tuple(slice(r, r + n) for r, n in zip(reach, mask.shape, strict=True))
    dilated: NDArray[np.bool_] = touched[place] > 0.5
    return dilated


def erode(mask: NDArray[np.bool_], radius: float, voxel_size: Voxel) -> NDArray[np.bool_]:
    """Every voxel farther than a distance (mm) from the complement of the mask; see :func:`dilate`."""
    return ~dilate(~mask, radius, voxel_size)


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest part of a mask whose voxels are joined by faces.

    Parameters
    ----------
    mask : (X, Y, Z) bool

    Returns
    -------
    (X, Y, Z) bool
    """
    labels, count = scipy.ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = labels == sizes.argmax()
    return largest


def fill_holes(mask: NDArray[np.bool_], largest: float = np.inf) -> NDArray[np.bool_]:
    """The mask and the parts of its complement that reach no face of the volume.

    Parameters
    ----------
    mask : (X, Y, Z) bool
    largest : float
        Holes of more voxels stay open.

    Returns
    -------
    (X, Y, Z) bool
    """
    labels, count = scipy.ndimage.label(~mask)
    if count == 0:
        return mask
    stays_open = np.bincount(labels.ravel(), minlength=count + 1) > largest
    for axis in range(3):
        for end in (0, -1):
            stays_open[np.take(labels, end, axis=axis)] = True
    stays_open[0] = False
    filled: NDArray[np.bool_] = ~stays_open[labels]
    return filled


def depth_below_surface(mask: NDArray[np.bool_], voxel_size: Voxel) -> NDArray[np.float64]:
    """Distance of each voxel of a mask to the nearest one outside.

    Parameters
    ----------
    mask : (X, Y, Z) bool
        Ends at the faces of the volume.
    voxel_size : mm

    Returns
    -------
    (X, Y, Z) float64, mm
        Zero outside the mask.
    """
    depth: NDArray[np.float64] = scipy.ndimage.distance_transform_edt(np.pad(mask, 1), sampling=voxel_size)
    return depth[1:-1, 1:-1, 1:-1]
