"""What the network sees: field, two classical maps, the field's error, mask and edges, free of scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from qsm_ai.physics.edges import Edges
from qsm_ai.physics.inversion import Inverter
from qsm_ai.physics.noise import cone_noise
from qsm_ai.physics.referencing import reference
from qsm_ai.physics.robust import robust_spread
from qsm_ai.physics.total_variation import total_variation

Inversion = Callable[..., NDArray[np.float32]]

CHANNELS = ("local_field", "total_variation", "tikhonov", "field_error", "mask", "edges")
SMOOTH = 0.05
"""Tikhonov regularisation of the map that sets the scale."""

USUAL_SCALE = 0.025
"""ppm; of a healthy brain. Total variation is sought at this scale, so that it follows that of the field."""

TOTAL_VARIATION_WEIGHT = 4e-4
"""λ of total variation, ppm mm at the usual scale, without a magnitude."""

NOISE_FACTOR, LEAST_WEIGHT, MOST_WEIGHT = 3.6e-3, 1.5e-4, 6e-4
"""Of λ = 3.6·10⁻³ noise / scale, held between the two others, where the magnitude's edges are known."""

ERROR_GAIN, ERROR_CEILING = 10.0, 5.0
SMALLEST_SCALE = 1e-4
"""ppm; below it a volume holds nothing but rounding, and dividing by it would blow that up."""


@dataclass(frozen=True)
class NetworkInputs:
    """What a local field has to say to the network.

    Attributes
    ----------
    channels : (6, X, Y, Z) float32
        In the order of ``CHANNELS``.
    first : (X, Y, Z) float32, ppm
        The map of least total variation, mean zero in the mask, which the network corrects.
    scale : float, ppm
        What the channels were divided by.
    noise : float, ppm
        Median standard error of the field where it is known.
    """

    channels: NDArray[np.float32]
    first: NDArray[np.float32]
    scale: float
    noise: float


def robust_scale(chi: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Spread of a map in the mask: 1.4826 times its median absolute deviation.

    Parameters
    ----------
    chi : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool

    Returns
    -------
    float, ppm
        ``SMALLEST_SCALE`` or more.
    """
    return max(robust_spread(chi[mask]), SMALLEST_SCALE)


def edge_weight(noise: float, scale: float) -> float:
    r"""Weight λ of total variation beside the magnitude's edges.

    .. math:: \lambda = 3.6 \cdot 10^{-3} \, \sigma / s

    Parameters
    ----------
    noise : float, ppm
        Median standard error σ of the field.
    scale : float, ppm
        Robust scale s of the map.

    Returns
    -------
    float, ppm mm
        At ``USUAL_SCALE``.
    """
    return min(max(NOISE_FACTOR * noise / scale, LEAST_WEIGHT), MOST_WEIGHT)


def network_inputs(
    inverter: Inverter,
    standard_error: NDArray[np.float32] | None,
    mask: NDArray[np.bool_],
    known: NDArray[np.bool_] | None = None,
    edges: Edges | None = None,
    invert: Inversion = total_variation,
) -> NetworkInputs:
    r"""Dimensionless inputs, so that the whole is equivariant to a change of scale.

    All maps are divided by the robust scale of a smooth Tikhonov inversion inside the mask,

    .. math:: s = 1.4826 \, \mathrm{median} |\chi_{0.05} - \mathrm{median}\,\chi_{0.05}|

    Parameters
    ----------
    inverter : Inverter
        Of the local field (ppm), zero where it is unknown.
    standard_error : (X, Y, Z) float32, ppm, or None
        Of the field; where it came without one, the same everywhere and read from the field itself.
    mask : (X, Y, Z) bool
        Where susceptibility is sought.
    known : (X, Y, Z) bool or None
        Voxels of the mask whose field can be trusted; all of it when left out. The total-variation map
        reaches into the others: a calcification without signal still shows in the field around it.
    edges : Edges or None
        Of the magnitude, where the map may step; where they are known, its weight follows the noise.
    invert : callable
        Total variation, of :func:`physics.total_variation.total_variation` or the same on another device.

    Returns
    -------
    NetworkInputs
    """
    known = mask if known is None else known
    field = inverter.local_field * known
    smooth = inverter.tikhonov(SMOOTH) * known
    scale = robust_scale(smooth, known)
    factor = np.float32(USUAL_SCALE / scale)
    trusted = known.astype(np.float32)
    if standard_error is None:
        standard_error = known * np.float32(cone_noise(inverter, known, scale))
    noise = float(np.median(standard_error[known])) if known.any() else 0.0
    geometry = inverter.voxel_size, inverter.b0_direction
    weight = TOTAL_VARIATION_WEIGHT if edges is None else edge_weight(noise, scale)
    least = invert(field * factor, mask, *geometry, weight, weights=trusted, edges=edges) / factor
    first = reference(least, mask, "mean")
    error = np.minimum(standard_error * np.float32(ERROR_GAIN / scale), np.float32(ERROR_CEILING)) * known
    borders = np.zeros_like(trusted) if edges is None else _borders(edges) * mask
    inputs = np.stack([field / scale, first / scale, smooth / scale, error, trusted, borders])
    return NetworkInputs(inputs.astype(np.float32), first.astype(np.float32), scale, noise)


def _borders(edges: Edges) -> NDArray[np.float32]:
    """How sharp the borders through each voxel are, from 0, as in an image that is flat, to 1.

    Differences towards the next voxel lie between voxels: the mean of the eight around one is the same
    when the image is mirrored, as the network is trained.
    """
    around: NDArray[np.float32] = uniform_filter(1 - edges.smoothness, 2, mode="nearest")
    return around
