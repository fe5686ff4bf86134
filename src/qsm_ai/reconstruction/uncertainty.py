"""How sure a map is: a standard deviation for each voxel, calibrated on simulated heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from qsm_ai.physics.morphology import depth_below_surface
from qsm_ai.reconstruction.evidence import Evidence

FEATURES = ("residual", "correction", "edges", "noise", "depth", "unknown")
"""Logarithms of what an error goes with; the last is 1 where the field is unknown and 0 elsewhere."""

SMALLEST = 1e-3
"""Of the robust scale: what is smaller does not make a map surer."""

RIM_MM = 3.0
"""Depth at which being deep begins to count."""

LEAST, MOST = 1e-2, 1e2
"""Standard deviations in units of the robust scale that can be told."""


@dataclass(frozen=True)
class ErrorModel:
    r"""The logarithm of the error as a straight line in a few features.

    .. math:: \ln(\sigma / s) = a + \sum_i w_i \ln f_i

    All features are dimensionless, divided by the robust scale s, so that σ follows the scale of the field.

    Attributes
    ----------
    intercept : float
    weights : one for each of ``FEATURES``
        Not negative, but that of the depth: not positive.
    """

    intercept: float
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if set(self.weights) != set(FEATURES):
            raise ValueError(f"weights are needed for {', '.join(FEATURES)}")

    def spread(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standard deviations in units of the robust scale.

        Parameters
        ----------
        features : (features, N) float32
            As :func:`features_of` has them.

        Returns
        -------
        (N,) float32
        """
        line = np.full(features.shape[1], self.intercept, np.float32)
        for name, values in zip(FEATURES, features, strict=True):
            line += np.float32(self.weights[name]) * values
        return np.exp(np.clip(line, np.log(LEAST), np.log(MOST))).astype(np.float32)


def features_of(evidence: Evidence) -> NDArray[np.float32]:
    """What the error goes with, for each voxel of the mask.

    Parameters
    ----------
    evidence : Evidence

    Returns
    -------
    (features, voxels of the mask) float32
        In the order of ``FEATURES``.
    """
    mask = evidence.mask
    scale = np.float32(evidence.scale)
    share = np.maximum(gaussian_filter(mask.astype(np.float32), 1.0, truncate=3.0)[mask], np.float32(1e-3))

    def around(squared: NDArray[np.float32]) -> NDArray[np.float32]:
        """Root mean square over the neighbourhood, in units of the scale."""
        smooth = gaussian_filter(squared * mask, 1.0, truncate=3.0)[mask] / share
        return np.asarray(np.sqrt(smooth) / scale, np.float32)

    slopes = np.zeros(mask.shape, np.float32)
    for axis in range(3):
        slopes += np.gradient(evidence.chi, axis=axis).astype(np.float32) ** 2
    depth = depth_below_surface(mask, evidence.voxel_size)[mask].astype(np.float32)
    noise = np.full(depth.shape, evidence.noise / evidence.scale, np.float32)
    positive = (around(evidence.residual**2), around(evidence.correction**2), around(slopes), noise)
    return np.stack(
        [
            *(np.log(values + np.float32(SMALLEST)) for values in positive),
            np.log1p(depth / np.float32(RIM_MM)),
            (~evidence.known[mask]).astype(np.float32),
        ]
    ).astype(np.float32)


def chi_uncertainty(evidence: Evidence, model: ErrorModel) -> NDArray[np.float32]:
    """Standard deviation of a map.

    What it covers: errors of the kind that simulated heads show. It knows nothing of a scan that is unlike
    them; see ``reconstruction.out_of_distribution`` for a warning of that.

    Parameters
    ----------
    evidence : Evidence
    model : ErrorModel

    Returns
    -------
    (X, Y, Z) float32, ppm
        Zero outside the mask.
    """
    volume = np.zeros(evidence.mask.shape, np.float32)
    volume[evidence.mask] = model.spread(features_of(evidence)) * np.float32(evidence.scale)
    return volume
