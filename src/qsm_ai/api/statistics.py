"""Numbers about a result volume: in the brain mask, or in a sphere that the user points at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qsm_ai.api.schemas import Statistics
from qsm_ai.io.canonical import Canonical

PERCENTILES = (1, 5, 25, 75, 95, 99)


def sphere(volume: Canonical, centre: tuple[float, float, float], radius: float) -> NDArray[np.bool_]:
    """Voxels at most ``radius`` mm from ``centre`` (voxel indices to the right, front and top)."""
    x, y, z = (
        ((np.arange(n) - c) * size) ** 2
        for n, c, size in zip(volume.volume.shape, centre, volume.voxel_size, strict=True)
    )
    inside: NDArray[np.bool_] = x[:, None, None] + y[None, :, None] + z[None, None, :] <= radius**2
    return inside


def statistics(
    name: str, unit: str, volume: Canonical, region: NDArray[np.bool_], bins: int
) -> Statistics | None:
    """Statistics and histogram of the values in a region; ``None`` if the region is empty."""
    values = volume.volume[region].astype(np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return None
    percentiles = np.percentile(values, PERCENTILES)
    # A single bright voxel would leave everything else in one bin.
    low, high = float(percentiles[0]), float(percentiles[-1])
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))
    return Statistics(
        artefact=name,
        unit=unit,
        voxels=int(values.size),
        volume_ml=round(values.size * float(np.prod(volume.voxel_size)) / 1000, 4),
        mean=float(values.mean()),
        standard_deviation=float(values.std()),
        median=float(np.median(values)),
        minimum=float(values.min()),
        maximum=float(values.max()),
        percentiles={str(p): float(v) for p, v in zip(PERCENTILES, percentiles, strict=True)},
        edges=[float(edge) for edge in edges],
        counts=[int(count) for count in counts],
    )
