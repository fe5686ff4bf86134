"""Edges of the magnitude: where the susceptibility may step, and which way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Edges:
    """Borders of tissue, as far as an image shows them.

    Attributes
    ----------
    smoothness : (X, Y, Z) float32
        From one where the image is flat down to zero at its sharpest borders.
    normal : (3, X, Y, Z) float32
        Unit vectors across the borders, in voxel axes; zero where the image does not change at all.
    """

    smoothness: NDArray[np.float32]
    normal: NDArray[np.float32]


def magnitude_edges(
    magnitude: NDArray[np.float32], mask: NDArray[np.bool_], voxel_size: tuple[float, float, float]
) -> Edges:
    r"""Edges of a multi-echo magnitude.

    .. math:: m^2 = \sum_j m_j^2, \qquad w = \frac{1}{1 + |\nabla m|^2 / q}, \qquad n = \nabla m / |\nabla m|

    with q the median of :math:`|\nabla m|^2` in the mask: noise and shading, which are everywhere, set what
    counts as a border, so that no unit, no SNR and no receive coil changes the result much. Differences are
    taken towards the next voxel, as in :func:`total_variation.total_variation`, and only between voxels of
    the mask: its rim is no border of tissue.

    Parameters
    ----------
    magnitude : (E, X, Y, Z) float32
        Of any unit.
    mask : (X, Y, Z) bool
    voxel_size : mm

    Returns
    -------
    Edges

    Raises
    ------
    ValueError
        If the mask is empty.

    References
    ----------
    Liu et al. 2012, 10.1016/j.neuroimage.2011.08.082; Ehrhardt and Betcke 2016, 10.1137/15M1047325.
    """
    if not mask.any():
        raise ValueError("the mask is empty")
    combined = np.sqrt(np.einsum("e...,e...->...", magnitude, magnitude))
    normal = slopes(combined, mask, voxel_size)
    power = np.einsum("a...,a...->...", normal, normal)
    usual = max(float(np.median(power[mask])), float(np.finfo(np.float32).tiny))
    normal /= np.sqrt(np.maximum(power, np.finfo(np.float32).tiny))
    return Edges(smoothness=1 / (1 + power / np.float32(usual)), normal=normal)


def slopes(
    volume: NDArray[np.float32], mask: NDArray[np.bool_], voxel_size: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Differences towards the next voxel along each axis, between voxels of a mask.

    Parameters
    ----------
    volume : (X, Y, Z) float32
    mask : (X, Y, Z) bool
    voxel_size : mm

    Returns
    -------
    (3, X, Y, Z) float32
        Of the volume's unit per mm; zero where one of the two voxels is outside the mask.
    """
    found = np.zeros((3, *mask.shape), dtype=np.float32)
    for axis, h in enumerate(voxel_size):
        values, slope = np.moveaxis(volume, axis, 0), np.moveaxis(found[axis], axis, 0)
        inside = np.moveaxis(mask, axis, 0)
        both = inside[1:] & inside[:-1]
        np.subtract(values[1:], values[:-1], out=slope[:-1], where=both)
        slope /= np.float32(h)
    return found
