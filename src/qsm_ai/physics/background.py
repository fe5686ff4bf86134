"""Background field removal by the Laplacian boundary value (LBV) method."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qsm_ai.physics.poisson import harmonic_remainder


def lbv(
    total_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: tuple[float, float, float],
    boundary: NDArray[np.float32] | None = None,
    tolerance: float = 1e-4,
) -> NDArray[np.float32]:
    r"""Local field: what remains of the total field when its harmonic part inside the mask is taken away.

    Sources outside the mask make a field that is harmonic inside, so that

    .. math:: \nabla^2 f_L = \nabla^2 f_T \text{ inside}, \qquad f_L = b \text{ on the rim}

    Parameters
    ----------
    total_field : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
    voxel_size : mm
    boundary : (X, Y, Z) float32, ppm, or None
        The local field on the rim, where it is known; zero when left out.
    tolerance : float
        Relative residual at which the solver stops.

    Returns
    -------
    (X, Y, Z) float32, ppm
        Zero outside the mask; equal to ``boundary`` on the rim, the voxels with a face towards the outside.

    References
    ----------
    Zhou et al. 2014, 10.1002/nbm.3064.
    """
    return harmonic_remainder(total_field, mask, voxel_size, boundary, tolerance)
