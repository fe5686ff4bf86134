"""Slices are grey pictures, and their volumes are kept within bounds."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import pytest
from PIL import Image

from qsm_ai.api.slices import VolumeCache, render
from qsm_ai.io.canonical import PLANES, Canonical, Plane


@pytest.mark.parametrize("plane", PLANES)
def test_a_slice_has_a_pixel_for_every_voxel_or_is_stretched_to_millimetres(plane: Plane) -> None:
    canonical = Canonical(np.zeros((4, 5, 6), np.float32), (1.0, 1.0, 3.0))
    voxels, square = (
        Image.open(io.BytesIO(render(canonical, plane, 0, (0.0, 1.0), square_pixels=stretched))).size
        for stretched in (False, True)
    )
    width, height = {"sagittal": (5, 6), "coronal": (4, 6), "axial": (4, 5)}[plane]
    assert voxels == (width, height)
    assert square == (width, height if plane == "axial" else 3 * height)


def test_a_slice_is_grey_within_its_window() -> None:
    values = np.linspace(-1, 1, 5, dtype=np.float32).reshape(5, 1, 1)
    picture = Image.open(io.BytesIO(render(Canonical(values, (1, 1, 1)), "axial", 0, (-0.5, 0.5))))
    assert np.asarray(picture).tolist() == [[255, 255, 128, 0, 0]]


def test_the_cache_stays_within_its_memory_and_forgets_whole_jobs() -> None:
    loads: list[str] = []

    async def scenario() -> None:
        cache = VolumeCache(limit=2 * 4000)

        async def ask(job: str, artefact: str = "chi") -> None:
            async def load() -> Canonical:
                loads.append(job + artefact)
                await asyncio.sleep(0)
                return Canonical(np.zeros((10, 10, 10), np.float32), (1, 1, 1))

            await cache.get(job, artefact, load)

        await asyncio.gather(*(ask("a") for _ in range(5)))
        assert loads == ["achi"], "loaded once, however many ask"
        await ask("b")
        await ask("a")
        await ask("c")
        await ask("a")
        assert loads == ["achi", "bchi", "cchi"], "the least recently used one is dropped"
        cache.forget("a")
        await ask("a")
        assert loads[-1] == "achi"

    asyncio.run(scenario())
