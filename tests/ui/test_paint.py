"""Slices keep their proportions and orientation, and the crosshair stands where the voxel is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from qsm_ai.ui.backend import Artefact
from qsm_ai.ui.paint import BACKGROUND, Plane, colour_bar, colours, paint, stack
from qsm_ai.ui.viewer import AXES, decimals, plane_through

VOLUME = Artefact("chi", "Susceptibility", "ppm", (-0.1, 0.2), "c.nii.gz", 1, (10, 20, 5), (1.0, 1.0, 4.0))


def png(values: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG")
    return buffer.getvalue()


def painted(picture: Image.Image) -> tuple[int, int]:
    """Width and height of what is not background."""
    inside = (np.asarray(picture) != BACKGROUND).any(axis=2)
    return int(inside.any(axis=0).sum()), int(inside.any(axis=1).sum())


class TestPaint:
    def test_thick_slices_are_stretched_to_millimetres(self) -> None:
        plane = Plane((0.5, 0.5), (10.0, 20.0), ("", "", "", ""))
        picture = paint(
            png(np.full((5, 10), 200, np.uint8)),
            plane,
            palette="grey",
            millimetres=40,
            side=400,
            crosshair=False,
        )
        assert painted(picture) == (100, 200)

    def test_the_crosshair_crosses_at_its_point(self) -> None:
        plane = Plane((0.25, 0.75), (40.0, 40.0), ("", "", "", ""))
        black = png(np.zeros((40, 40), np.uint8))
        picture = np.asarray(paint(black, plane, palette="grey", millimetres=40, side=400)).astype(int)
        lit = picture[:, :, 0] > 100
        assert abs(int(np.argmax(lit.sum(axis=0))) - 100) <= 1
        assert abs(int(np.argmax(lit.sum(axis=1))) - 300) <= 1

    def test_outside_the_mask_nothing_is_drawn(self) -> None:
        mask = np.zeros((40, 40), np.uint8)
        mask[10:30, 10:30] = 255
        plane = Plane((0.5, 0.5), (40.0, 40.0), ("", "", "", ""))
        picture = paint(
            png(np.full((40, 40), 255, np.uint8)),
            plane,
            palette="grey",
            millimetres=40,
            mask=png(mask),
            side=400,
            crosshair=False,
        )
        assert picture.getpixel((20, 20)) == BACKGROUND
        assert picture.getpixel((200, 200)) == (255, 255, 255)

    def test_zero_is_white_between_blue_and_red(self) -> None:
        table = colours("blue-red").astype(int)
        assert table[128].min() > 235
        assert table[0, 2] > table[0, 0]
        assert table[255, 0] > table[255, 2]

    def test_the_colour_bar_runs_from_low_to_high(self) -> None:
        bar = np.asarray(colour_bar("grey", width=256))
        assert (np.diff(bar[0, :, 0].astype(int)) >= 0).all()
        assert (bar[0, 0, 0], bar[0, -1, 0]) == (0, 255)

    def test_rows_of_planes_become_one_picture(self) -> None:
        tile = Image.new("RGB", (100, 100), (255, 0, 0))
        assert stack([[tile] * 3, [tile] * 3], gap=10).size == (320, 210)


class TestPlanes:
    """A voxel painted white by the API's own renderer is where the crosshair points."""

    @pytest.mark.parametrize("axis", AXES)
    @pytest.mark.parametrize("point", [(2, 15, 1), (0, 0, 0), (9, 19, 4)])
    def test_agree_with_the_slices_of_the_api(self, axis: str, point: tuple[int, int, int]) -> None:
        slices = pytest.importorskip("qsm_ai.api.slices")
        data = np.zeros(VOLUME.shape, np.float32)
        data[point] = 1
        canonical = pytest.importorskip("qsm_ai.io.canonical").Canonical(data, VOLUME.voxel_size)
        index = point[{"sagittal": 0, "coronal": 1, "axial": 2}[axis]]
        rendered = slices.render(canonical, axis, index, (0.0, 1.0))
        pixels = np.asarray(Image.open(io.BytesIO(rendered)))
        (row,), (column,) = np.nonzero(pixels)
        plane = plane_through(VOLUME, axis, point)  # type: ignore[arg-type]
        assert plane.cross == pytest.approx(((column + 0.5) / pixels.shape[1], (row + 0.5) / pixels.shape[0]))

    def test_the_right_of_the_patient_is_on_the_left(self) -> None:
        rightmost = (VOLUME.shape[0] - 1, 10, 2)
        assert plane_through(VOLUME, "axial", rightmost).cross[0] < 0.1
        assert plane_through(VOLUME, "axial", rightmost).letters[:2] == ("R", "L")
        assert plane_through(VOLUME, "sagittal", rightmost).letters[:2] == ("A", "P")


@pytest.mark.parametrize(("step", "digits"), [(1.0, 0), (0.6, 1), (0.003, 3), (0.0004, 4)])
def test_window_steps_are_shown_with_as_many_digits_as_they_need(step: float, digits: int) -> None:
    assert decimals(step) == digits
