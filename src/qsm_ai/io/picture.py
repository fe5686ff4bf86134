"""Pictures of volumes: three planes in radiological orientation, with a window in ppm."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from qsm_ai.scan import Grid

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")

_NORMAL: dict[Plane, int] = {"axial": 2, "coronal": 1, "sagittal": 0}
_EDGES: dict[Plane, tuple[str, str, str, str]] = {
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}
"""Left, right, upper and lower edge of each picture: the patient's right lies on the left."""

_PANEL = 400
_GAP = 12
_HEADER = 34
_FOOTER = 30
_BAR = 96
_INK = (225, 225, 225)
_FAINT = (150, 150, 150)


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
    def of(cls, volume: NDArray[np.float32], grid: Grid) -> Canonical:
        """The nearest turn by right angles and flips; nothing is interpolated."""
        orientation = io_orientation(grid.affine)  # type: ignore[no-untyped-call]
        turned = apply_orientation(volume, orientation)  # type: ignore[no-untyped-call]
        sizes = [0.0, 0.0, 0.0]
        for size, (axis, _) in zip(grid.voxel_size, orientation, strict=True):
            sizes[int(axis)] = size
        return cls(np.asarray(turned), (sizes[0], sizes[1], sizes[2]))

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
        """One slice as it is looked at: rows from top to bottom, the patient's right on the left."""
        cut = np.take(self.volume, index, axis=_NORMAL[plane])
        # Columns run to the right of the patient (sagittal: to the front), rows to the top: turn both round.
        return np.ascontiguousarray(cut[::-1, ::-1].T)

    def extent(self, plane: Plane) -> tuple[float, float]:
        """Width and height of a plane, mm."""
        width, height = (a for a in range(3) if a != _NORMAL[plane])
        return (
            self.volume.shape[width] * self.voxel_size[width],
            self.volume.shape[height] * self.voxel_size[height],
        )


def slice_image(
    canonical: Canonical, plane: Plane, index: int, window: tuple[float, float], scale: float
) -> Image.Image:
    """A grey picture of one slice.

    Parameters
    ----------
    canonical : Canonical
    plane : {"axial", "coronal", "sagittal"}
    index : int
        Slice along the plane's normal.
    window : (low, high)
        Black and white, in the volume's unit.
    scale : pixels per mm
    """
    low, high = window
    cut = canonical.plane(plane, index)
    grey = np.clip((cut - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    width, height = canonical.extent(plane)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC)


def three_planes(
    volume: NDArray[np.float32],
    grid: Grid,
    window: tuple[float, float],
    title: str,
    unit: str,
    oriented: bool = True,
) -> bytes:
    """A PNG of three planes through the middle, with edge labels and a grey bar.

    Parameters
    ----------
    volume : (X, Y, Z) float32
    grid : Grid
    window : (low, high)
    title, unit : str
    oriented : bool
        False where the header does not say which side is which: no labels then.

    Returns
    -------
    bytes
        PNG.
    """
    canonical = Canonical.of(volume, grid)
    centre = canonical.centre()
    longest = max(max(canonical.extent(plane)) for plane in PLANES)
    scale = _PANEL / longest
    panels = [slice_image(canonical, plane, centre[_NORMAL[plane]], window, scale) for plane in PLANES]
    tallest = max(panel.height for panel in panels)
    width = sum(panel.width for panel in panels) + _GAP * (len(panels) + 1) + _BAR
    canvas = Image.new("RGB", (width, _HEADER + tallest + _FOOTER))
    draw = ImageDraw.Draw(canvas)
    font, small = ImageFont.load_default(16), ImageFont.load_default(13)
    draw.text((_GAP, 8), f"{title} ({unit})" if unit else title, fill=_INK, font=font)
    x = _GAP
    for plane, panel in zip(PLANES, panels, strict=True):
        y = _HEADER + (tallest - panel.height) // 2
        canvas.paste(panel, (x, y))
        if oriented:
            _label_edges(draw, plane, (x, y, panel.width, panel.height), small)
        draw.text((x + panel.width // 2, _HEADER + tallest + 6), plane, fill=_FAINT, font=small, anchor="ma")
        x += panel.width + _GAP
    _bar(canvas, draw, (x + 4, _HEADER + 8), tallest - 16, window, small)
    draw.text((width - _GAP, 10), "Research use, not a medical device", fill=_FAINT, font=small, anchor="ra")
    encoded = io.BytesIO()
    canvas.save(encoded, format="PNG", optimize=True)
    return encoded.getvalue()


def _label_edges(
    draw: ImageDraw.ImageDraw,
    plane: Plane,
    box: tuple[int, int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    x, y, width, height = box
    left, right, upper, lower = _EDGES[plane]
    for at, text, anchor in (
        ((x + 3, y + height // 2), left, "lm"),
        ((x + width - 3, y + height // 2), right, "rm"),
        ((x + width // 2, y + 3), upper, "ma"),
        ((x + width // 2, y + height - 3), lower, "md"),
    ):
        draw.text(at, text, fill=_INK, font=font, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _bar(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    height: int,
    window: tuple[float, float],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    x, y = corner
    height = max(height, 40)
    ramp = np.linspace(255, 0, height).astype(np.uint8)
    canvas.paste(Image.fromarray(np.repeat(ramp[:, None], 14, axis=1)), (x, y))
    draw.rectangle((x - 1, y - 1, x + 14, y + height), outline=_FAINT)
    low, high = window
    for value in (low, (low + high) / 2, high):
        at = y + (high - value) / (high - low) * (height - 1)
        draw.text((x + 21, at), f"{value:g}", fill=_INK, font=font, anchor="lm")
