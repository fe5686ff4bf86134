"""Where the brain is: bright enough, with a phase that can be trusted, and apart from the scalp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from qsm_ai.physics.morphology import dilate, erode, fill_holes, largest_component

_WORKING_VOXEL_MM = 1.0
"""Finer scans are searched at about this size: the skull is thick enough."""
_RELATIVE_SIGNAL = 0.35
"""Of the local mean; bone has less, cerebrospinal fluid and iron-rich nuclei more."""
_DIMMEST = 0.1
"""Of the mean of all that is bright: coil sensitivity makes no tissue darker."""
_NOISIEST = 1.5
"""Phase noise (rad) from which on there is nothing but noise; a uniform phase shows 1.9."""
_BIAS_MM = 40.0
_RIM_SIGNAL, _NEAR_MM = 0.45, 20.0
"""Of the mean within so many mm, that an outermost voxel must have."""
_OPENING_MM = 5.0
_CLOSING_MM = 4.0
_RIVAL, _CUT_OFF = 0.4, 0.5
"""Share of the largest part's voxels from which another may be the brain; and the area by which a part is
cut off by the view, over its volume to the power of two thirds, from which it may not, if there is one."""
_LARGEST_HOLE = 0.02
"""Of the foreground, that is filled before the scalp is cut off."""


def brain_mask(
    magnitude: NDArray[np.float32] | None,
    phase: NDArray[np.float32],
    echo_times: Sequence[float],
    voxel_size: tuple[float, float, float],
) -> NDArray[np.bool_]:
    r"""Brain mask of a head, or of a part of one.

    A signal is thresholded against its own local mean (so that coil sensitivity does not matter), opened by
    a ball that breaks the bridges between brain and scalp, reduced to its largest part, closed, and its
    holes (veins, calcifications) are filled. Beyond the field of view the head is taken to go on.

    The signal is the root mean square of the echoes' magnitudes. Without a magnitude it is the inverse of
    the phase noise, which is as good as one: :math:`\sigma_\varphi = \sigma / m`. The noise is the local
    circular scatter of the phase's second difference over the echoes (over space, with fewer than three),
    in which any field has left nothing but what is smooth.

    Parameters
    ----------
    magnitude : (E, X, Y, Z) float32 or None
    phase : (E, X, Y, Z) float32, rad
        Wrapped or not.
    echo_times : E values, s
    voxel_size : mm

    Returns
    -------
    (X, Y, Z) bool
        Empty if there is no signal at all.

    Raises
    ------
    ValueError
        If the numbers of echoes disagree.

    References
    ----------
    Otsu 1979, 10.1109/TSMC.1979.4310076; Hagberg et al. 2022 compare masks from magnitude and phase
    quality, 10.1002/mrm.29368.
    """
    if len(phase) != len(echo_times) or (magnitude is not None and magnitude.shape != phase.shape):
        raise ValueError("phase, magnitude and echo times disagree in the number of echoes or the grid")
    shape = phase.shape[1:]
    factors = tuple(
        min(max(1, round(_WORKING_VOXEL_MM / h)), n) for h, n in zip(voxel_size, shape, strict=True)
    )
    coarse_size = (voxel_size[0] * factors[0], voxel_size[1] * factors[1], voxel_size[2] * factors[2])
    noise = _phase_noise(phase[(slice(None), *(slice(None, None, f) for f in factors))])
    if magnitude is None:
        signal = np.reciprocal(noise)
    else:
        signal = np.sqrt(np.square(_block_means(magnitude, factors)).mean(axis=0, dtype=np.float32))
    foreground = _foreground(signal, coarse_size)
    if magnitude is not None:
        # Bright without a phase: a wrapped-up coil combination, flow, the edge of a sinus.
        foreground &= noise < _NOISIEST
    mask = _largest_part(foreground, coarse_size)
    if magnitude is not None:
        mask = _without_dark_rim(mask, signal, coarse_size)
    else:
        # Among 3×3×3 voxels, those without signal outshout the others: the rim was lost.
        mask = dilate(mask, min(coarse_size), coarse_size)
    return _enlarge(mask, factors, shape)


def _phase_noise(phase: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standard deviation (rad) of the phase around each voxel, up to a common factor; large where it is 0."""
    if len(phase) >= 3:
        second = phase[2] - 2 * phase[1] + phase[0]
        noise = _circular_scatter(second)
    else:
        noise = np.zeros(phase.shape[1:], dtype=np.float32)
        first = phase[0]
        for axis in range(3):
            if first.shape[axis] < 3:
                continue
            inner = [slice(None)] * 3
            inner[axis] = slice(1, -1)
            edge = [(0, 0)] * 3
            edge[axis] = (1, 1)
            second = np.diff(first, n=2, axis=axis)
            noise += np.pad(_circular_scatter(second), edge, mode="edge") / 3
    # Where nothing was measured (a removed background) the phase is constant, not quiet.
    measured = scipy.ndimage.uniform_filter((phase[0] != 0).astype(np.float32), 3)
    noise[measured < 0.5] = np.pi
    return noise


def _circular_scatter(angle: NDArray[np.float32]) -> NDArray[np.float32]:
    r""":math:`\sqrt{-2 \ln R}` with R the mean resultant length over 3×3×3 voxels."""
    real = scipy.ndimage.uniform_filter(np.cos(angle), 3)
    imaginary = scipy.ndimage.uniform_filter(np.sin(angle), 3)
    square = np.clip(real * real + imaginary * imaginary, 1e-6, 1 - 1e-6)
    scatter: NDArray[np.float32] = np.sqrt(-np.log(square))
    return scatter


def _block_means(volumes: NDArray[np.float32], factors: tuple[int, ...]) -> NDArray[np.float32]:
    """Means over blocks of voxels; the last block of an axis may be cut off."""
    means = volumes
    for axis, factor in enumerate(factors, start=1):
        if factor > 1:
            starts = np.arange(0, means.shape[axis], factor)
            counts = np.diff(np.append(starts, means.shape[axis])).astype(np.float32)
            shape = [1] * means.ndim
            shape[axis] = -1
            sums = np.add.reduceat(means, starts, axis=axis)
            means = (sums / counts.reshape(shape)).astype(np.float32, copy=False)
    return means


def _foreground(signal: NDArray[np.float32], voxel_size: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Voxels with a good part of the signal around them."""
    top = np.percentile(signal, 99.5)
    if not top > 0:
        return np.zeros(signal.shape, dtype=np.bool_)
    signal = np.minimum(signal, np.float32(top))
    bright = signal > _otsu(signal, float(top))
    level = float(signal[bright].mean())
    size = [max(3, round(_BIAS_MM / h) | 1) for h in voxel_size]
    local: NDArray[np.float32] = np.full(signal.shape, level, dtype=np.float32)
    for _ in range(2):  # the first round leaves out tissue far from the coils
        rough = (signal > _RELATIVE_SIGNAL * local) & (signal > _DIMMEST * level)
        share = scipy.ndimage.uniform_filter(rough.astype(np.float32), size, mode="constant")
        around = scipy.ndimage.uniform_filter(np.where(rough, signal, np.float32(0)), size, mode="constant")
        local = np.divide(around, share, out=local, where=share > 0.02)
    smooth = scipy.ndimage.uniform_filter(signal, [3 if h < 2 else 1 for h in voxel_size])
    foreground: NDArray[np.bool_] = (smooth > _RELATIVE_SIGNAL * local) & (signal > _DIMMEST * level)
    return foreground


def _otsu(values: NDArray[np.float32], top: float) -> float:
    """The threshold that splits the values into the two classes with the least variance within."""
    counts, edges = np.histogram(values, bins=256, range=(0.0, top))
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sum_below = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = sum_below / below - (sum_below[-1] - sum_below) / above
        between = below * above * difference**2
    return float(edges[1 + int(np.nanargmax(between))])


def _largest_part(foreground: NDArray[np.bool_], voxel_size: tuple[float, float, float]) -> NDArray[np.bool_]:
    """The largest part of the foreground once thin bridges are cut, closed and without holes."""
    volume = float(foreground.sum()) * float(np.prod(voxel_size))
    if volume == 0:
        return foreground
    ball_radius = (3 * volume / (4 * np.pi)) ** (1 / 3)
    opening = min(_OPENING_MM, 0.15 * ball_radius)
    # Small holes only: the skull is one too where the scalp is closed around it.
    solid = fill_holes(foreground, largest=_LARGEST_HOLE * float(foreground.sum()))
    core = _brain_among(erode(solid, opening, voxel_size))
    if not core.any():
        return fill_holes(largest_component(foreground))
    # One voxel more than was eroded gives back the corners that a ball does not reach.
    mask = dilate(core, opening + min(voxel_size), voxel_size) & solid
    closing = min(_CLOSING_MM, opening)
    mask = erode(dilate(mask, closing, voxel_size), closing, voxel_size)
    return fill_holes(largest_component(mask))


def _brain_among(parts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part that is the brain: the largest, unless another nearly as large is cut off less by the view.

    A thick neck, or shoulders, may hold more than a small brain does; they run out of the view.
    """
    labels, count = scipy.ndimage.label(parts)
    if count < 2:
        return parts
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    cut = np.zeros_like(sizes)
    for axis in range(3):
        for end in (0, -1):
            cut += np.bincount(np.take(labels, end, axis=axis).ravel(), minlength=len(sizes))
    large = np.flatnonzero(sizes >= _RIVAL * sizes.max())
    # Of parts cut off alike, such as not at all, the largest.
    brain = min(large, key=lambda part: (cut[part] / sizes[part] ** (2 / 3) > _CUT_OFF, -sizes[part]))
    found: NDArray[np.bool_] = labels == brain
    return found


def _without_dark_rim(
    mask: NDArray[np.bool_], signal: NDArray[np.float32], voxel_size: tuple[float, float, float]
) -> NDArray[np.bool_]:
    """The mask less those of its outermost voxels that are bone: the smoothed signal reached into them."""
    size = [max(3, round(_NEAR_MM / h) | 1) for h in voxel_size]
    share = scipy.ndimage.uniform_filter(mask.astype(np.float32), size)
    around = scipy.ndimage.uniform_filter(np.where(mask, signal, np.float32(0)), size)
    dark = signal * share < _RIM_SIGNAL * around
    inner = erode(mask, 1.001 * min(voxel_size), voxel_size)
    return fill_holes(largest_component(mask & (inner | ~dark)))


def _enlarge(mask: NDArray[np.bool_], factors: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask on the fine grid, its steps smoothed away."""
    if all(f == 1 for f in factors):
        return mask
    fine = mask
    for axis, factor in enumerate(factors):
        fine = np.repeat(fine, factor, axis=axis)
    fine = fine[tuple(slice(n) for n in shape)]
    smooth = scipy.ndimage.uniform_filter(fine.astype(np.float32), [2 * f - 1 for f in factors])
    enlarged: NDArray[np.bool_] = smooth > 0.5
    return enlarged
