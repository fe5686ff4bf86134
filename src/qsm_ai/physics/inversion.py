"""Closed-form dipole inversions, and the meeting of a prior map with the measured field."""

from __future__ import annotations

import numpy as np

from qsm_ai.physics.dipole import dipole_kernel
from qsm_ai.physics.fourier import Array, fast_shape, irfftn, like, pad_to, rfftn

Voxel = tuple[float, float, float]

CONSISTENCY_STEPS = 3
"""Towards the map that is nearest to a prior and to a field that is not known everywhere."""


class Inverter:
    """Dipole inversions of one grid, sharing its padded kernel and the field's spectrum.

    Parameters
    ----------
    local_field : (X, Y, Z) float32, ppm
        numpy or torch; zero outside the mask.
    voxel_size : mm
    b0_direction : unit vector in voxel axes
    margin : voxels of zeros behind each axis, a quarter of the axis when left out
    """

    def __init__(
        self, local_field: Array, voxel_size: Voxel, b0_direction: Voxel, margin: int | None = None
    ) -> None:
        self.local_field, self.voxel_size, self.b0_direction = local_field, voxel_size, b0_direction
        self.shape = tuple(local_field.shape[-3:])
        margins = tuple(max(8, n // 4) for n in self.shape) if margin is None else (margin,) * 3
        self.padded = fast_shape(self.shape, margins)
        self.kernel: Array = like(dipole_kernel(self.padded, voxel_size, b0_direction), local_field)
        self.spectrum = self.transform(local_field)

    def transform(self, volume: Array) -> Array:
        """Half spectrum of a volume of this grid, padded."""
        return rfftn(pad_to(volume, self.padded))

    def volume(self, spectrum: Array) -> Array:
        """Volume of this grid from a half spectrum, the padding cut off."""
        x, y, z = self.shape
        return irfftn(spectrum, self.padded)[..., :x, :y, :z]

    def forward(self, chi: Array) -> Array:
        """Field (ppm) of a map (ppm) of this grid."""
        return self.volume(self.kernel * self.transform(chi))

    def tikhonov(self, regularisation: float) -> Array:
        """See :func:`tikhonov`."""
        return self.volume(self.spectrum * (self.kernel / (self.kernel**2 + regularisation)))

    def tkd(self, threshold: float) -> Array:
        """See :func:`tkd`."""
        kernel = self.kernel
        sign = 1 - 2 * (kernel < 0).astype(np.float32) if isinstance(kernel, np.ndarray) else kernel.sign()
        safe = abs(kernel) > threshold
        inverse = safe * (1 / (kernel + ~safe)) + ~safe * (sign / threshold)
        return self.volume(self.spectrum * inverse)

    def consistency(
        self, prior: Array, weight: float, mask: Array | None = None, steps: int = CONSISTENCY_STEPS
    ) -> Array:
        """See :func:`data_consistency`; without a mask the field outside counts as measured, and zero."""
        kernel = self.kernel
        gain = kernel / (kernel**2 + weight)
        start = spectrum = self.transform(prior)
        if mask is None:
            return self.volume(start + (self.spectrum - kernel * start) * gain)
        field = self.volume(self.spectrum)
        for _ in range(steps):
            remainder = self.transform((field - self.volume(kernel * spectrum)) * mask)
            spectrum = start + (kernel * (spectrum - start) + remainder) * gain
        return self.volume(spectrum)


def tkd(
    local_field: Array, mask: Array, voxel_size: Voxel, b0_direction: Voxel, threshold: float = 0.15
) -> Array:
    r"""Thresholded k-space division.

    .. math:: \chi = F^{-1} \left[ \frac{F f}{D} \right] \text{ where } |D| > t, \quad
              F^{-1} \left[ \mathrm{sgn}(D) \frac{F f}{t} \right] \text{ elsewhere}

    Parameters
    ----------
    local_field : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
    voxel_size : mm
    b0_direction : unit vector in voxel axes
    threshold : float

    Returns
    -------
    (X, Y, Z) float32, ppm
        Zero outside the mask.

    References
    ----------
    Shmueli et al. 2009, 10.1002/mrm.22135.
    """
    return Inverter(local_field, voxel_size, b0_direction).tkd(threshold) * mask


def tikhonov(
    local_field: Array, mask: Array, voxel_size: Voxel, b0_direction: Voxel, regularisation: float = 0.01
) -> Array:
    r"""Tikhonov-regularised inversion.

    .. math:: \chi = F^{-1} \left[ \frac{D \cdot F f}{D^2 + \lambda} \right]

    Parameters
    ----------
    local_field : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
    voxel_size : mm
    b0_direction : unit vector in voxel axes
    regularisation : float
        λ, dimensionless.

    Returns
    -------
    (X, Y, Z) float32, ppm
        Zero outside the mask.

    References
    ----------
    Bilgic et al. 2014, 10.1002/mrm.25029.
    """
    return Inverter(local_field, voxel_size, b0_direction).tikhonov(regularisation) * mask


def data_consistency(
    local_field: Array, prior: Array, mask: Array, voxel_size: Voxel, b0_direction: Voxel, weight: float
) -> Array:
    r"""The map nearest to a prior and to the measured field at once.

    .. math:: \min_\chi \tfrac12 \| W (d * \chi - f) \|_2^2 + \tfrac{\mu}{2} \| \chi - \chi_0 \|_2^2

    Outside the mask the field is unknown, not zero. Each of three steps fills it in from the map so far,
    :math:`\tilde f = W^2 f + (1 - W^2) (d * \chi)`, beginning with the prior, and divides in k-space:

    .. math:: \chi \leftarrow \chi_0 + F^{-1} \left[ \frac{D}{D^2 + \mu} F (\tilde f - d * \chi_0) \right]

    which never raises the sum above, and reaches its least value in the first step where W is one.

    Parameters
    ----------
    local_field, prior : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool or float32
        W²; a float between 0 and 1 where the field is doubted.
    voxel_size : mm
    b0_direction : unit vector in voxel axes
    weight : float
        μ, the ratio of the variance of the field's error to that of the prior's.

    Returns
    -------
    (X, Y, Z) float32, ppm
        Zero outside the mask.
    """
    return Inverter(local_field, voxel_size, b0_direction).consistency(prior, weight, mask) * mask
