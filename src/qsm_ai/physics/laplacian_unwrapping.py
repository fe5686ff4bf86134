"""Unwrapping by the Laplacian: fast, smooth, and not exact to 2π."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from qsm_ai.physics.fourier import WORKERS

_TWO_PI = np.float32(2 * np.pi)


def unwrap_laplacian(
    phase: NDArray[np.float32], voxel_size: tuple[float, float, float]
) -> NDArray[np.float32]:
    r"""Phase whose Laplacian is that of the wrapped phase, which wraps do not touch.

    .. math:: \nabla^2 \phi = \cos\phi_w \nabla^2 \sin\phi_w - \sin\phi_w \nabla^2 \cos\phi_w

    On a grid the right side is the divergence of the differences between neighbours, each brought back
    to ±π. The Poisson equation is solved with no flux through the faces of the volume, by cosine transforms.
    Where no difference exceeds π the result is exact, up to a constant that is chosen to agree with the
    wrapped phase; around singularities it is smooth and wrong by more than multiples of 2π.

    Parameters
    ----------
    phase : (..., X, Y, Z) float32, rad
        Each volume is unwrapped by itself.
    voxel_size : mm

    Returns
    -------
    (..., X, Y, Z) float32, rad

    References
    ----------
    Schofield & Zhu 2003, 10.1364/OL.28.001194; Ghiglia & Romero 1994, 10.1364/JOSAA.11.000107.
    """
    axes = (-3, -2, -1)
    phase = np.asarray(phase, dtype=np.float32)
    laplacian = np.zeros_like(phase)
    eigenvalues = np.zeros((1, 1, 1), dtype=np.float32)
    for axis, size in zip(axes, voxel_size, strict=True):
        n = phase.shape[axis]
        step = np.diff(phase, axis=axis)
        step -= _TWO_PI * np.round(step / _TWO_PI)
        step /= np.float32(size**2)
        inner = [slice(None)] * phase.ndim
        inner[axis] = slice(0, n - 1)
        laplacian[tuple(inner)] += step
        inner[axis] = slice(1, n)
        laplacian[tuple(inner)] -= step
        shape = [1, 1, 1]
        shape[axis] = n
        along = (2 * np.cos(np.pi * np.arange(n) / n) - 2) / size**2
        eigenvalues = eigenvalues + along.astype(np.float32).reshape(shape)
    spectrum = scipy.fft.dctn(laplacian, axes=axes, workers=WORKERS, overwrite_x=True)
    eigenvalues[0, 0, 0] = 1.0
    spectrum /= eigenvalues
    spectrum[..., 0, 0, 0] = 0.0
    unwrapped: NDArray[np.float32] = scipy.fft.idctn(spectrum, axes=axes, workers=WORKERS, overwrite_x=True)
    difference = phase - unwrapped
    sine, cosine = np.sin(difference).mean(axes, keepdims=True), np.cos(difference).mean(axes, keepdims=True)
    unwrapped += np.arctan2(sine, cosine)
    return unwrapped
