"""From unwrapped phase over echo time to the relative field, with its standard error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsm_ai.physics.dipole import GYROMAGNETIC_RATIO
from qsm_ai.physics.local_mean import local_mean
from qsm_ai.physics.lost_turns import lost_turns, turn_in_ppm
from qsm_ai.physics.phase_offset import smooth_offset

OUTLIER = 3.0
"""Standard deviations beyond which a voxel's own residual, a wrong turn perhaps, counts against it."""

NEIGHBOURHOOD = 5
"""Voxels along the edge of the cube in which the residual is averaged."""


@dataclass(frozen=True)
class FieldMap:
    """A field, how sure it is, and the phase that was there before any echo.

    Attributes
    ----------
    total_field : (X, Y, Z) float32, ppm
    standard_error : (X, Y, Z) float32, ppm
    phase_offset : (X, Y, Z) float32, rad
    """

    total_field: NDArray[np.float32]
    standard_error: NDArray[np.float32]
    phase_offset: NDArray[np.float32]


def fit_field(
    unwrapped: NDArray[np.float32],
    magnitude: NDArray[np.float32] | None,
    mask: NDArray[np.bool_],
    echo_times: tuple[float, ...],
    field_strength: float,
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> FieldMap:
    r"""Fit offset and slope of the phase over echo time, weighted by the magnitude.

    Phase noise is σ/m, so that the weights are :math:`w_j = m_j^2` and

    .. math::
        \delta = \frac{1}{2\pi\gamma B_0}
                 \frac{\sum w_j (t_j - \bar t)(\varphi_j - \bar\varphi)}{\sum w_j (t_j - \bar t)^2}, \qquad
        \mathrm{SE}(\delta) = \frac{1}{2\pi\gamma B_0} \frac{\sigma}{\sqrt{\sum w_j (t_j - \bar t)^2}}

    σ is the larger of the whole volume's noise, from the median weighted residual of the fit, and the mean
    residual around the voxel, where the phase does not run along a line (flow, steep gradients, lost signal).
    Where the field is too steep to be unwrapped (:func:`lost_turns.lost_turns`) the error is a whole turn.

    A line through few echoes leaves its slope unsure because its offset is. Where the offset is smooth, its
    neighbours' mean is a better one (:func:`phase_offset.smooth_offset`): with the deviation d from it, the
    offset's noise V and its true roughness τ², the best estimate of the slope moves by

    .. math:: -\frac{\mathrm{Cov}(\delta, \varphi_0)}{V + \tau^2} d, \qquad
              \text{and its variance falls by } \frac{\mathrm{Cov}(\delta, \varphi_0)^2}{V + \tau^2}

    which nearly halves the error of four echoes at 3 T; a rough offset stays the voxel's own.

    Parameters
    ----------
    unwrapped : (E, X, Y, Z) float32, rad
    magnitude : (E, X, Y, Z) float32 or None
        Without it all echoes weigh the same.
    mask : (X, Y, Z) bool
    echo_times : E values, s
    field_strength : T
    voxel_size : mm

    Returns
    -------
    FieldMap
        Zero outside the mask. With one echo there is no offset; with fewer than three, no residual either,
        and the noise is read from second differences along the axes instead: of the offset, or of the echo.

    References
    ----------
    Robinson et al. 2017, 10.1002/nbm.3601.
    """
    times = np.asarray(echo_times, np.float32)[:, None]
    phase = unwrapped[:, mask]
    weights = magnitude[:, mask] ** 2 if magnitude is not None else np.ones_like(phase)
    weights /= max(float(weights.mean()), 1e-30)
    weights = np.maximum(weights, 1e-6)
    total = weights.sum(axis=0)
    if len(echo_times) == 1:
        mean_time = np.zeros_like(total)
        mean_phase = np.zeros_like(total)
    else:
        mean_time = (weights * times).sum(axis=0) / total
        mean_phase = (weights * phase).sum(axis=0) / total
    spread = (weights * (times - mean_time) ** 2).sum(axis=0)
    slope = (weights * (times - mean_time) * (phase - mean_phase)).sum(axis=0) / spread
    offset = mean_phase - slope * mean_time

    def volume(values: NDArray[np.float32]) -> NDArray[np.float32]:
        filled = np.zeros(mask.shape, np.float32)
        filled[mask] = values
        return filled

    if len(echo_times) > 2:
        residual = phase - offset - slope * times
        chi2 = (weights * residual**2).sum(axis=0) / (len(echo_times) - 2)
        around = local_mean(volume(chi2), mask, NEIGHBOURHOOD)[mask]
        variance = np.maximum(_median_variance(chi2, len(echo_times) - 2), around)
        variance = np.maximum(variance, chi2 / OUTLIER**2)
    elif len(echo_times) == 2:
        # Anatomy shows in each echo, but hardly in the phase before any.
        telling = 1 / (1 / total + mean_time**2 / spread)
        variance = np.full_like(total, _texture_variance(volume(offset), mask, telling))
    else:
        variance = np.full_like(total, _texture_variance(unwrapped[0], mask, total))
    ppm = np.float32(1 / (2 * np.pi * GYROMAGNETIC_RATIO * field_strength))
    slope_variance = variance / spread

    if len(echo_times) > 1:
        offset_variance = variance / total + mean_time**2 * slope_variance
        covariance = -mean_time * slope_variance
        smooth = smooth_offset(volume(offset), volume(offset_variance), mask, voxel_size)
        deviation, roughness = (values[mask] for values in smooth)
        gain = covariance / (offset_variance + roughness)
        slope = slope - gain * deviation
        slope_variance = slope_variance - gain * covariance
        offset = offset - deviation * offset_variance / (offset_variance + roughness)
    total_field, error = volume(slope * ppm), volume(np.sqrt(slope_variance) * ppm)
    turn = turn_in_ppm(echo_times, field_strength)
    error[lost_turns(total_field, mask, turn)] += np.float32(turn)
    return FieldMap(total_field, error, volume(offset))


def _median_variance(chi2: NDArray[np.float32], freedom: int) -> float:
    """Noise variance from the median of reduced χ² values, by Wilson and Hilferty's median of χ²."""
    return float(np.median(chi2)) / (1 - 2 / (9 * freedom)) ** 3


def _texture_variance(
    phase: NDArray[np.float32], mask: NDArray[np.bool_], weights: NDArray[np.float32]
) -> float:
    """Upper bound of the noise variance from second differences along the smoothest axis."""
    weight = np.zeros(mask.shape, np.float32)
    weight[mask] = weights
    lowest = np.inf
    for axis in range(3):
        middle, low, high = (
            tuple(s if a == axis else slice(None) for a in range(3))
            for s in (slice(1, -1), slice(0, -2), slice(2, None))
        )
        inside = mask[middle] & mask[low] & mask[high]
        if inside.any():
            second = (phase[low] - 2 * phase[middle] + phase[high])[inside]
            sigma = 1.4826 * float(np.median(np.abs(second) * np.sqrt(weight[middle][inside]))) / np.sqrt(6)
            lowest = min(lowest, sigma**2)
    return lowest if np.isfinite(lowest) else 1.0


def reliable(
    standard_error: NDArray[np.float32], mask: NDArray[np.bool_], floor: float = 0.01, factor: float = 5.0
) -> NDArray[np.bool_]:
    """Voxels of the mask whose field is known well enough to enter a differential equation.

    One wild voxel spoils everything around it when its Laplacian is taken, so that voxels without signal are
    better left out and filled in later.

    Parameters
    ----------
    standard_error : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
    floor : float, ppm
        An error below it is never too large.
    factor : float
        How many times the median error is too large.

    Returns
    -------
    (X, Y, Z) bool
    """
    limit = max(floor, factor * float(np.median(standard_error[mask]))) if mask.any() else floor
    return mask & (standard_error <= limit)
