"""Poisson's equation with Dirichlet values on a mask of any shape.

Conjugate gradients, preconditioned by multigrid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, dia_array
from scipy.sparse.linalg import LinearOperator, cg, splu

COARSEST = 400


def interior(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of a mask whose six neighbours all lie in it too.

    Parameters
    ----------
    mask : (X, Y, Z) bool

    Returns
    -------
    (X, Y, Z) bool
    """
    inside = mask.copy()
    for axis in range(3):
        inner = np.zeros_like(mask)
        middle, low, high = (
            tuple(s if a == axis else slice(None) for a in range(3))
            for s in (slice(1, -1), slice(0, -2), slice(2, None))
        )
        inner[middle] = mask[low] & mask[high]
        inside &= inner
    return inside


def laplacian(volume: NDArray[np.float32], voxel_size: tuple[float, float, float]) -> NDArray[np.float32]:
    """Seven-point Laplacian.

    Parameters
    ----------
    volume : (X, Y, Z) float32
    voxel_size : mm

    Returns
    -------
    (X, Y, Z) float32
        Per mm²; zero on the faces of the grid.
    """
    result = np.zeros_like(volume)
    core = (slice(1, -1),) * 3
    for axis, h in enumerate(voxel_size):
        low, high = (
            tuple(s if a == axis else slice(1, -1) for a in range(3)) for s in (slice(0, -2), slice(2, None))
        )
        result[core] += (volume[low] - 2 * volume[core] + volume[high]) / np.float32(h * h)
    return result


def harmonic_remainder(
    field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: tuple[float, float, float],
    boundary: NDArray[np.float32] | None = None,
    tolerance: float = 1e-4,
) -> NDArray[np.float32]:
    r"""Solve :math:`\nabla^2 u = \nabla^2 f` inside the mask with ``u = boundary`` (or zero) on its rim.

    Parameters
    ----------
    field : (X, Y, Z) float32
    mask : (X, Y, Z) bool
    voxel_size : mm
    boundary : (X, Y, Z) float32 or None
        Only its values on the rim are used.
    tolerance : float
        Relative residual at which the solver stops.

    Returns
    -------
    (X, Y, Z) float32
        Zero outside the mask, ``boundary`` on the rim.
    """
    inside = interior(mask)
    result = np.zeros(field.shape, np.float32)
    if boundary is not None:
        result[mask] = boundary[mask]
    result[inside] = 0
    if not inside.any():
        return result
    right = laplacian(result - np.where(mask, field, 0), voxel_size)[inside]
    matrix, index = _negative_laplacian(inside, voxel_size)
    hierarchy = _hierarchy(matrix, index)
    precondition = LinearOperator(matrix.shape, matvec=lambda r: _v_cycle(hierarchy, 0, r), dtype=np.float32)
    solution, _ = cg(matrix, right, rtol=tolerance, maxiter=200, M=precondition)
    result[inside] = solution
    return result


@dataclass(frozen=True)
class _Level:
    matrix: csr_array
    inverse_diagonal: NDArray[np.float32]
    aggregate: NDArray[np.int32]
    solve: object | None


def _negative_laplacian(
    inside: NDArray[np.bool_], voxel_size: tuple[float, float, float]
) -> tuple[csr_array, NDArray[np.int32]]:
    """Matrix over the voxels of ``inside`` and their grid indices (N, 3)."""
    count = int(inside.sum())
    number = np.full(inside.shape, -1, np.int32)
    number[inside] = np.arange(count, dtype=np.int32)
    rows, columns, values = [], [], []
    diagonal = np.float32(0)
    for axis, h in enumerate(voxel_size):
        weight = np.float32(1 / (h * h))
        diagonal += 2 * weight
        low = tuple(slice(0, -1) if a == axis else slice(None) for a in range(3))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        both = inside[low] & inside[high]
        tail, head = number[low][both], number[high][both]
        rows += [tail, head]
        columns += [head, tail]
        values += [np.full(2 * tail.size, -weight, np.float32)]
    off = csr_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(count, count)
    )
    matrix = (off + dia_array((np.full((1, count), diagonal, np.float32), [0]), shape=off.shape)).tocsr()
    return matrix, np.argwhere(inside).astype(np.int32)


def _hierarchy(matrix: csr_array, index: NDArray[np.int32]) -> list[_Level]:
    """Levels made by merging blocks of 2×2×2 voxels, down to one that is solved directly."""
    levels: list[_Level] = []
    while True:
        inverse = (1 / matrix.diagonal()).astype(np.float32)
        if matrix.shape[0] <= COARSEST:
            solver = splu(matrix.astype(np.float64).tocsc())
            levels.append(_Level(matrix, inverse, np.empty(0, np.int32), solver.solve))
            return levels
        coarse = index // 2
        extent = coarse.max(axis=0).astype(np.int64) + 1
        key = (coarse[:, 0].astype(np.int64) * extent[1] + coarse[:, 1]) * extent[2] + coarse[:, 2]
        _, first, inverse_index = np.unique(key, return_index=True, return_inverse=True)
        aggregate = inverse_index.astype(np.int32).ravel()
        levels.append(_Level(matrix, inverse, aggregate, None))
        count = first.size
        prolongation = csr_array(
            (np.ones(aggregate.size, np.float32), aggregate, np.arange(aggregate.size + 1)),
            shape=(aggregate.size, count),
        )
        # Piecewise constant aggregates are too stiff by about the coarsening factor: halve the coarse matrix.
        matrix = ((prolongation.T @ (matrix @ prolongation)) * np.float32(0.5)).tocsr()
        index = coarse[first]


def _v_cycle(levels: list[_Level], depth: int, right: NDArray[np.float32]) -> NDArray[np.float32]:
    level = levels[depth]
    if level.solve is not None:
        return level.solve(right.astype(np.float64)).astype(np.float32)  # type: ignore[operator,no-any-return]
    damping = np.float32(0.7)
    x = damping * level.inverse_diagonal * right
    x += damping * level.inverse_diagonal * (right - level.matrix @ x)
    remainder = right - level.matrix @ x
    coarse = np.bincount(level.aggregate, weights=remainder, minlength=levels[depth + 1].matrix.shape[0])
    x += _v_cycle(levels, depth + 1, coarse.astype(np.float32))[level.aggregate]
    for _ in range(2):
        x += damping * level.inverse_diagonal * (right - level.matrix @ x)
    return x
