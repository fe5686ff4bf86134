"""Slices of result volumes as PNG, in radiological orientation; a bounded cache serves the next slice."""

from __future__ import annotations

import asyncio
import io
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from PIL import Image

from qsm_ai.io.canonical import Canonical, Plane, grey


def render(
    canonical: Canonical,
    plane: Plane,
    index: int,
    window: tuple[float, float],
    *,
    square_pixels: bool = False,
) -> bytes:
    """A grey PNG of one slice.

    Parameters
    ----------
    canonical : Canonical
    plane : {"sagittal", "coronal", "axial"}
    index : int
        Along the axis that the plane cuts across.
    window : (low, high)
        Values shown black and white.
    square_pixels : bool
        One pixel per voxel as it is, or stretched so that a pixel is as wide as it is high in mm.
    """
    image = Image.fromarray(grey(canonical.plane(plane, index), window))
    if square_pixels:
        width, height = canonical.pixel(plane)
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
        self._volumes: OrderedDict[tuple[str, str], Canonical] = OrderedDict()
        self._loading: dict[tuple[str, str], asyncio.Lock] = {}
        self._bytes = 0

    async def get(self, job_id: str, artefact: str, load: Callable[[], Awaitable[Canonical]]) -> Canonical:
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
            self._bytes -= self._volumes.pop(key).volume.nbytes

    def _keep(self, key: tuple[str, str], volume: Canonical) -> None:
        if volume.volume.nbytes > self._limit:
            return
        self._volumes[key] = volume
        self._bytes += volume.volume.nbytes
        while self._bytes > self._limit:
            _, dropped = self._volumes.popitem(last=False)
            self._bytes -= dropped.volume.nbytes
