"""The splits of total variation, against the formulas written out on the whole grid."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.physics.edges import Edges
from qsm_ai.physics.splits import PLANES, ShrunkGradient

VOXEL = (1.0, 1.3, 2.1)
THRESHOLD = np.float32(0.4)


def random_edges(rng: np.random.Generator, shape: tuple[int, ...]) -> Edges:
    normal = rng.standard_normal((3, *shape)).astype(np.float32)
    return Edges(rng.random(shape, dtype=np.float32), normal / np.linalg.norm(normal, axis=0))


def gradient(chi: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([(np.roll(chi, -1, axis) - chi) / h for axis, h in enumerate(VOXEL)])


def adjoint(field: NDArray[np.float64]) -> NDArray[np.float64]:
    return sum((np.roll(field[axis], 1, axis) - field[axis]) / h for axis, h in enumerate(VOXEL))


def cut(vectors: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    return vectors * most / np.maximum(np.linalg.norm(vectors, axis=0), most)


@pytest.mark.parametrize("count", [1, 2, PLANES, PLANES + 1, 3 * PLANES - 1])
@pytest.mark.parametrize("guided", [False, True])
def test_the_split_gradient_is_shrunk_and_its_multiplier_keeps_the_rest(count: int, guided: bool) -> None:
    rng = np.random.default_rng(count)
    shape = (count, 7, 6)
    edges = random_edges(rng, shape) if guided else None
    split = ShrunkGradient(shape, VOXEL, THRESHOLD, edges)
    multiplier = np.zeros((3, *shape))
    for _ in range(3):
        chi = rng.standard_normal(shape, dtype=np.float32)
        moved = gradient(chi.astype(np.float64)) + multiplier
        if edges is None:
            multiplier = cut(moved, THRESHOLD)
        else:
            across = (edges.normal * moved).sum(axis=0)
            most = edges.smoothness * THRESHOLD
            multiplier = cut(moved - across * edges.normal, THRESHOLD)
            multiplier = multiplier + np.clip(across, -most, most) * edges.normal
        pull = split.step(chi)
        np.testing.assert_allclose(split.multiplier, multiplier, atol=1e-5)
        np.testing.assert_allclose(pull, adjoint(moved - 2 * multiplier), atol=2e-5)
