"""Training examples: invented scans that went through our own field mapping and background removal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from qsm_ai.network.anatomy import Head, simulate_head
from qsm_ai.network.geometry import Triple, Volume, bounding_box, random_direction, random_rotation
from qsm_ai.network.simulation import Echoes, known_turns, simulate_echoes
from qsm_ai.physics.background import lbv
from qsm_ai.physics.dipole import forward_field
from qsm_ai.physics.field_mapping import fit_field, reliable
from qsm_ai.physics.inversion import Inverter
from qsm_ai.physics.pdf import pdf
from qsm_ai.physics.unwrapping import unwrap_echoes
from qsm_ai.reconstruction.inputs import network_inputs

MARGIN = 4
"""Voxels left around the brain."""

LARGEST_STORED = 6e4
"""Values beyond it are cut before they are stored as float16, which ends at 65504."""

TRUST_IN_LOST_FIELD = 0.2
"""Weight of voxels whose field was lost."""


@dataclass(frozen=True)
class Example:
    """One volume that the network can learn from.

    Attributes
    ----------
    inputs : (5, X, Y, Z) float32
        See ``reconstruction.inputs``.
    target : (X, Y, Z) float32
        The correction to the first map, in units of ``scale``.
    weight : (X, Y, Z) float32
        One where the loss counts, less where the field was lost, zero outside the brain.
    scale : float, ppm
    """

    inputs: Volume
    target: Volume
    weight: Volume
    scale: float


def load_labels(path: Path) -> NDArray[np.int16]:
    """Read FreeSurfer labels of a head.

    Parameters
    ----------
    path : Path
        NIfTI at 1 mm.

    Returns
    -------
    (L, M, N) int16
        Right-front-up, cropped to what is labelled.
    """
    image = nib.as_closest_canonical(nib.load(path))  # type: ignore[no-untyped-call]
    labels = np.asarray(image.dataobj).astype(np.int16)
    found = np.argwhere(labels > 0)
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(found.min(0), found.max(0), strict=True))
    return labels[box]


def random_voxel(rng: np.random.Generator) -> Triple:
    """Draw a voxel size, mm: 0.95 to 1.7, half of the time up to twice as long along one axis."""
    size = np.full(3, np.exp(rng.uniform(np.log(0.95), np.log(1.7))))
    if rng.random() < 0.5:
        size[rng.integers(3)] *= rng.uniform(1, 2)
    x, y, z = (float(s) for s in size)
    return x, y, z


def random_example(rng: np.random.Generator, labels: NDArray[np.int16] | None) -> Example:
    """Invent a head, scan it, and take the scan as far as the network's door.

    Parameters
    ----------
    rng : numpy Generator
    labels : (L, M, N) int or None
        Anatomy of a real head, used for some of the examples.

    Returns
    -------
    Example
    """
    head, echoes = random_scan(rng, random_voxel(rng), labels)
    return prepare_example(rng, head, echoes)


def random_scan(
    rng: np.random.Generator, voxel_size: Triple, labels: NDArray[np.int16] | None
) -> tuple[Head, Echoes]:
    """Invent a head and scan it with a protocol that a scanner might have.

    Parameters
    ----------
    rng : numpy Generator
    voxel_size : mm
    labels : (L, M, N) int or None
        Anatomy of a real head, used half of the time.

    Returns
    -------
    head : Head
    echoes : Echoes
        One to eight of them, at 1.5, 3 or 7 T, at any tilt, with an SNR of 20 to 300.
    """
    head = simulate_head(
        rng,
        voxel_size,
        scale=float(rng.uniform(0.8, 1.05)),
        tilt=random_rotation(rng, 25),
        labels=labels if rng.random() < 0.5 else None,
    )
    direction = random_direction(rng, 30 if rng.random() < 0.6 else 90)
    field_strength = float(rng.choice([1.5, 3.0, 3.0, 7.0]))
    count = int(rng.choice([1, 2, 3, 4, 5, 6, 8], p=[0.08, 0.07, 0.2, 0.25, 0.2, 0.1, 0.1]))
    last = rng.uniform(0.018, 0.040) * (3 / field_strength) ** 0.6
    first = last / count * rng.uniform(0.5, 1.0) if count > 1 else last
    echoes = simulate_echoes(
        rng,
        head,
        b0_direction=direction,
        field_strength=field_strength,
        echo_times=tuple(float(t) for t in np.linspace(first, last, count)),
        snr=float(np.exp(rng.uniform(np.log(20), np.log(300)))),
    )
    return head, echoes


def prepare_example(rng: np.random.Generator, head: Head, echoes: Echoes) -> Example:
    """Take a scan through unwrapping, field mapping and background removal, as the pipeline does.

    What users bring differs: some of the masks are a little too small or too large, some of the phases are
    unwrapped by our own path following instead of the truth, and some of the inner field is known
    beforehand, as it is when the background is removed a second time.

    Parameters
    ----------
    rng : numpy Generator
    head : Head
    echoes : Echoes
        Of this head.

    Returns
    -------
    Example
        Cropped to the mask with a margin.

    Raises
    ------
    ValueError
        If so little of the brain is there that the mask is empty.
    """
    mask = head.brain
    draw = rng.random()
    if draw < 0.25:
        mask = binary_erosion(mask, iterations=int(rng.integers(1, 3)))
    elif draw < 0.4:
        mask = binary_dilation(mask)
    box = bounding_box(mask, MARGIN)
    if box is None:
        raise ValueError("nothing of the brain is left in the mask")

    if rng.random() < 0.15:
        unwrapped = unwrap_echoes(echoes.phase, echoes.magnitude, mask, echoes.echo_times)
    else:
        unwrapped = known_turns(echoes)
    fit = fit_field(unwrapped, echoes.magnitude, mask, echoes.echo_times, echoes.field_strength)
    sure = reliable(fit.standard_error, mask)
    inside = np.where(mask, head.chi - head.chi[mask & head.brain].mean(), 0).astype(np.float32)
    # How much of the inner field disturbs the removal: all the first time, less the second, or none.
    left = float(rng.choice([1.0, rng.random(), 0.0], p=[0.5, 0.35, 0.15]))
    known = np.zeros_like(inside)
    if left < 1:
        known = np.float32(1 - left) * forward_field(inside, head.voxel_size, echoes.b0_direction, margin=24)
    unknown = fit.total_field - known
    if rng.random() < 0.8:
        silent = np.where(sure, np.float32(1), np.float32(np.inf))
        local = pdf(unknown, mask, head.voxel_size, echoes.b0_direction, silent)
    else:
        local = lbv(unknown, sure, head.voxel_size)
    local = (local + known) * sure

    inverter = Inverter(local[box], head.voxel_size, echoes.b0_direction)
    inputs, first, scale = network_inputs(inverter, fit.standard_error[box], mask[box], sure[box])
    # Bone and air that a poor mask took in are nobody's to predict.
    weight = (mask & head.brain)[box] * np.where(sure[box], np.float32(1), np.float32(TRUST_IN_LOST_FIELD))
    target = (inside[box] - first) / np.float32(scale) * mask[box]
    return Example(inputs, target.astype(np.float32), weight.astype(np.float32), scale)


def write_pool(directory: Path, seeds: range, labels: NDArray[np.int16] | None) -> int:
    """Write examples, one file a seed, skipping those already there and those that are not finite.

    Parameters
    ----------
    directory : Path
        Gets ``<seed>.npy``: (7, X, Y, Z) float16, the inputs, target and weight.
    seeds : range
    labels : (X, Y, Z) int or None

    Returns
    -------
    int
        Number of files written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = 0
    for seed in seeds:
        path = directory / f"{seed:06d}.npy"
        if path.exists():
            continue
        example = random_example(np.random.default_rng(seed), labels)
        stack = np.concatenate([example.inputs, example.target[None], example.weight[None]])
        if not np.isfinite(stack).all():
            continue
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            np.save(file, np.clip(stack, -LARGEST_STORED, LARGEST_STORED).astype(np.float16))
        partial.rename(path)
        written += 1
    return written
