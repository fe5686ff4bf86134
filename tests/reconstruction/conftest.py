"""Evidence of a made-up map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from qsm_ai.physics.dipole import forward_field
from qsm_ai.reconstruction.evidence import Evidence

Make = Callable[..., Evidence]

SHAPE = (40, 40, 40)
B0 = (0.0, 0.6, 0.8)


@pytest.fixture(scope="session")
def make_evidence() -> Make:
    """A ball of a brain with texture and a few strong spots; any of its parts can be replaced."""
    rng = np.random.default_rng(11)
    x = np.arange(40) - 19.5
    mask = x[:, None, None] ** 2 + x[:, None] ** 2 + x**2 < 17**2
    chi = 0.15 * gaussian_filter(rng.standard_normal(SHAPE), 1.5)
    spots = np.zeros(SHAPE)
    spots.ravel()[rng.choice(chi.size, 60, replace=False)] = 8.0
    chi = np.where(mask, chi + gaussian_filter(spots, 0.8), 0).astype(np.float32)
    field = forward_field(chi, (1.0, 1.0, 1.0), B0)
    noise = rng.standard_normal(SHAPE).astype(np.float32)

    def make(scale: float = 1.0, **replaced: Any) -> Evidence:
        factor = np.float32(scale)
        parts: dict[str, Any] = {
            "chi": chi * factor,
            "correction": (0.01 * noise * mask).astype(np.float32) * factor,
            "local_field": (field * mask).astype(np.float32) * factor,
            "residual": (0.002 * noise * mask).astype(np.float32) * factor,
            "mask": mask,
            "known": mask,
            "voxel_size": (1.0, 1.0, 1.0),
            "b0_direction": B0,
            "field_strength": 3.0,
            "noise": 0.002 * scale,
            "scale": 0.03 * scale,
            "background_removed": True,
        }
        return Evidence(**{**parts, **replaced})

    return make
