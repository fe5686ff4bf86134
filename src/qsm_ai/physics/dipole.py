"""The unit dipole, and the field that a susceptibility distribution makes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qsm_ai.physics.fourier import Array, fast_shape, frequencies, irfftn, like, pad_to, rfftn

GYROMAGNETIC_RATIO = 42.576
"""Of the proton, over 2π, in MHz/T."""


def dipole_kernel(
    shape: tuple[int, ...],
    voxel_size: tuple[float, float, float],
    b0_direction: tuple[float, float, float],
) -> NDArray[np.float32]:
    r"""The unit dipole in k-space, for any voxel size and field direction.

    .. math:: D(k) = \frac{1}{3} - \frac{(k \cdot \hat b)^2}{|k|^2}, \qquad D(0) = 0

    Parameters
    ----------
    shape : (X, Y, Z)
        Of the volume in space.
    voxel_size : mm
    b0_direction : unit vector in voxel axes

    Returns
    -------
    (X, Y, Z // 2 + 1) float32 array
        Half spectrum, for :func:`qsm_ai.physics.fourier.rfftn`.

    Raises
    ------
    ValueError
        If the direction has no length.

    References
    ----------
    Salomir et al. 2003, 10.1002/cmr.b.10083; Marques & Bowtell 2005, 10.1002/cmr.b.20034.
    """
    direction = np.asarray(b0_direction, dtype=np.float64)
    length = float(np.linalg.norm(direction))
    if not length > 0:
        raise ValueError("the direction of B0 has no length")
    bx, by, bz = (direction / length).astype(np.float32)
    kx, ky, kz = frequencies(shape, voxel_size)
    k2 = kx**2 + ky**2 + kz**2
    k2[0, 0, 0] = 1.0
    # The highest frequency of an even axis stands for both signs: products with it cancel, squares stay.
    x, y, z = (_signed(k, n) for k, n in zip((kx, ky, kz), shape, strict=True))
    along = (x * bx + y * by + z * bz) ** 2
    along += (kx**2 - x**2) * bx**2 + (ky**2 - y**2) * by**2 + (kz**2 - z**2) * bz**2
    kernel: NDArray[np.float32] = np.float32(1 / 3) - along / k2
    kernel[0, 0, 0] = 0.0
    return kernel


def _signed(frequency: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Frequencies of an axis (n, broadcast along the others) with that of both signs set to zero."""
    if count % 2:
        return frequency
    signed = frequency.copy()
    signed.reshape(-1)[count // 2] = 0.0
    return signed


def forward_field(
    chi: Array,
    voxel_size: tuple[float, float, float],
    b0_direction: tuple[float, float, float],
    margin: int | None = None,
) -> Array:
    r"""Relative field (ppm) of a susceptibility distribution (ppm) in empty surroundings.

    .. math:: \delta = F^{-1} \left[ D \cdot F \chi \right]

    Parameters
    ----------
    chi : (X, Y, Z) float32 array
        Zero padded, so that the periodic images of the discrete transform stay away.
    voxel_size : mm
    b0_direction : unit vector in voxel axes
    margin : voxels
        Zeros added to each axis; half of the axis when left out.

    Returns
    -------
    (X, Y, Z) float32 array, ppm
    """
    shape = tuple(chi.shape)
    margins = tuple(n // 2 for n in shape) if margin is None else (margin,) * 3
    padded = fast_shape(shape, margins)
    spectrum = rfftn(pad_to(chi, padded))
    kernel = like(dipole_kernel(padded, voxel_size, b0_direction), chi)
    field = irfftn(spectrum * kernel, padded)
    return field[..., : shape[0], : shape[1], : shape[2]]
