"""Slices as pictures: palette, physical proportions, crosshair, orientation letters, colour bar."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Palette = Literal["grey", "blue-red"]

BACKGROUND = (11, 14, 16)
_CROSSHAIR = (240, 176, 74)
_INK = (196, 203, 207)


@dataclass(frozen=True)
class Plane:
    """Where a slice is looked at.

    Attributes
    ----------
    cross : (float, float)
        Crosshair as fractions of width and height, from the upper left corner.
    extent : (float, float)
        Width and height of the slice, mm.
    letters : (str, str, str, str)
        What lies left, right, above and below: R, L, A, P, S, I.
    """

    cross: tuple[float, float]
    extent: tuple[float, float]
    letters: tuple[str, str, str, str]


def paint(
    png: bytes,
    plane: Plane,
    *,
    palette: Palette,
    millimetres: float,
    mask: bytes | None = None,
    side: int = 640,
    crosshair: bool = True,
) -> Image.Image:
    """A square picture of one slice, in its physical proportions.

    Parameters
    ----------
    png : bytes
        The slice in grey, one pixel per voxel, as the API sends it.
    plane : Plane
    palette : Palette
        Grey, or blue (negative) through white to red (positive) for maps around zero.
    millimetres : float
        Edge of the square; the same for the three planes, so that they share one scale.
    mask : bytes or None
        A slice of the brain mask; where it is black nothing is drawn.
    side : int
        Edge of the square, pixels.
    crosshair : bool
        Whether the crosshair is drawn.
    """
    coloured = Image.fromarray(colours(palette)[_grey(png)])
    width, height = (max(1, round(edge / millimetres * side)) for edge in plane.extent)
    coloured = coloured.resize((width, height), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (side, side), BACKGROUND)
    left, top = (side - width) // 2, (side - height) // 2
    if mask is None:
        canvas.paste(coloured, (left, top))
    else:
        inside = Image.fromarray(np.where(_grey(mask) > 0, 255, 0).astype(np.uint8))
        canvas.paste(coloured, (left, top), inside.resize((width, height), Image.Resampling.BICUBIC))
    draw = ImageDraw.Draw(canvas)
    if crosshair:
        x, y = left + plane.cross[0] * width, top + plane.cross[1] * height
        _draw_crosshair(draw, x, y, side)
    _draw_letters(draw, plane.letters, side)
    return canvas


def colour_bar(palette: Palette, width: int = 512, height: int = 14) -> Image.Image:
    """The palette from its lowest to its highest value."""
    ramp = np.linspace(0, 255, width).round().astype(np.uint8)
    return Image.fromarray(np.broadcast_to(colours(palette)[ramp], (height, width, 3)).copy())


@cache
def colours(palette: Palette) -> NDArray[np.uint8]:
    """(256, 3) RGB of a palette."""
    stops: Sequence[tuple[int, int, int]]
    if palette == "grey":
        stops = [(0, 0, 0), (255, 255, 255)]
    else:
        stops = [(22, 54, 122), (73, 133, 196), (245, 245, 242), (214, 104, 77), (122, 20, 34)]
    at = np.linspace(0, 1, len(stops))
    ramp = np.linspace(0, 1, 256)
    channels = [np.interp(ramp, at, channel) for channel in zip(*stops, strict=True)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def stack(rows: Sequence[Sequence[Image.Image]], gap: int = 8) -> Image.Image:
    """Rows of pictures, all of one size, as one picture."""
    side = rows[0][0].width
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (columns * (side + gap) - gap, len(rows) * (side + gap) - gap), BACKGROUND)
    for down, row in enumerate(rows):
        for across, picture in enumerate(row):
            sheet.paste(picture, (across * (side + gap), down * (side + gap)))
    return sheet


def _grey(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


def _draw_crosshair(draw: ImageDraw.ImageDraw, x: float, y: float, side: int) -> None:
    gap = side // 40
    for line in ((0, y, x - gap, y), (x + gap, y, side, y), (x, 0, x, y - gap), (x, y + gap, x, side)):
        if line[2] >= line[0] and line[3] >= line[1]:
            draw.line(line, fill=_CROSSHAIR, width=1)


def _draw_letters(draw: ImageDraw.ImageDraw, letters: tuple[str, str, str, str], side: int) -> None:
    font = ImageFont.load_default(side / 25)
    inset = side // 40
    far, middle = side - inset, side / 2
    places = ((inset, middle, "lm"), (far, middle, "rm"), (middle, inset, "mt"), (middle, far, "mb"))
    for letter, (x, y, anchor) in zip(letters, places, strict=True):
        draw.text((x, y), letter, fill=_INK, font=font, anchor=anchor, stroke_width=2, stroke_fill=BACKGROUND)
