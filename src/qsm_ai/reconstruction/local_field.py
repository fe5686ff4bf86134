"""The local field: what remains of a total field without the sources outside."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qsm_ai.physics.pdf import pdf


def remove_background(
    total_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    known: NDArray[np.bool_],
    voxel_size: tuple[float, float, float],
    b0_direction: tuple[float, float, float],
    *,
    method: Literal["pdf", "lbv"] = "pdf",
    inner_field: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Take the field of sources outside the mask away.

    What is taken for background depends on what the inner sources do at the rim. Where a first map tells
    their field, the background is sought in what that leaves unexplained.

    Parameters
    ----------
    total_field : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
    known : (X, Y, Z) bool
        Voxels of the mask whose field can be trusted.
    voxel_size : mm
    b0_direction : unit vector in voxel axes
    method : str
        ``pdf`` or ``lbv``.
    inner_field : (X, Y, Z) float32 or None, ppm
        Field of the sources inside, as far as they are known.

    Returns
    -------
    (X, Y, Z) float32, ppm
        Zero where the field is not known.
    """
    unexplained = total_field if inner_field is None else total_field - inner_field
    if method == "lbv":
        from qsm_ai.physics.background import lbv

        local = lbv(unexplained, known, voxel_size)
    else:
        # Voxels without a trustworthy field say nothing, but are no place for outer sources either: a
        # calcification there would be taken for background.
        silent = np.where(known, np.float32(1), np.float32(np.inf))
        local = pdf(unexplained, mask, voxel_size, b0_direction, silent)
    if inner_field is not None:
        local = local + inner_field
    return local * known
