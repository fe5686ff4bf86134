"""Volumes turned along the patient's axes, and slices of them as radiologists look at them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from numpy.typing import NDArray

from qsm_ai.scan import Grid

Plane = Literal["sagittal", "coronal", "axial"]
PLANES: tuple[Plane, ...] = get_args(Plane)
"""In the order of the axes that they cut across."""


@dataclass(frozen=True)
class Canonical:
    """A volume turned so that its axes run to the patient's right, front and top.

    Attributes
    ----------
    volume : (X, Y, Z)
    voxel_size : mm
    """

    volume: NDArray[np.float32]
    voxel_size: tuple[float, float, float]

    @classmethod
    def of(cls, volume: NDArray[np.float32], grid: Grid) -> Self:
        """The nearest turn by right angles and flips; nothing is interpolated.

        Parameters
        ----------
        volume : (X, Y, Z) float32
        grid : Grid
        """
        orientation = io_orientation(grid.affine)  # type: ignore[no-untyped-call]
        turned = apply_orientation(volume, orientation)  # type: ignore[no-untyped-call]
        return cls(np.asarray(turned), canonical_geometry(grid)[1])

    @classmethod
    def read(cls, path: Path) -> Self:
        """A NIfTI file, turned.

        Parameters
        ----------
        path : Path
        """
        # What is kept in memory must not hang on a file that is removed.
        image = nib.Nifti1Image.from_filename(path, mmap=False)
        volume = np.asarray(image.dataobj, np.float32)
        return cls.of(volume, Grid(volume.shape, image.affine))

    def centre(self) -> tuple[int, int, int]:
        """Centre of what is not zero, else of the volume."""
        filled = self.volume != 0
        if not filled.any():
            x, y, z = (n // 2 for n in self.volume.shape)
            return x, y, z
        middle = []
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            weight = np.count_nonzero(filled, axis=others).astype(np.float64)
            middle.append(round(float((weight * np.arange(weight.size)).sum() / weight.sum())))
        x, y, z = middle
        return x, y, z

    def plane(self, plane: Plane, index: int) -> NDArray[np.float32]:
        """One slice as it is looked at, the first row on top.

        The patient's right is on the left of axial and coronal slices, the front on the left of sagittal
        ones; the front (axial) or the top (others) is up.

        Parameters
        ----------
        plane : {"sagittal", "coronal", "axial"}
        index : int
            Along x (sagittal), y (coronal) or z (axial).

        Returns
        -------
        (rows, columns) float32
        """
        cut = np.take(self.volume, index, axis=PLANES.index(plane))
        # Columns run to the right of the patient (sagittal: to the front), rows to the top: turn both round.
        return np.ascontiguousarray(cut[::-1, ::-1].T)

    def pixel(self, plane: Plane) -> tuple[float, float]:
        """Width and height of a voxel in a plane, mm."""
        width, height = (size for axis, size in enumerate(self.voxel_size) if axis != PLANES.index(plane))
        return width, height

    def extent(self, plane: Plane) -> tuple[float, float]:
        """Width and height of a plane, mm."""
        columns, rows = (n for axis, n in enumerate(self.volume.shape) if axis != PLANES.index(plane))
        width, height = self.pixel(plane)
        return columns * width, rows * height


def canonical_geometry(grid: Grid) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Shape and voxel size along right, front and top, whatever way the voxels are stored.

    Parameters
    ----------
    grid : Grid

    Returns
    -------
    shape : voxels
    voxel_size : mm
    """
    axes = [int(axis) for axis in io_orientation(grid.affine)[:, 0]]  # type: ignore[no-untyped-call]
    (x, nx), (y, ny), (z, nz) = (
        (grid.voxel_size[stored], grid.shape[stored]) for stored in (axes.index(axis) for axis in range(3))
    )
    return (nx, ny, nz), (x, y, z)


def grey(values: NDArray[np.float32], window: tuple[float, float]) -> NDArray[np.uint8]:
    """Values as shades of grey; what is not a number is black.

    Parameters
    ----------
    values : float32
    window : (low, high)
        Black and white, in the unit of the values.
    """
    low, high = window
    shades = np.nan_to_num((values - low) * (255.0 / (high - low)), nan=0.0, posinf=255.0, neginf=0.0)
    bounded: NDArray[np.uint8] = np.clip(np.rint(shades), 0, 255).astype(np.uint8)
    return bounded
