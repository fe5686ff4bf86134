"""A small scanned head: brain, skull, scalp, and the bridges between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from qsm_ai.physics.dipole import GYROMAGNETIC_RATIO, forward_field

VOXEL = (2.5, 2.5, 2.5)
ECHO_TIMES = (0.004, 0.012, 0.020, 0.028)


@dataclass(frozen=True)
class Head:
    phase: NDArray[np.float32]
    magnitude: NDArray[np.float32]
    brain: NDArray[np.bool_]
    scalp: NDArray[np.bool_]
    voxel_size: tuple[float, float, float] = VOXEL
    echo_times: tuple[float, ...] = ECHO_TIMES


def scanned_head(snr: float, edge: int = 64) -> Head:
    rng = np.random.default_rng(3)
    shape = (edge,) * 3
    x, y, z = np.meshgrid(*[(np.arange(edge) - edge / 2) * h for h in VOXEL], indexing="ij")
    semi_axes = (56, 66, 52)
    radial = np.sqrt(sum((c / a) ** 2 for c, a in zip((x, y, z), semi_axes, strict=True)))
    depth = (radial - 1) * 58  # mm outside the brain, about
    wobble = gaussian_filter(rng.standard_normal(shape), 1.6)
    brain = depth + wobble / wobble.std() < 0
    skull = (depth < 6) & ~brain
    scalp = (depth < 12) & ~brain & ~skull
    bridge = (np.hypot(x, y) < 3) & skull & (z > 0)
    skull, scalp = skull & ~bridge, scalp | bridge
    texture = gaussian_filter(rng.standard_normal(shape), 1.2)
    texture /= texture.std()
    chi = np.select([brain, skull, scalp], [0.02 * texture, -2.1, 0.0], 9.2)
    field = forward_field((chi - 9.2).astype(np.float32), VOXEL, (0.1, 0.2, 0.97))
    density = np.select([brain, skull, scalp], [1 + 0.1 * texture, 0.08, 1.4], 0.0)
    coil = np.exp(-0.5 * ((x + 40) ** 2 + (y + 60) ** 2 + z**2) / 100**2)
    echoes = np.stack(
        [
            coil * density * np.exp(-20 * t + 1j * (0.3 + 2 * np.pi * GYROMAGNETIC_RATIO * 3 * t * field))
            for t in ECHO_TIMES
        ]
    )
    echoes += (rng.standard_normal(echoes.shape) + 1j * rng.standard_normal(echoes.shape)) / snr
    return Head(np.angle(echoes).astype(np.float32), np.abs(echoes).astype(np.float32), brain, scalp)


@pytest.fixture(scope="session", params=[40, 200], ids=lambda snr: f"snr{snr}")
def head(request: pytest.FixtureRequest) -> Head:
    return scanned_head(request.param)
