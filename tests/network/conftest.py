"""Coarse heads and small networks: the same code as the real ones, in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.network.anatomy import Head, simulate_head

if TYPE_CHECKING:
    from qsm_ai.network.qsm_vit import QsmVit

COARSE = (4.0, 4.5, 5.0)
"""mm."""


@pytest.fixture(scope="session")
def head() -> Head:
    return simulate_head(np.random.default_rng(11), COARSE, lesions=False)


@pytest.fixture(scope="session")
def labels() -> NDArray[np.int16]:
    """Something like FreeSurfer's labels of a head: cortex around white matter, ventricles, two nuclei."""
    right, front, up = (np.arange(-n, n + 1)[:, None] for n in (65, 80, 60))
    x, y, z = right[:, :, None], front.T[:, :, None], up.T[None]
    radius = np.sqrt((x / 65) ** 2 + (y / 80) ** 2 + (z / 60) ** 2)
    made = np.zeros(radius.shape, np.int16)
    made[radius < 1] = 1035
    made[(radius < 0.85) & (x < 0)] = 2
    made[(radius < 0.85) & (x >= 0)] = 41
    made[(np.abs(np.abs(x) - 8) < 5) & (np.abs(y) < 25) & (np.abs(z - 10) < 8)] = 4
    made[(np.abs(x - 24) < 6) & (np.abs(y) < 15) & (np.abs(z) < 10)] = 52
    made[(np.abs(x + 24) < 6) & (np.abs(y) < 15) & (np.abs(z) < 10)] = 13
    return made


@pytest.fixture
def small_network() -> Iterator[Callable[..., QsmVit]]:
    """Makes networks of a few thousand weights; with a seed, all weights are random and nothing is zero."""
    torch = pytest.importorskip("torch")
    from qsm_ai.network.qsm_vit import QsmVit

    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def make(seed: int | None = None, **changes: object) -> QsmVit:
        torch.manual_seed(0 if seed is None else seed)
        options: dict[str, object] = {"widths": (8, 8, 16), "depth": 1, "heads": 2} | changes
        model = QsmVit(**options)
        if seed is not None:
            with torch.no_grad():
                for parameter in model.parameters():
                    scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
                    parameter.copy_(scale * torch.randn_like(parameter))
        return model.eval()

    yield make
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stored examples: three balls of texture, larger and smaller than a crop."""
    folder = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(5)
    for number, shape in enumerate([(24, 20, 28), (14, 24, 20), (20, 20, 20)]):
        stack = rng.standard_normal((8, *shape)).astype(np.float16)
        stack[-2] = 0.5 * stack[1]
        stack[-1] = 1
        stack[-1, :1] = stack[-1, :, -1:] = 0
        np.save(folder / f"{number:06d}.npy", stack)
    return folder
