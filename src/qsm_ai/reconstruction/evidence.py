"""What a reconstruction leaves behind by which its map can be judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Evidence:
    """A map of the network and what was seen on the way to it, cropped to the mask and a margin.

    Attributes
    ----------
    chi : (X, Y, Z) float32, ppm
    correction : (X, Y, Z) float32, ppm
        What the network changed in the classical map, in its last pass.
    local_field : (X, Y, Z) float32, ppm
    residual : (X, Y, Z) float32, ppm
        Local field that the map does not explain.
    mask, known : (X, Y, Z) bool
        The brain, and its voxels whose field can be trusted.
    voxel_size : mm
    b0_direction : unit vector in voxel axes
    field_strength : T or None
    noise : float, ppm
        Median standard error of the field.
    scale : float, ppm
        Robust scale of the map, see ``reconstruction.inputs``.
    background_removed : bool
        Whether the local field was found here, or given.
    """

    chi: NDArray[np.float32]
    correction: NDArray[np.float32]
    local_field: NDArray[np.float32]
    residual: NDArray[np.float32]
    mask: NDArray[np.bool_]
    known: NDArray[np.bool_]
    voxel_size: tuple[float, float, float]
    b0_direction: tuple[float, float, float]
    field_strength: float | None
    noise: float
    scale: float
    background_removed: bool
