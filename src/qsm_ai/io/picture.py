"""Pictures of volumes: three planes in radiological orientation, with a window in ppm."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from qsm_ai.io.canonical import PLANES, Canonical, Plane, grey
from qsm_ai.scan import Grid

_SHOWN: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
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
    width, height = canonical.extent(plane)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shades = grey(canonical.plane(plane, index), window)
    return Image.fromarray(shades).resize(size, Image.Resampling.BICUBIC)


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
    longest = max(max(canonical.extent(plane)) for plane in _SHOWN)
    scale = _PANEL / longest
    panels = [slice_image(canonical, plane, centre[PLANES.index(plane)], window, scale) for plane in _SHOWN]
    tallest = max(panel.height for panel in panels)
    width = sum(panel.width for panel in panels) + _GAP * (len(panels) + 1) + _BAR
    canvas = Image.new("RGB", (width, _HEADER + tallest + _FOOTER))
    draw = ImageDraw.Draw(canvas)
    font, small = ImageFont.load_default(16), ImageFont.load_default(13)
    draw.text((_GAP, 8), f"{title} ({unit})" if unit else title, fill=_INK, font=font)
    x = _GAP
    for plane, panel in zip(_SHOWN, panels, strict=True):
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
