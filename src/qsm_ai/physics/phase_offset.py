"""The phase that is there before any echo: where it is smooth, neighbours know it better than the voxel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from qsm_ai.physics.local_mean import local_mean
from qsm_ai.physics.unwrapping import wrap

WIDTH_MM = 3.0
"""Standard deviation of the smoothing. From 2 to 8 mm the field's error differed by 5 % in heads."""

ROUNDS = 3
"""Of smoothing what the last one left: slopes survive, also at the rim, where a single round bends them."""

LARGEST_STEP = 1.0
"""Radians that a round after the first may add."""

WINDOW = 5
"""Voxels along the edge of the neighbourhood in which roughness is judged."""

SMALLEST_ROUGHNESS = 1e-6
"""Variance, rad², of the smoothest offset."""


def smooth_offset(
    offset: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: tuple[float, float, float],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    r"""What a voxel's neighbours say of its phase offset, and how far voxels stray from that.

    The receive coils make an offset that changes over centimetres. With noise of variance V in each voxel,
    a Gaussian mean G weighted by 1/V gives :math:`\bar\varphi_0 = G[\varphi_0]`; flow and tissue add what is
    not smooth, of variance

    .. math:: \tau^2 = \left\langle (\varphi_0 - \bar\varphi_0)^2 - V \right\rangle_{5^3 \text{ voxels}}

    Parameters
    ----------
    offset : (X, Y, Z) float32, rad
        Fitted in each voxel alone. Whole turns between regions do not matter.
    variance : (X, Y, Z) float32, rad²
        Of the fitted offset's noise.
    mask : (X, Y, Z) bool
    voxel_size : mm

    Returns
    -------
    deviation : (X, Y, Z) float32, rad
        Of the voxel's own offset from its neighbours', within half a turn; zero outside the mask.
    roughness : (X, Y, Z) float32, rad²
        The variance τ² of the offset itself.

    References
    ----------
    The offset's smoothness, as in Eckstein et al. 2018, 10.1002/mrm.26963.
    """
    widths = [WIDTH_MM / h for h in voxel_size]
    floor = np.float32(0.1) * np.median(variance[mask]) + np.float32(1e-12)
    precision = np.where(mask, floor / np.maximum(variance, floor), np.float32(0))
    total = gaussian_filter(precision, widths) + np.float32(1e-12)
    left = np.where(mask, offset, np.float32(0))
    sine, cosine = (gaussian_filter(precision * part, widths) for part in (np.sin(left), np.cos(left)))
    left = wrap(left - np.arctan2(sine, cosine)) * mask
    for _ in range(ROUNDS - 1):
        bounded = np.clip(left, -LARGEST_STEP, LARGEST_STEP)
        left = wrap(left - gaussian_filter(precision * bounded, widths) / total) * mask
    # A wild voxel says little about the roughness around it.
    excess = np.minimum(left**2, 9 * variance + np.float32(0.1)) - variance
    roughness = np.maximum(local_mean(excess, mask, WINDOW), np.float32(SMALLEST_ROUGHNESS))
    return left.astype(np.float32), roughness.astype(np.float32)
