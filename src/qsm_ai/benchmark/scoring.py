"""What a map is worth against the truth: the public benchmark's metrics, regions and lesions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qsm_ci.qsm_eval import calcification_metrics, linear_fit, score_arrays
from scipy.ndimage import binary_dilation, distance_transform_edt

from qsm_ai.benchmark.phantoms import DSEG
from qsm_ai.physics.fourier import bounding_box

RIM = 6
"""Voxels taken off the brain for the interior, as in the project's goal."""

CROP = 12
"""Voxels left around the brain: more than any filter of a metric reaches."""

SMALLEST_REGION = 5
"""Voxels of a region that is counted."""

LESION_REACH = 2
"""Voxels around a lesion into which its moment may have spread."""

METRICS = ("nrmse", "nrmse_detrend", "correlation", "xsim", "hfen")


@dataclass(frozen=True)
class Quality:
    """How near a map comes to the truth.

    Attributes
    ----------
    interior, brain : dict
        ``METRICS``, in the brain less ``RIM`` voxels and in all of it. NRMSE (demeaned, and detrended by
        a straight line) and HFEN in per cent, the others up to one.
    coverage : float
        Share of the brain's voxels that have a value.
    slope : float or None
        Of the line through the means of six deep nuclei, estimated against true; None with fewer than two.
    regions : dict of (true, estimated, standard deviation of the error), ppm
        Means of each nucleus and of the lesion, above the mean of the brain; and the error in it.
    depths : dict of float
        Root mean square error, ppm, by depth below the brain's surface in voxels.
    lesion : dict or None
        ``moment``: estimated over true, both above their surroundings. ``deviation``: QSM-CI's, over the
        true moment. ``streak``: QSM-CI's level of streaks.
    """

    interior: dict[str, float]
    brain: dict[str, float]
    coverage: float
    slope: float | None = None
    regions: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    depths: dict[str, float] = field(default_factory=dict)
    lesion: dict[str, float] | None = None


def assess(
    chi: NDArray[np.float32],
    truth: NDArray[np.float32],
    mask: NDArray[np.bool_],
    regions: NDArray[np.uint8] | None = None,
) -> Quality:
    """Compare a map with the truth on a mask that is the same for every method.

    Parameters
    ----------
    chi, truth : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
    regions : (X, Y, Z) uint8 or None
        Numbered as in ``phantoms.DSEG``.

    Returns
    -------
    Quality
    """
    box = bounding_box(mask, CROP)
    chi, truth, mask = chi[box], truth[box], mask[box]
    depth = distance_transform_edt(mask)
    inner, _ = score_arrays(chi, truth, depth > RIM)
    whole, _ = score_arrays(chi, truth, mask)
    estimate = np.where(mask, chi - chi[mask].mean(), 0)
    truth = np.where(mask, truth - truth[mask].mean(), 0)
    error = estimate - truth
    depths = {
        name: float(np.sqrt((error[shell] ** 2).mean()))
        for name, shell in _shells(mask, depth).items()
        if shell.any()
    }
    found: dict[str, tuple[float, float, float]] = {}
    lesion = None
    if regions is not None:
        labels = np.where(mask, regions[box], 0)
        for name, number in DSEG.items():
            inside = labels == number
            if np.count_nonzero(inside) >= SMALLEST_REGION:
                means = float(truth[inside].mean()), float(estimate[inside].mean())
                found[name] = (*means, float(error[inside].std()))
        lesion = _lesion(estimate, truth, mask, labels)
    return Quality(
        {name: float(inner[name]) for name in METRICS},
        {name: float(whole[name]) for name in METRICS},
        float(whole["coverage"]),
        _slope(found),
        found,
        depths,
        lesion,
    )


def _shells(mask: NDArray[np.bool_], depth: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    """Layers of the brain by depth, in voxels."""
    return {
        "0–2": mask & (depth <= 2),
        "2–4": (depth > 2) & (depth <= 4),
        "4–6": (depth > 4) & (depth <= RIM),
        "6–12": (depth > RIM) & (depth <= 12),
        "over 12": depth > 12,
    }


def _slope(regions: dict[str, tuple[float, float, float]]) -> float | None:
    """Of estimated over true means of the six nuclei with the numbers 1 to 6."""
    pairs = [values[:2] for name, values in regions.items() if DSEG[name] <= 6]
    if len(pairs) < 2:
        return None
    true, estimated = np.array(pairs).T
    return float(linear_fit(true, estimated)[0])


def _lesion(
    estimate: NDArray[np.floating[Any]],
    truth: NDArray[np.floating[Any]],
    mask: NDArray[np.bool_],
    labels: NDArray[np.uint8],
) -> dict[str, float] | None:
    ball = labels == DSEG["lesion"]
    if not ball.any():
        return None
    near = binary_dilation(ball, iterations=LESION_REACH) & mask
    around = binary_dilation(near, iterations=LESION_REACH) & mask & ~near

    def moment(values: NDArray[np.floating[Any]]) -> float:
        return float((values[near] - np.median(values[around])).sum())

    # The public metric knows calcifications alone: a bright lesion is looked at upside down.
    sign = -1.0 if truth[ball].mean() > 0 else 1.0
    deviation, streak = calcification_metrics(sign * estimate, sign * truth, labels)
    return {
        "moment": moment(estimate) / moment(truth),
        "deviation": float(deviation / abs(truth[ball].sum())),
        "streak": float(streak),
    }
