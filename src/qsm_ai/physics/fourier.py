"""Real fast Fourier transforms on numpy arrays, and on any other array of the array API (torch)."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import scipy.fft
from array_api_compat import array_namespace

Array = Any
"""A numpy array or a torch tensor; every function returns the kind that it was given."""

_AXES = (-3, -2, -1)

WORKERS = len(os.sched_getaffinity(0))


def rfftn(x: Array) -> Array:
    """Half spectrum of a real volume.

    Parameters
    ----------
    x : (..., X, Y, Z) real array
        The last three axes are transformed.

    Returns
    -------
    (..., X, Y, Z // 2 + 1) complex array
    """
    if isinstance(x, np.ndarray):
        return scipy.fft.rfftn(x, axes=_AXES, workers=WORKERS)
    return array_namespace(x).fft.rfftn(x, axes=_AXES)


def irfftn(spectrum: Array, shape: tuple[int, ...]) -> Array:
    """Real volume of a half spectrum, the inverse of :func:`rfftn`.

    Parameters
    ----------
    spectrum : (..., X, Y, Z // 2 + 1) complex array
    shape : (X, Y, Z)
        Shape of the volume, since the half spectrum does not tell an odd Z from an even one.

    Returns
    -------
    (..., X, Y, Z) real array
    """
    if isinstance(spectrum, np.ndarray):
        return scipy.fft.irfftn(spectrum, s=shape, axes=_AXES, workers=WORKERS)
    return array_namespace(spectrum).fft.irfftn(spectrum, s=shape, axes=_AXES)


def frequencies(
    shape: tuple[int, ...], voxel_size: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spatial frequencies of the half spectrum, 1/mm, each shaped to broadcast along its own axis."""
    kx = np.fft.fftfreq(shape[0], voxel_size[0]).astype(np.float32)[:, None, None]
    ky = np.fft.fftfreq(shape[1], voxel_size[1]).astype(np.float32)[None, :, None]
    kz = np.fft.rfftfreq(shape[2], voxel_size[2]).astype(np.float32)[None, None, :]
    return kx, ky, kz


def fast_shape(shape: tuple[int, ...], margin: tuple[int, ...] | int = 0) -> tuple[int, ...]:
    """Smallest shape with at least ``margin`` more voxels along each axis that transforms fast."""
    margins = (margin,) * len(shape) if isinstance(margin, int) else margin
    return tuple(scipy.fft.next_fast_len(n + m, real=True) for n, m in zip(shape, margins, strict=True))


def pad_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Zeros behind the end of the last three axes.

    Parameters
    ----------
    x : (..., X, Y, Z) array
    shape : (X', Y', Z')
        Not smaller than that of ``x``.

    Returns
    -------
    (..., X', Y', Z') array
    """
    xp = array_namespace(x)
    padded = xp.zeros((*x.shape[:-3], *shape), dtype=x.dtype, device=x.device)
    padded[..., : x.shape[-3], : x.shape[-2], : x.shape[-1]] = x
    return padded


def like(array: np.ndarray, reference: Array) -> Array:
    """A numpy array as the kind of array that another is.

    Parameters
    ----------
    array : numpy array
    reference : array
        Its kind and its device are taken.

    Returns
    -------
    array
    """
    if isinstance(reference, np.ndarray):
        return array
    return array_namespace(reference).asarray(array, device=reference.device)


def bounding_box(mask: np.ndarray, margin: int = 0) -> tuple[slice, slice, slice]:
    """The smallest box that holds a mask, for transforms that need no more.

    Parameters
    ----------
    mask : (X, Y, Z) bool
    margin : voxels
        Kept around the mask where the volume has room for them.

    Returns
    -------
    three slices

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    if not mask.any():
        raise ValueError("the mask is empty")
    box = []
    for axis, size in enumerate(mask.shape):
        filled = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(max(0, int(filled[0]) - margin), min(size, int(filled[-1]) + 1 + margin)))
    x, y, z = box
    return x, y, z
