"""Path-following phase unwrapping along the best spanning tree of the voxel grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

TWO_PI = np.float32(2 * np.pi)


def wrap(phase: NDArray[np.float32]) -> NDArray[np.float32]:
    """``phase`` (rad, any shape) brought into −π … π."""
    return np.asarray(phase - TWO_PI * np.round(phase / TWO_PI))


def unwrap_path(
    phase: NDArray[np.float32], magnitude: NDArray[np.float32] | None, mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    r"""Unwrap one volume along the spanning tree of its most trustworthy voxel pairs.

    Region growing that always crosses the best edge first visits the edges of the maximal spanning tree, so
    the tree is found directly and the wrap counts are summed along its branches. The quality of the edge
    between neighbours a and b is

    .. math:: q = \left(1 - \frac{|\gamma(\varphi_b - \varphi_a)|}{\pi}\right)
              \left(\frac{\min(m_a, m_b)}{\max(m_a, m_b)}\right)^2
              \frac{\min(m_a, m_b)}{\bar m + \min(m_a, m_b)}

    with the wrapping operator γ, the magnitude m and its median over the mask.

    Parameters
    ----------
    phase : (X, Y, Z) float32, rad
    magnitude : (X, Y, Z) float32 or None
        Any unit; without it the phase alone decides.
    mask : (X, Y, Z) bool
        Voxels outside come back as zero.

    Returns
    -------
    (X, Y, Z) float32, rad
        Each connected part of the mask is shifted by the multiple of 2π that brings its median nearest to
        zero.

    References
    ----------
    Dymerska et al. 2021 (ROMEO), 10.1002/mrm.28563.
    """
    count = int(mask.sum())
    result = np.zeros(phase.shape, np.float32)
    if count == 0:
        return result
    number = np.full(mask.shape, -1, np.int32)
    number[mask] = np.arange(count, dtype=np.int32)
    tails, heads, costs = [], [], []
    middle = float(np.median(magnitude[mask])) if magnitude is not None else 0.0
    for axis in range(3):
        low = tuple(slice(0, -1) if a == axis else slice(None) for a in range(3))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        both = mask[low] & mask[high]
        quality = 1 - np.abs(wrap(phase[high][both] - phase[low][both])) / np.float32(np.pi)
        if magnitude is not None:
            a, b = magnitude[low][both], magnitude[high][both]
            smaller, larger = np.minimum(a, b), np.maximum(a, b)
            quality *= (
                (smaller / np.maximum(larger, 1e-20)) ** 2 * smaller / np.maximum(middle + smaller, 1e-20)
            )
        tails.append(number[low][both])
        heads.append(number[high][both])
        costs.append(2 - quality)
    tail, head, cost = (np.concatenate(x) for x in (tails, heads, costs))
    graph = coo_array((cost, (tail, head)), shape=(count, count)).tocsr()
    parts, label = connected_components(graph, directed=False)
    if parts > 1:
        first = np.unique(label, return_index=True)[1].astype(np.int32)
        bridges = coo_array(
            (np.full(parts - 1, 9, np.float32), (np.full(parts - 1, first[0]), first[1:])), shape=graph.shape
        )
        graph = (graph + bridges).tocsr()
    tree = minimum_spanning_tree(graph)
    _, parent = breadth_first_order(tree, 0, directed=False, return_predecessors=True)
    parent[0] = 0
    wrapped = phase[mask]
    turns = -np.round((wrapped - wrapped[parent]) / TWO_PI).astype(np.int32)
    # Pointer doubling: each round adds the turns of twice as many ancestors, until all have reached the root.
    ancestor = parent
    while ancestor.any():
        turns += turns[ancestor]
        ancestor = ancestor[ancestor]
    unwrapped = wrapped + TWO_PI * turns.astype(np.float32)
    result[mask] = _centred(unwrapped, label, parts)
    return result


def _centred(values: NDArray[np.float32], label: NDArray[np.int32], parts: int) -> NDArray[np.float32]:
    """Shift each part by whole turns so that its median lies within half a turn of zero."""
    order = np.argsort(label, kind="stable")
    bounds = np.searchsorted(label[order], np.arange(parts + 1))
    shift = np.empty(parts, np.float32)
    for part in range(parts):
        shift[part] = np.round(np.median(values[order[bounds[part] : bounds[part + 1]]]) / TWO_PI)
    return values - TWO_PI * shift[label]


def unwrap_echoes(
    phase: NDArray[np.float32],
    magnitude: NDArray[np.float32] | None,
    mask: NDArray[np.bool_],
    echo_times: tuple[float, ...],
) -> NDArray[np.float32]:
    r"""Unwrap all echoes consistently in time.

    The first echo and the step from the first to the second (whose receive-coil offset cancels) are unwrapped
    in space. Each later echo takes the number of turns that brings it nearest to the earlier ones' line,

    .. math:: \varphi_j \leftarrow \varphi_j + 2\pi\,\mathrm{round}\frac{\hat\varphi_j - \varphi_j}{2\pi}

    Parameters
    ----------
    phase : (E, X, Y, Z) float32, rad
    magnitude : (E, X, Y, Z) float32 or None
    mask : (X, Y, Z) bool
    echo_times : E values, s, increasing

    Returns
    -------
    (E, X, Y, Z) float32, rad
        Zero outside the mask.
    """
    unwrapped = np.zeros(phase.shape, np.float32)
    first = magnitude[0] if magnitude is not None else None
    unwrapped[0] = unwrap_path(phase[0], first, mask)
    if len(echo_times) == 1:
        return unwrapped
    product = np.sqrt(magnitude[0] * magnitude[1]) if magnitude is not None else None
    step = unwrap_path(wrap(phase[1] - phase[0]), product, mask)
    unwrapped[1] = unwrapped[0] + step
    done = unwrapped[:, mask]
    weights = _weights(magnitude, mask, done)
    for echo in range(2, len(echo_times)):
        predicted = _line_at(echo, echo_times, done, weights)
        measured = phase[echo][mask]
        done[echo] = measured + TWO_PI * np.round((predicted - measured) / TWO_PI)
    unwrapped[:, mask] = done
    return unwrapped


def in_step(
    unwrapped: NDArray[np.float32],
    magnitude: NDArray[np.float32] | None,
    mask: NDArray[np.bool_],
    echo_times: tuple[float, ...],
) -> NDArray[np.float32]:
    """Bring echoes that were unwrapped one by one onto a line, by whole turns of each.

    The second echo comes within half a turn of the first, in the median; each later one as near as it can be
    to the earlier ones' line, as in :func:`unwrap_echoes`.

    Parameters
    ----------
    unwrapped : (E, X, Y, Z) float32, rad
        Each right up to one multiple of 2π.
    magnitude : (E, X, Y, Z) float32 or None
    mask : (X, Y, Z) bool
    echo_times : E values, s, increasing

    Returns
    -------
    (E, X, Y, Z) float32, rad
        Zero outside the mask.
    """
    aligned = np.zeros(unwrapped.shape, np.float32)
    done = unwrapped[:, mask]
    weights = _weights(magnitude, mask, done)
    for echo in range(1, len(echo_times) if mask.any() else 1):
        expected = done[0] if echo == 1 else _line_at(echo, echo_times, done, weights)
        done[echo] -= TWO_PI * np.round(np.median(done[echo] - expected) / TWO_PI)
    aligned[:, mask] = done
    return aligned


def _weights(
    magnitude: NDArray[np.float32] | None, mask: NDArray[np.bool_], phase: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Of each voxel's phases (E, N): the magnitude's squares, or all the same."""
    return magnitude[:, mask] ** 2 if magnitude is not None else np.ones_like(phase)


def _line_at(
    echo: int, echo_times: tuple[float, ...], phase: NDArray[np.float32], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Value at an echo of the weighted line through each voxel's phases before it."""
    times = np.asarray(echo_times[:echo], np.float32)
    phase, weights = phase[:echo], weights[:echo]
    t = times[:, None]
    total = np.maximum(weights.sum(axis=0), 1e-20)
    mean_time = (weights * t).sum(axis=0) / total
    mean_phase = (weights * phase).sum(axis=0) / total
    spread = (weights * (t - mean_time) ** 2).sum(axis=0)
    slope = (weights * (t - mean_time) * (phase - mean_phase)).sum(axis=0) / np.maximum(spread, 1e-20)
    # A voxel without signal has no line: its first two echoes give one.
    plain = (phase[1] - phase[0]) / (times[1] - times[0])
    slope = np.where(spread > 1e-6 * total * float(times[1] - times[0]) ** 2, slope, plain)
    return np.asarray(mean_phase + slope * (echo_times[echo] - mean_time), np.float32)
