"""What runs on a GPU is what runs on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from qsm_ai.network.accelerated import TorchNetwork, solvers  # noqa: E402
from qsm_ai.network.anatomy import Head  # noqa: E402
from qsm_ai.network.door import NUMPY  # noqa: E402
from qsm_ai.network.examples import prepare_examples, random_scan  # noqa: E402
from qsm_ai.network.qsm_vit import QsmVit  # noqa: E402
from qsm_ai.network.simulation import Echoes  # noqa: E402
from qsm_ai.physics.dipole import forward_field  # noqa: E402
from qsm_ai.physics.edges import magnitude_edges  # noqa: E402
from qsm_ai.reconstruction.inputs import CHANNELS  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HERE, THERE = NUMPY, solvers(DEVICE)


@pytest.fixture(scope="module")
def network() -> TorchNetwork:
    torch.manual_seed(3)
    model = QsmVit(widths=(8, 8, 16), heads=2)
    with torch.no_grad():
        model.leave.weight.normal_(0, 0.02)
    return TorchNetwork(model, DEVICE)


@pytest.fixture(scope="module")
def scan() -> tuple[Head, Echoes]:
    return random_scan(np.random.default_rng(24), (4.0, 4.5, 5.0), None)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / max(np.linalg.norm(one), 1e-6))


@pytest.mark.parametrize("outside", [0.0, 0.01, np.inf])
@pytest.mark.parametrize("guided", [False, True])
def test_total_variation_is_the_same_but_for_rounding(
    scan: tuple[Head, Echoes], guided: bool, outside: float
) -> None:
    head, echoes = scan
    geometry = head.voxel_size, echoes.b0_direction
    field = forward_field(np.where(head.brain, head.chi, 0).astype(np.float32), *geometry)
    edges = magnitude_edges(echoes.magnitude, head.brain, head.voxel_size) if guided else None
    weights = np.random.default_rng(0).random(field.shape).astype(np.float32)
    usual, fast = (
        chosen.total_variation(
            field, head.brain, *geometry, 3e-4, weights=weights, edges=edges, outside_weight=outside
        )
        for chosen in (HERE, THERE)
    )
    assert fast.dtype == np.float32
    assert not fast[~head.brain].any()
    assert apart(usual, fast) < 1e-4


def test_the_background_is_sought_and_sought_on_alike(scan: tuple[Head, Echoes]) -> None:
    """Later iterations amplify how either rounds its sums."""
    head, echoes = scan
    geometry = head.voxel_size, echoes.b0_direction
    inner = forward_field(np.where(head.brain, head.chi, 0).astype(np.float32), *geometry)
    noisy = np.where(np.random.default_rng(1).random(inner.shape) < 0.1, np.inf, 1).astype(np.float32)
    usual, fast = (chosen.sources(head.brain, *geometry, noisy) for chosen in (HERE, THERE))
    for known in (None, 0.5 * inner, inner):
        one, other = (s.remove(echoes.true_field, known, iterations=6) for s in (usual, fast))
        assert other.dtype == np.float32
        assert apart(one, other) < 5e-3


@pytest.mark.parametrize("seed", range(2))
def test_examples_of_either_are_of_a_kind(
    scan: tuple[Head, Echoes], network: TorchNetwork, seed: int
) -> None:
    usual, fast = (
        prepare_examples(np.random.default_rng(seed), *scan, network, chosen) for chosen in (HERE, THERE)
    )
    assert len(usual) == len(fast)
    for one, other in zip(usual, fast, strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)
        for name, a, b in zip(CHANNELS, one.inputs, other.inputs, strict=True):
            assert apart(a, b) < 0.1, name


def test_a_network_answers_every_patch_in_order_and_counts_them(network: TorchNetwork) -> None:
    patches = np.random.default_rng(0).standard_normal((6, len(CHANNELS), 16, 16, 16)).astype(np.float32)
    counted: list[int] = []
    together = network.predict(patches, counted.append)
    assert together.shape == (6, 1, 16, 16, 16)
    assert counted == [4, 6]
    for patch, answer in zip(patches, together, strict=True):
        alone = network.predict(patch[None])[0]
        np.testing.assert_allclose(alone, answer, atol=1e-2 * np.abs(answer).max())
