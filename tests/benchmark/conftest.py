"""A phantom that takes no time."""

from __future__ import annotations

import pytest

pytest.importorskip("qsm_ci", reason="qsm-ai[bench] is not installed")
pytest.importorskip("qsm_forward", reason="qsm-ai[bench] is not installed")

from qsm_ai.benchmark.cases import Case
from qsm_ai.benchmark.phantoms import Phantom, make_phantom

COARSE = Case("coarse", head=7, tilt=20, snr=200, voxel_size=(4.0, 4.0, 5.0), lesion=1.0)


@pytest.fixture(scope="session")
def coarse() -> Phantom:
    return make_phantom(COARSE)
