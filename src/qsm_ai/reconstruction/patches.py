"""Fixed-size patches: only identical shapes batch together in the inference server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil

import numpy as np
from numpy.typing import NDArray

PATCH = 96
"""Edge of a patch, voxels."""

OVERLAP = 19
"""Least overlap of neighbouring patches, voxels."""

Corner = tuple[int, int, int]


@dataclass(frozen=True)
class Patches:
    """Where the patches of a volume lie, and how much each counts in every voxel.

    Patches that contain no voxel of the mask are left out. A voxel of the mask is in none of those, so
    that the weights of the patches that cover it still sum to one.

    Attributes
    ----------
    shape : (X, Y, Z)
        Of the volume.
    corners : sequence of (x, y, z)
        First voxel of each patch that is kept. All are non-negative; a volume shorter than a patch is
        filled with zeros at its far end.
    weights : three mappings from first voxel to (size,) float64
        The partition of unity along each axis.
    size : voxels
    """

    shape: tuple[int, int, int]
    corners: tuple[Corner, ...]
    weights: tuple[dict[int, NDArray[np.float64]], ...]
    size: int

    def __len__(self) -> int:
        return len(self.corners)

    def cut(self, volume: NDArray[np.float32], which: slice = slice(None)) -> NDArray[np.float32]:
        """Take the patches out of a volume.

        Parameters
        ----------
        volume : (C, X, Y, Z) float32
        which : slice
            Of the patches, where not all are wanted at once.

        Returns
        -------
        (N, C, P, P, P) float32
        """
        if volume.shape[1:] != self.shape:
            raise ValueError(f"patches of {self.shape} do not fit a volume of {volume.shape[1:]}")
        corners = self.corners[which]
        patches = np.zeros((len(corners), volume.shape[0]) + (self.size,) * 3, dtype=np.float32)
        for patch, corner in zip(patches, corners, strict=True):
            part = volume[(slice(None), *self._region(corner))]
            patch[:, : part.shape[1], : part.shape[2], : part.shape[3]] = part
        return patches

    def blend(
        self,
        patches: NDArray[np.float32],
        into: NDArray[np.float32] | None = None,
        which: slice = slice(None),
    ) -> NDArray[np.float32]:
        """Put patches back together, each weighted so that the weights sum to one in the mask.

        Parameters
        ----------
        patches : (N, P, P, P) or (N, 1, P, P, P) float32
        into : (X, Y, Z) float32
            Add to this volume, where the patches come in several batches.
        which : slice
            Which patches these are.

        Returns
        -------
        (X, Y, Z) float32
            Zero where no patch lies.
        """
        volume = np.zeros(self.shape, dtype=np.float32) if into is None else into
        corners = self.corners[which]
        stack = patches.reshape((-1,) + (self.size,) * 3)
        for patch, corner in zip(stack, corners, strict=True):
            region = self._region(corner)
            part = volume[region]
            wx, wy, wz = (
                w[at][:n].astype(np.float32)
                for w, at, n in zip(self.weights, corner, part.shape, strict=True)
            )
            part += patch[: part.shape[0], : part.shape[1], : part.shape[2]] * (
                wx[:, None, None] * wy[None, :, None] * wz[None, None, :]
            )
        return volume

    def batches(self, count: int) -> Iterator[slice]:
        """Slices of at most ``count`` patches, in order."""
        for first in range(0, len(self), count):
            yield slice(first, min(first + count, len(self)))

    def _region(self, corner: Corner) -> tuple[slice, slice, slice]:
        x, y, z = (slice(a, min(a + self.size, n)) for a, n in zip(corner, self.shape, strict=True))
        return x, y, z


def plan_patches(mask: NDArray[np.bool_], size: int = PATCH, overlap: int = OVERLAP) -> Patches:
    """Lay patches over a volume, evenly, with at least ``overlap`` voxels in common between neighbours.

    Parameters
    ----------
    mask : (X, Y, Z) bool
        Patches without a voxel of it are left out.
    size : voxels
    overlap : voxels

    Returns
    -------
    Patches

    Raises
    ------
    ValueError
        If the overlap leaves no way forward.
    """
    if not 0 <= overlap < size:
        raise ValueError("the overlap must be shorter than a patch")
    x, y, z = mask.shape
    starts = [_starts(n, size, overlap) for n in (x, y, z)]
    weights = tuple(_axis_weights(n, s, size) for n, s in zip((x, y, z), starts, strict=True))
    corners = tuple(
        (a, b, c) for a, b, c in product(*starts) if mask[a : a + size, b : b + size, c : c + size].any()
    )
    return Patches((x, y, z), corners, weights, size)


def _starts(length: int, size: int, overlap: int) -> list[int]:
    if length <= size:
        return [0]
    count = ceil((length - overlap) / (size - overlap))
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


def _axis_weights(length: int, starts: Sequence[int], size: int) -> dict[int, NDArray[np.float64]]:
    """A raised cosine for every patch, divided by their sum: smooth, positive, and one in total."""
    position = (np.arange(size) + 0.5) / size
    bell = np.sin(np.pi * position) ** 2
    total = np.zeros(max(length, size))
    for start in starts:
        total[start : start + size] += bell
    return {start: bell / total[start : start + size] for start in starts}
