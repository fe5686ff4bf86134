"""The mean around each voxel, over those of its neighbours that count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter


def local_mean(values: NDArray[np.float32], mask: NDArray[np.bool_], size: int) -> NDArray[np.float32]:
    """Mean over the voxels of a mask in a cube around each voxel.

    Parameters
    ----------
    values : (X, Y, Z) float32
    mask : (X, Y, Z) bool
    size : int
        Voxels along the edge of the cube.

    Returns
    -------
    (X, Y, Z) float32
        Zero where no voxel of the mask is near.
    """
    # Half a voxel's share is less than any that there is: it keeps rounding from being divided by itself.
    share = np.maximum(uniform_filter(mask.astype(np.float32), size), np.float32(0.5 / size**3))
    return np.asarray(uniform_filter(np.where(mask, values, np.float32(0)), size) / share, np.float32)
