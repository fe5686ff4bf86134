"""What the network sees: local field, closed-form maps, the field's error and the mask, free of scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qsm_ai.physics.inversion import Inverter

CHANNELS = ("local_field", "tikhonov_fine", "tikhonov_smooth", "field_error", "mask")
FINE, SMOOTH = 0.01, 0.05
"""Tikhonov regularisations of the map that the network corrects and of the smoother one beside it."""

ERROR_GAIN, ERROR_CEILING = 10.0, 5.0
SMALLEST_SCALE = 1e-4
"""ppm; below it a volume holds nothing but rounding, and dividing by it would blow that up."""


def network_inputs(
    inverter: Inverter, standard_error: NDArray[np.float32], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    r"""Dimensionless inputs, so that the whole is equivariant to a change of scale.

    All maps are divided by the robust scale of the smoother inversion inside the mask,

    .. math:: s = 1.4826 \, \mathrm{median} |\chi_{0.05} - \mathrm{median}\,\chi_{0.05}|

    Parameters
    ----------
    inverter : Inverter
        Of the local field (ppm), zero outside the mask.
    standard_error : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
        Voxels whose field can be trusted.

    Returns
    -------
    inputs : (5, X, Y, Z) float32
        In the order of ``CHANNELS``.
    first : (X, Y, Z) float32, ppm
        The finer inversion, which the network corrects.
    scale : float, ppm
    """
    first = inverter.tikhonov(FINE) * mask
    smooth = inverter.tikhonov(SMOOTH) * mask
    inside = smooth[mask]
    scale = max(1.4826 * float(np.median(np.abs(inside - np.median(inside)))), SMALLEST_SCALE)
    field = inverter.volume(inverter.spectrum) * mask
    error = np.minimum(standard_error * np.float32(ERROR_GAIN / scale), np.float32(ERROR_CEILING)) * mask
    inputs = np.stack([field / scale, first / scale, smooth / scale, error, mask.astype(np.float32)])
    return inputs.astype(np.float32), first.astype(np.float32), scale
