"""Background field removal by spherical means of varying radius (V-SHARP)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qsm_ai.physics.fourier import bounding_box, fast_shape, irfftn, pad_to, rfftn
from qsm_ai.physics.morphology import periodic_ball

_THRESHOLD = 0.05
"""Of the deconvolution's kernel: below, a frequency is lost in the spherical mean's difference."""


def v_sharp(
    total_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: tuple[float, float, float],
    radii_mm: Sequence[float] = tuple(range(12, 0, -1)),
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    r"""Local field, by the mean value property of the background.

    The field of outer sources is harmonic inside the mask, so that its mean over a ball equals its value in
    the middle and a difference with that mean takes it away. Each voxel uses the largest ball that fits into
    the mask; the difference is then deconvolved with that of the largest radius.

    .. math:: f_L = C^{-1} \left[ M_r \, (\delta - \rho_r) * f_T \right], \qquad
              C = F (\delta - \rho_{r_{max}}), \; |C| > 0.05

    Parameters
    ----------
    total_field : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
    voxel_size : mm
    radii_mm : mm, in any order
        Radii that contain no neighbour of the middle voxel are left out.

    Returns
    -------
    local_field : (X, Y, Z) float32, ppm
        Zero outside the eroded mask.
    eroded_mask : (X, Y, Z) bool
        Where the smallest ball fits.

    Raises
    ------
    ValueError
        If the mask is empty, no radius is as large as a voxel, or no ball fits into the mask.

    References
    ----------
    Schweser et al. 2011, 10.1016/j.neuroimage.2010.10.070; Wu et al. 2012, 10.1002/mrm.23000.
    """
    radii = sorted({float(r) for r in radii_mm if r >= min(voxel_size)}, reverse=True)
    if not radii:
        raise ValueError("no radius is as large as a voxel")
    box = bounding_box(mask)
    inner = mask[box]
    radii = [
        r for r in radii if all(2 * int(r / h) < n for n, h in zip(inner.shape, voxel_size, strict=True))
    ]
    if not radii:
        raise ValueError("the mask holds no ball of any of the radii")
    shape = fast_shape(inner.shape, tuple(int(radii[0] / h) + 1 for h in voxel_size))
    place = tuple(slice(n) for n in inner.shape)
    field = np.where(inner, total_field[box], np.float32(0))
    field_spectrum = rfftn(pad_to(field, shape))
    mask_spectrum = rfftn(pad_to(inner.astype(np.float32), shape))

    difference = np.zeros(inner.shape, dtype=np.float32)
    done = np.zeros(inner.shape, dtype=np.bool_)
    deconvolution = None
    for radius in radii:
        ball = periodic_ball(shape, voxel_size, radius)
        count = float(ball.sum())
        mean = rfftn(ball).real / np.float32(count)  # real, because a ball is symmetric
        fits = irfftn(mask_spectrum * mean, shape)[place] > 1 - 0.5 / count
        if not fits.any():
            continue
        if deconvolution is None:
            deconvolution = 1 - mean
        fresh = fits & ~done
        if fresh.any():
            difference[fresh] = (field - irfftn(field_spectrum * mean, shape)[place])[fresh]
            done |= fresh
    if deconvolution is None:
        raise ValueError("the mask holds no ball of any of the radii")
    inverse = np.zeros_like(deconvolution)
    np.divide(1.0, deconvolution, out=inverse, where=np.abs(deconvolution) > _THRESHOLD)
    local = np.zeros(mask.shape, dtype=np.float32)
    eroded = np.zeros(mask.shape, dtype=np.bool_)
    local[box] = irfftn(rfftn(pad_to(difference, shape)) * inverse, shape)[place] * done
    eroded[box] = done
    return local, eroded
