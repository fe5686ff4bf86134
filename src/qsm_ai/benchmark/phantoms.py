"""Phantoms with a known truth, recorded by another project's scanner model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import qsm_forward.qsm_forward as forward
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from qsm_ai.network.anatomy import simulate_head
from qsm_ai.scan import Grid, Scan

FIRST_TEST_SEED = 990_000
"""Heads from here on are for testing alone: no training or validation example has such a seed."""


@dataclass(frozen=True)
class Case:
    """What is varied.

    Attributes
    ----------
    name : str
    head : int
        Which of the test heads.
    tilt : degrees between the third axis and B0
    snr : of the strongest signal of the first echo
    voxel_size : mm
    field_strength : T
    lesions : bool
    """

    name: str
    head: int = 0
    tilt: float = 0.0
    snr: float = 100.0
    voxel_size: tuple[float, float, float] = (1.15, 1.15, 1.15)
    field_strength: float = 3.0
    lesions: bool = False


CASES = (
    Case("plain"),
    Case("tilted by 30°", head=1, tilt=30),
    Case("SNR 40", head=2, snr=40),
    Case("2 mm slices", head=3, voxel_size=(1.0, 1.0, 2.0)),
    Case("lesions", head=4, lesions=True),
)
ECHO_TIMES = (0.004, 0.012, 0.020, 0.028)


@dataclass(frozen=True)
class Phantom:
    """A scan and what it was made from.

    Attributes
    ----------
    scan : Scan
        From phase, with the brain's mask.
    chi : (X, Y, Z) float32, ppm
        Mean zero in the brain, zero outside.
    local_field : (X, Y, Z) float32, ppm
    """

    scan: Scan
    chi: NDArray[np.float32]
    local_field: NDArray[np.float32]

    @property
    def from_local_field(self) -> Scan:
        """The same phantom, entering the pipeline with its true local field."""
        return Scan(
            name=self.scan.name,
            grid=self.scan.grid,
            b0_direction=self.scan.b0_direction,
            field_strength=self.scan.field_strength,
            local_field=self.local_field,
            mask=self.scan.mask,
        )


def make_phantom(case: Case) -> Phantom:
    """Invent a head that no network was trained on and record it with ``qsm-forward``.

    Parameters
    ----------
    case : Case

    Returns
    -------
    Phantom

    References
    ----------
    Marques et al. 2021, 10.1002/mrm.28716.
    """
    rng = np.random.default_rng(FIRST_TEST_SEED + case.head)
    head = simulate_head(rng, case.voxel_size, lesions=case.lesions)
    angle = np.deg2rad(case.tilt)
    direction = (float(np.sin(angle)), 0.0, float(np.cos(angle)))
    # Bone and air end within voxels, not between them: without their partial volume the field rings.
    around = gaussian_filter(np.where(head.brain, 0, head.chi), 1.0)
    sources = np.where(head.brain, head.chi, around)
    field = forward.generate_field(sources, head.brain, list(case.voxel_size), list(direction))
    chi = np.where(head.brain, head.chi - head.chi[head.brain].mean(), 0).astype(np.float32)
    local = forward.generate_field(chi, None, list(case.voxel_size), list(direction))
    offset = forward.generate_phase_offset(head.signal, head.brain, head.chi.shape)
    echoes = [
        forward.add_noise(
            forward.generate_signal(
                field,
                B0=case.field_strength,
                TE=time,
                phase_offset=offset,
                R2star=head.r2star * case.field_strength / 3,
                M0=head.signal,
            ),
            case.snr,
            rng,
        )
        for time in ECHO_TIMES
    ]
    x, y, z = head.chi.shape
    scan = Scan(
        name=case.name,
        grid=Grid((x, y, z), np.diag([*case.voxel_size, 1.0])),
        b0_direction=direction,
        field_strength=case.field_strength,
        phase=np.stack([np.angle(s) for s in echoes]).astype(np.float32),
        magnitude=np.stack([np.abs(s) for s in echoes]).astype(np.float32),
        echo_times=ECHO_TIMES,
        mask=head.brain,
    )
    return Phantom(scan, chi, (local * head.brain).astype(np.float32))
