"""What a susceptibility of zero means."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from qsm_ai.physics.local_mean import local_mean
from qsm_ai.physics.morphology import depth_below_surface

Reference = Literal["mean", "csf", "none"]

CSF_RATE, CSF_SHARE = 8.0, 0.4
"""1/s, and share of the brain's median R2*: fluid decays slower than both."""

CENTRE_MM, DEEP_MM = 35.0, 8.0
"""How near to the brain's centre of mass, and how far from its surface, the ventricles are sought."""

PARTS = 3
"""The largest of the connected parts: both lateral ventricles and the third."""

LEAST_ML = 0.3
"""Of fluid, below which a mean says nothing."""


def reference(
    chi: NDArray[np.float32],
    mask: NDArray[np.bool_],
    kind: Reference = "mean",
    csf: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    r"""Susceptibility relative to a reference, zero outside the mask.

    The dipole kernel is undefined at k = 0, so that a map is known up to a constant; the consensus
    recommendation is to state the reference with the map.

    .. math:: \chi_{ref} = \chi - \langle \chi \rangle_{region}

    Parameters
    ----------
    chi : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
    kind : "mean", "csf" or "none"
        The mean over the mask, the mean over fluid, or the constant as the inversion left it.
    csf : (X, Y, Z) bool or None
        Fluid, see :func:`csf_region`; needed for "csf".

    Returns
    -------
    (X, Y, Z) float32, ppm

    Raises
    ------
    ValueError
        If the kind is unknown, or the mask or the fluid is empty or missing.

    References
    ----------
    QSM Consensus Organization Committee 2024, 10.1002/mrm.30006.
    """
    if kind not in {"mean", "csf", "none"}:
        raise ValueError(f"unknown reference {kind!r}: mean, csf or none")
    if not mask.any():
        raise ValueError("the mask is empty")
    region = mask
    if kind == "csf":
        if csf is None or not (csf & mask).any():
            raise ValueError("no cerebrospinal fluid is given")
        region = csf & mask
    offset = np.float32(0) if kind == "none" else np.float32(chi[region].mean(dtype=np.float64))
    return np.where(mask, chi - offset, np.float32(0)).astype(np.float32, copy=False)


def csf_region(
    r2star: NDArray[np.float32], mask: NDArray[np.bool_], voxel_size: tuple[float, float, float]
) -> NDArray[np.bool_] | None:
    """Find the fluid of the ventricles: what decays slowly near the middle of the brain.

    Parameters
    ----------
    r2star : (X, Y, Z) float32, 1/s
    mask : (X, Y, Z) bool
    voxel_size : mm

    Returns
    -------
    (X, Y, Z) bool or None
        None where there is too little to be sure of.

    References
    ----------
    Liu et al. 2018, 10.1002/mrm.26946, take the region from R2* and the distance to the centre.
    """
    measured = mask & (r2star > 0)
    if not measured.any():
        return None
    # A voxel's own R2* is too noisy: that of its neighbourhood within the mask decides.
    around = local_mean(r2star, measured, 3)
    limit = min(CSF_RATE, CSF_SHARE * float(np.median(r2star[measured])))
    centre = [float(axis.mean()) for axis in np.nonzero(mask)]
    squared = np.zeros(mask.shape, np.float32)
    for axis, (middle, size) in enumerate(zip(centre, voxel_size, strict=True)):
        shape = [1, 1, 1]
        shape[axis] = -1
        away = (np.arange(mask.shape[axis], dtype=np.float32) - np.float32(middle)) * np.float32(size)
        squared += (away**2).reshape(shape)
    deep = depth_below_surface(mask, voxel_size) > DEEP_MM
    fluid = measured & deep & (squared < CENTRE_MM**2) & (around < limit)
    parts, count = label(fluid)
    if not count:
        return None
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest = np.argsort(sizes)[::-1][:PARTS]
    region: NDArray[np.bool_] = np.isin(parts, largest[sizes[largest] > 0])
    millilitres = np.count_nonzero(region) * float(np.prod(voxel_size)) / 1e3
    return region if millilitres >= LEAST_ML else None
