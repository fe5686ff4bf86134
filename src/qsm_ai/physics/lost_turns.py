"""Where the field is so steep that whole turns of the phase are lost between neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, label

from qsm_ai.physics.dipole import GYROMAGNETIC_RATIO

STEEPEST = 0.7 * np.pi
"""rad between neighbours, over the shortest time between echoes. From π on, turns cannot be told."""

_ALL_AROUND = np.ones((3, 3, 3), np.bool_)


def turn_in_ppm(echo_times: tuple[float, ...], field_strength: float) -> float:
    """Field (ppm) that turns the phase once between two echoes, the closest ones.

    Parameters
    ----------
    echo_times : s
        Of one echo alone, since its excitation.
    field_strength : T

    Returns
    -------
    float
    """
    time = float(min(np.diff(echo_times))) if len(echo_times) > 1 else echo_times[0]
    return 1 / (GYROMAGNETIC_RATIO * field_strength * time)


def lost_turns(total_field: NDArray[np.float32], mask: NDArray[np.bool_], turn: float) -> NDArray[np.bool_]:
    r"""Voxels at the mask's rim whose field differs from a neighbour's by nearly half a turn or more.

    Above a sinus the field changes by more than unwrapping can follow; there it is off by whole turns, a
    thousand times its noise, although a short echo may still have signal. Steep fields that do not reach
    the rim are those of calcifications and bleeds, steep for a voxel or two, and are followed around.

    Parameters
    ----------
    total_field : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
    turn : ppm
        See :func:`turn_in_ppm`.

    Returns
    -------
    (X, Y, Z) bool
    """
    steep = np.zeros(mask.shape, np.bool_)
    limit = np.float32(turn * STEEPEST / (2 * np.pi))
    for axis in range(3):
        low = tuple(slice(0, -1) if a == axis else slice(None) for a in range(3))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        step = (np.abs(total_field[high] - total_field[low]) > limit) & mask[low] & mask[high]
        steep[low] |= step
        steep[high] |= step
    parts, _ = label(steep, _ALL_AROUND)
    rim = mask & ~binary_erosion(mask, _ALL_AROUND)
    at_rim = np.unique(parts[rim & steep])
    found: NDArray[np.bool_] = steep & np.isin(parts, at_rim)
    return found
