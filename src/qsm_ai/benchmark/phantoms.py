"""Phantoms with a known truth, recorded by another project's scanner model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import qsm_forward.qsm_forward as forward
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from qsm_ai.benchmark.cases import Case
from qsm_ai.network.anatomy import Head, bared, simulate_head
from qsm_ai.network.geometry import head_coordinates
from qsm_ai.network.inclusions import R2STAR_OF_A_PPM, STEEPEST_PPM, paint_balls
from qsm_ai.network.tissue import NUCLEI, nuclei
from qsm_ai.scan import Grid, Scan

FIRST_TEST_SEED = 990_000
"""Heads from here on are for testing alone: nothing is trained, validated or calibrated on such a seed."""

ECHO_TIMES = (0.004, 0.012, 0.020, 0.028)
"""s, at 3 T."""

DSEG = {
    "caudate": 1, "pallidum": 2, "putamen": 3, "red nucleus": 4, "dentate": 5, "substantia nigra": 6,
    "thalamus": 7, "lesion": 16,
}  # fmt: skip
"""Numbers of regions, as QSM-CI's segmentations have them."""

LESION_PLACE, LESION_RADIUS = (-24.0, -18.0, 24.0), 3.0
"""mm right, front, up of the head's middle; mm. White matter beside the ventricle."""


@dataclass(frozen=True)
class Phantom:
    """A scan and what it was made from.

    Attributes
    ----------
    scan : Scan
        From phase, with the brain's mask.
    chi : (X, Y, Z) float32, ppm
        Mean zero in the brain, zero outside.
    total_field : (X, Y, Z) float32, ppm
        Without noise, in the brain.
    local_field : (X, Y, Z) float32, ppm
        Without noise, in the brain.
    regions : (X, Y, Z) uint8
        Deep nuclei and the lesion, numbered as in ``DSEG``; 0 elsewhere.
    """

    scan: Scan
    chi: NDArray[np.float32]
    total_field: NDArray[np.float32]
    local_field: NDArray[np.float32]
    regions: NDArray[np.uint8]

    def starting_from(self, start: str) -> Scan:
        """The same phantom, entering the pipeline later, its magnitude beside it.

        Parameters
        ----------
        start : "phase", "total field" or "local field"

        Returns
        -------
        Scan

        Raises
        ------
        ValueError
            If there is no such start.
        """
        if start == "phase":
            return self.scan
        if start not in {"total field", "local field"}:
            raise ValueError(f"no phantom starts from {start!r}")
        is_total = start == "total field"
        return Scan(
            name=self.scan.name,
            grid=self.scan.grid,
            b0_direction=self.scan.b0_direction,
            field_strength=self.scan.field_strength,
            magnitude=self.scan.magnitude,
            total_field=self.total_field if is_total else None,
            local_field=None if is_total else self.local_field,
            mask=self.scan.mask,
        )


def make_phantom(case: Case, labels: NDArray[np.int16] | None = None) -> Phantom:
    """Invent a head that no network was trained on and record it with ``qsm-forward``.

    Its deep nuclei are given the published susceptibilities, so that the slope through them means the same
    in every phantom.

    Parameters
    ----------
    case : Case
    labels : (L, M, N) int or None
        Labels of a real head, for a case that asks for them.

    Returns
    -------
    Phantom

    Raises
    ------
    ValueError
        If the case asks for labels and none are given.

    References
    ----------
    Marques et al. 2021, 10.1002/mrm.28716.
    """
    if case.anatomy == "labelled" and labels is None:
        raise ValueError(f"the phantom {case.name!r} needs the labels of a head")
    rng = np.random.default_rng(FIRST_TEST_SEED + case.head)
    head = simulate_head(
        rng,
        case.voxel_size,
        scale=case.scale,
        lesions=case.lesions,
        labels=labels if case.anatomy == "labelled" else None,
    )
    if case.bare:
        head = bared(head)
    regions = _lay_nuclei(head, case)
    if case.lesion is not None:
        _lay_lesion(head, case.lesion, case.scale, regions)
    angle = np.deg2rad(case.tilt)
    direction = (float(np.sin(angle)), 0.0, float(np.cos(angle)))
    # Bone and air end within voxels, not between them: without their partial volume the field rings.
    around = gaussian_filter(np.where(head.brain, 0, head.chi), 1.0)
    sources = np.where(head.brain, head.chi, around)
    geometry = list(case.voxel_size), list(direction)
    field = forward.generate_field(sources, head.brain, *geometry)
    chi = np.where(head.brain, head.chi - head.chi[head.brain].mean(), 0).astype(np.float32)
    local = forward.generate_field(chi, None, *geometry)
    phase, magnitude, times = _record(head, field, case, rng)
    x, y, z = head.chi.shape
    scan = Scan(
        name=case.name,
        grid=Grid((x, y, z), np.diag([*case.voxel_size, 1.0])),
        b0_direction=direction,
        field_strength=case.field_strength,
        phase=phase,
        magnitude=magnitude,
        echo_times=times,
        mask=head.brain,
    )
    return Phantom(
        scan,
        chi,
        (field * head.brain).astype(np.float32),
        (local * head.brain).astype(np.float32),
        regions,
    )


def _record(
    head: Head, field: NDArray[np.float64], case: Case, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[float, ...]]:
    """Phase, magnitude and echo times (s) of a field; at other strengths the signal lasts otherwise."""
    times = tuple(round(t * (3 / case.field_strength) ** 0.6, 5) for t in ECHO_TIMES)
    offset = forward.generate_phase_offset(head.signal, head.brain, head.chi.shape)
    r2star = head.r2star * case.field_strength / 3
    phase = np.empty((len(times), *head.chi.shape), np.float32)
    magnitude = np.empty_like(phase)
    for index, time in enumerate(times):
        signal = forward.generate_signal(
            field, B0=case.field_strength, TE=time, phase_offset=offset, R2star=r2star, M0=head.signal
        )
        signal = forward.add_noise(signal, case.snr, rng)
        phase[index], magnitude[index] = np.angle(signal), np.abs(signal)
    return phase, magnitude, times


def _lay_nuclei(head: Head, case: Case) -> NDArray[np.uint8]:
    """Give a head, in place, deep nuclei of published χ; number the voxels that are theirs alone."""
    middle = head_coordinates(head.chi.shape, case.voxel_size, np.eye(3))
    width = float(np.mean(case.voxel_size))
    # Without variety nothing that is drawn matters.
    deep, share = nuclei(np.random.default_rng(0), middle, case.scale, width, variety=0.0)
    share = share * head.brain
    head.chi[...] = head.chi * (1 - share) + deep * share
    regions = np.zeros(head.chi.shape, np.uint8)
    pure = share > 0.8
    values = np.array([NUCLEI[name][0] for name in NUCLEI])
    numbers = np.array([DSEG[name] for name in NUCLEI], np.uint8)
    regions[pure] = numbers[np.abs(deep[pure][:, None] - values).argmin(axis=1)]
    return regions


def _lay_lesion(head: Head, value: float, scale: float, regions: NDArray[np.uint8]) -> None:
    """Put one ball of a susceptibility (ppm) into a head and its regions, in place."""
    size = np.asarray(head.voxel_size)
    centre = np.array([np.array(LESION_PLACE) * scale / size + (np.array(head.chi.shape) - 1) / 2])
    share = np.zeros(head.chi.shape, np.float32)
    paint_balls(share, centre, np.array([LESION_RADIUS]), head.voxel_size)
    share *= head.brain
    head.chi[...] = head.chi * (1 - share) + value * share
    head.r2star[...] = head.r2star + share * R2STAR_OF_A_PPM * min(STEEPEST_PPM, abs(value))
    regions[share > 0.5] = DSEG["lesion"]
