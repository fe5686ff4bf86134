"""The noise of a field that comes without a standard error, read where no susceptibility can reach."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qsm_ai.physics.fourier import frequencies
from qsm_ai.physics.inversion import Inverter
from qsm_ai.physics.morphology import depth_below_surface

CONE = 0.03
"""|D| below which k-space holds no more signal than the mask's edge lets leak in."""

HIGH = 0.4
"""Cycles per voxel; what leaks in is at lower frequencies."""

FADE_MM = 12.0
"""Depth below the mask's surface over which the field is faded in: a sharp edge leaks three times as much."""

LEAKAGE = 0.012
"""Leaking signal as a share of the map's robust scale, of 0.008 to 0.028 on noise-free simulated heads."""


def cone_noise(inverter: Inverter, mask: NDArray[np.bool_], scale: float) -> float:
    r"""Standard deviation of the noise of a local field.

    On the cone where the dipole kernel vanishes the field of any susceptibility vanishes too. What is found
    there at high frequency, :math:`P = \mathrm{median} |F (v f)|^2 / \ln 2`, is noise and a little signal
    that the mask's edge scatters there,

    .. math:: \sigma^2 = P / \textstyle\sum v^2 - (0.012 \, s)^2, \qquad
              v = \sin^2 \left( \tfrac{\pi}{2} \min(d / 12\,\mathrm{mm}, 1) \right)

    with the distance d to the mask's surface.

    Parameters
    ----------
    inverter : Inverter
        Of the local field, ppm, zero outside the mask.
    mask : (X, Y, Z) bool
    scale : float
        Robust scale s of the susceptibility, ppm.

    Returns
    -------
    float
        ppm; never less than a tenth of what was found, since the leakage is known no better.
    """
    cycles = sum(
        (k * h) ** 2
        for k, h in zip(frequencies(inverter.padded, inverter.voxel_size), inverter.voxel_size, strict=True)
    )
    silent = (np.abs(inverter.kernel) < CONE) & (cycles > HIGH**2)
    if not silent.any() or not mask.any():
        return 0.0
    depth = depth_below_surface(mask, inverter.voxel_size)
    faded = np.square(np.sin(np.pi / 2 * np.minimum(depth / FADE_MM, 1))).astype(np.float32)
    power = np.abs(inverter.transform(inverter.local_field * faded)[silent]) ** 2
    found = float(np.median(power)) / np.log(2) / float(np.square(faded).sum())
    return float(np.sqrt(max(found - (LEAKAGE * scale) ** 2, 0.01 * found)))
