"""Slices of result volumes as PNG, in radiological orientation; a bounded cache serves the next slice."""

from __future__ import annotations

import asyncio
import io
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Axis = Literal["sagittal", "coronal", "axial"]
AXES: tuple[Axis, ...] = ("sagittal", "coronal", "axial")


@dataclass(frozen=True)
class Volume:
    """A volume turned so that its axes run to the right, to the front and up.

    Attributes
    ----------
    data : (X, Y, Z) float32
    voxel_size : mm
    """

    data: NDArray[np.float32]
    voxel_size: tuple[float, float, float]


def read_volume(path: Path) -> Volume:
    """A NIfTI file, turned to right, anterior, superior."""
    image = nib.as_closest_canonical(nib.Nifti1Image.from_filename(path))  # type: ignore[no-untyped-call]
    data = np.ascontiguousarray(np.asanyarray(image.dataobj), dtype=np.float32)
    x, y, z = (float(size) for size in image.header.get_zooms()[:3])
    return Volume(data, (x, y, z))


def plane(data: NDArray[np.float32], axis: Axis, index: int) -> NDArray[np.float32]:
    """One slice as an image, first row on top.

    The patient's right is on the left of axial and coronal slices, the front on the left of sagittal ones;
    the front (axial) or the top (others) is up.

    Parameters
    ----------
    data : (X, Y, Z)
        Axes to the right, anterior, superior.
    axis : which plane
    index : along x (sagittal), y (coronal) or z (axial)

    Returns
    -------
    (rows, columns)
    """
    if axis == "sagittal":
        return data[index, ::-1, ::-1].T
    if axis == "coronal":
        return data[::-1, index, ::-1].T
    return data[::-1, ::-1, index].T


def render(
    volume: Volume, axis: Axis, index: int, window: tuple[float, float], *, square_pixels: bool = False
) -> bytes:
    """A grey PNG of one slice.

    Parameters
    ----------
    window : values shown black and white
    square_pixels : bool
        One pixel per voxel as it is, or stretched so that a pixel is as wide as it is high in mm.
    """
    low, high = window
    values = plane(volume.data, axis, index)
    grey = np.nan_to_num((values - low) * (255.0 / (high - low)), nan=0.0, posinf=255.0, neginf=0.0)
    image = Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
    if square_pixels:
        x, y, z = volume.voxel_size
        width, height = {"sagittal": (y, z), "coronal": (x, z), "axial": (x, y)}[axis]
        pixel = min(width, height)
        size = (max(1, round(image.width * width / pixel)), max(1, round(image.height * height / pixel)))
        image = image.resize(size, Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=3)
    return out.getvalue()


class VolumeCache:
    """Decoded volumes by (job, artefact), the least recently used ones dropped first.

    Parameters
    ----------
    limit : int
        Bytes kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._volumes: OrderedDict[tuple[str, str], Volume] = OrderedDict()
        self._loading: dict[tuple[str, str], asyncio.Lock] = {}
        self._bytes = 0

    async def get(self, job_id: str, artefact: str, load: Callable[[], Awaitable[Volume]]) -> Volume:
        """The volume, loaded once however many ask at the same time."""
        key = (job_id, artefact)
        lock = self._loading.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                if key in self._volumes:
                    self._volumes.move_to_end(key)
                    return self._volumes[key]
                volume = await load()
                self._keep(key, volume)
                return volume
        finally:
            if not lock.locked():
                self._loading.pop(key, None)

    def forget(self, job_id: str) -> None:
        """Drop everything of a job."""
        for key in [key for key in self._volumes if key[0] == job_id]:
            self._bytes -= self._volumes.pop(key).data.nbytes

    def _keep(self, key: tuple[str, str], volume: Volume) -> None:
        if volume.data.nbytes > self._limit:
            return
        self._volumes[key] = volume
        self._bytes += volume.data.nbytes
        while self._bytes > self._limit:
            _, dropped = self._volumes.popitem(last=False)
            self._bytes -= dropped.data.nbytes
