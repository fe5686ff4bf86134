"""From the numbers that scanners store to phase in radians."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
from numpy.typing import ArrayLike, NDArray


class PhaseScaleError(ValueError):
    """The stored numbers cannot be read as a phase.

    Attributes
    ----------
    reason : str
        One sentence: what about the numbers is wrong or cannot be decided.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class _Scale:
    """A known way to store the circle: values from ``start`` over one ``period``."""

    rule: str
    start: float
    period: float


_SIGNED = (
    _Scale("degrees, -180 to 180", -180.0, 360.0),
    _Scale("8 bits, -128 to 127", -128.0, 256.0),
    _Scale("12 bits, -2048 to 2047", -2048.0, 4096.0),
    _Scale("milliradians, -3142 to 3142", -1000 * pi, 2000 * pi),
    _Scale("Siemens, -4096 to 4095", -4096.0, 8192.0),
    _Scale("16 bits, -32768 to 32767", -32768.0, 65536.0),
)
_UNSIGNED = (
    _Scale("cycles, 0 to 1", 0.0, 1.0),
    _Scale("radians, 0 to 2 pi", 0.0, 2 * pi),
    _Scale("8 bits, 0 to 255", 0.0, 256.0),
    _Scale("degrees, 0 to 360", 0.0, 360.0),
    _Scale("Siemens, 0 to 4095", 0.0, 4096.0),
    _Scale("16 bits, 0 to 65535", 0.0, 65536.0),
)
_STARTS_AT_ZERO_ANGLE = frozenset({"cycles, 0 to 1", "radians, 0 to 2 pi", "degrees, 0 to 360"})
"""Scales whose zero is the angle 0; the other unsigned ones begin at −π."""

_SMALLEST_RANGE_OF_RADIANS = 1.0
"""A phase that moves by less in the whole image is taken for another unit, not for radians."""


def scale_to_radians(stored: ArrayLike) -> tuple[NDArray[np.float32], str]:
    """Wrapped phase in radians, whatever the scale in which it was stored.

    The scale is decided by the range of the values and by wraps: where a phase passes the end of its scale,
    one neighbour lies at the upper end and the next at the lower end, about as often as neighbours lie
    on the two sides of the middle. A magnitude has no such pairs, or nothing but such pairs.

    =====================================  ==================================================================
    stored values                          read as
    =====================================  ==================================================================
    within ±π, more than 1 rad apart       radians
    0 … 2π, 0 … 360, 0 … 1                 radians, degrees, cycles; only with wraps at the ends
    −4096 … 4095 (also 4094, 4096)         Siemens: π/4096 a step
    0 … 4095 (also 4096)                   Siemens: π/2048 a step from −π; only with wraps
    ±180, ±3142, ±128, ±2048, ±32768       degrees, milliradians, 8, 12 and 16 bits
    any other ±range, with wraps           the range is ±π
    everything else                        refused
    =====================================  ==================================================================

    Parameters
    ----------
    stored : (..., X, Y, Z) real array
        All echoes together, because they share one scale. NaN and infinities become 0.

    Returns
    -------
    phase : (..., X, Y, Z) float32, rad, within ±π
        Blocks of exact zeros (padding, a removed background) are 0 whatever the scale.
    rule : str
        What was decided, for the report.

    Raises
    ------
    PhaseScaleError
        If the values are all equal, look like a magnitude, or leave the scale undecided.
    """
    values = np.asarray(stored)
    if values.ndim < 1 or values.size == 0:
        raise PhaseScaleError("The image is empty.")
    if np.iscomplexobj(values):
        raise PhaseScaleError("The image is complex, not a phase.")
    values = values.astype(np.float32)  # a copy: the caller's array stays as it is
    broken = ~np.isfinite(values)
    if broken.all():
        raise PhaseScaleError("The image holds no finite value.")
    values[broken] = 0.0
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise PhaseScaleError("The image is all zeros." if low == 0 else "All values of the image are equal.")
    scale = _one_sided(values, high) if low >= 0 else _two_sided(values, low, high)
    if scale is None:  # radians already
        return np.clip(values, -pi, pi, out=values), "radians"
    if scale.rule in _STARTS_AT_ZERO_ANGLE:
        values *= np.float32(2 * pi / scale.period)
        values[values > pi] -= np.float32(2 * pi)
    else:
        background = None
        if scale.start == 0:
            background = _blocks_of_zeros(values) | broken
            values -= np.float32(scale.period / 2)
        values *= np.float32(2 * pi / scale.period)
        if background is not None:
            values[background] = 0.0
    return np.clip(values, -pi, pi, out=values), scale.rule


def _two_sided(values: NDArray[np.float32], low: float, high: float) -> _Scale | None:
    """The scale of values of both signs; None for radians."""
    reach = max(-low, high)
    symmetric = abs(low + high) < 0.02 * reach
    if 0.9 * pi <= reach <= 1.002 * pi:
        return None
    wraps = _Wraps.at_the_ends(values, -reach, reach)
    if reach < pi:
        if symmetric and wraps.seen:
            return _Scale(f"full range, -{reach:.6g} to {reach:.6g}", -reach, 2 * reach)
        if high - low >= _SMALLEST_RANGE_OF_RADIANS:
            return None
        raise PhaseScaleError(
            f"Values from {low:.3g} to {high:.3g} without a wrap: neither radians nor a full range."
        )
    for scale in _SIGNED:
        end = scale.period / 2
        exact = abs(low + end) <= 0.001 * end and abs(high - end) <= 0.001 * end + 2
        if reach <= 1.001 * end and (exact or (reach >= 0.99 * end and wraps.seen)):
            return scale
    if symmetric and wraps.seen:
        return _Scale(f"full range, -{reach:.6g} to {reach:.6g}", -reach, 2 * reach)
    if not symmetric:
        raise PhaseScaleError(
            f"Values from {low:.4g} to {high:.4g} are on no known scale of a phase: "
            "not symmetric about zero, and too large for radians (an unwrapped phase or a field?)."
        )
    raise PhaseScaleError(
        f"Values from {low:.4g} to {high:.4g} do not wrap at their ends, so that the scale cannot be decided."
    )


def _one_sided(values: NDArray[np.float32], high: float) -> _Scale:
    """The scale of values that are never negative."""
    for scale in _UNSIGNED:
        if 0.99 * scale.period <= high <= 1.001 * scale.period:
            wraps = _Wraps.at_the_ends(values, scale.start, scale.start + scale.period)
            if wraps.seen and wraps.covers_the_circle:
                return scale
    raise PhaseScaleError(
        f"Values from 0 to {high:.4g}, never negative and without wraps at the ends, look like a magnitude."
    )


@dataclass(frozen=True)
class _Wraps:
    """How values behave at the two ends of a scale.

    ``seam`` counts neighbours of which one lies in the lowest eighth of the scale and one in the highest,
    ``middle`` those in the two eighths that meet in the middle, ``pairs`` all. ``eighths`` is the share of
    values (zeros aside) in each eighth.
    """

    pairs: int
    seam: int
    middle: int
    eighths: tuple[float, ...]

    @classmethod
    def at_the_ends(cls, values: NDArray[np.float32], low: float, high: float) -> _Wraps:
        # Every second pair and, of many echoes, the last (which wraps most) and the first are enough.
        sample = values if values.ndim <= 3 else values.reshape(-1, *values.shape[-3:])[[0, -1]]
        eighth = ((sample - np.float32(low)) * np.float32(8 / (high - low))).astype(np.int8)
        np.clip(eighth, 0, 7, out=eighth)
        eighth[sample == 0] = 8  # padding is no evidence
        pairs = seam = middle = 0
        for axis in range(max(0, eighth.ndim - 3), eighth.ndim):
            along = np.moveaxis(eighth, axis, 0)
            even = along[::2][: len(along) // 2].ravel()
            odd = along[1::2].ravel()
            met = np.bincount(even.astype(np.int32) * 9 + odd, minlength=81).reshape(9, 9)
            pairs += int(met[:8, :8].sum())
            seam += int(met[0, 7] + met[7, 0])
            middle += int(met[3, 4] + met[4, 3])
        counts = np.bincount(eighth.ravel(), minlength=9)[:8]
        return cls(pairs, seam, middle, tuple(counts / max(1, counts.sum())))

    @property
    def seen(self) -> bool:
        """Neighbours do jump from one end to the other."""
        return self.seam >= 4 and self.seam >= 2e-4 * self.pairs

    @property
    def covers_the_circle(self) -> bool:
        """The seam is a place like any other: crossed about as often as the middle, no eighth left empty."""
        crossed = 0.02 * self.middle <= self.seam <= 50 * self.middle
        ends = self.eighths[0] + self.eighths[7]
        return crossed and min(self.eighths) >= 0.005 and 0.08 <= self.eighths[0] / ends <= 0.92


def _blocks_of_zeros(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Exact zeros that come in blocks of 2×2×2 voxels at least; a lone zero is a phase like any other."""
    zero: NDArray[np.bool_] = values == 0
    axes = [a for a in range(max(0, zero.ndim - 3), zero.ndim) if zero.shape[a] > 1]
    corner = zero
    for axis in axes:  # corner: the lower corner of an all-zero block
        n = corner.shape[axis]
        corner = np.take(corner, range(n - 1), axis) & np.take(corner, range(1, n), axis)
    block: NDArray[np.bool_] = corner
    for axis in reversed(axes):
        edge = [(0, 0)] * zero.ndim
        edge[axis] = (1, 0)
        before = np.pad(block, edge)
        edge[axis] = (0, 1)
        block = before | np.pad(block, edge)
    return block
