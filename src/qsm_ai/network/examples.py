"""Training examples: invented scans that went through our own field mapping and background removal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from qsm_ai.network.anatomy import Head, bared, simulate_head
from qsm_ai.network.door import NUMPY, Example, Solvers, at_the_door
from qsm_ai.network.geometry import Triple, Volume, random_direction, random_rotation
from qsm_ai.network.simulation import Echoes, simulate_echoes
from qsm_ai.physics.dipole import forward_field
from qsm_ai.physics.referencing import reference
from qsm_ai.reconstruction.network import Network
from qsm_ai.reconstruction.patches import plan_patches
from qsm_ai.reconstruction.pipeline import PASSES
from qsm_ai.reconstruction.prediction import predict_map

LARGEST_STORED = 6e4
"""Values beyond it are cut before they are stored as float16, which ends at 65504."""

WITHOUT_EDGES = 0.15
"""Share of the scans whose classical map does without edges, as that of a scan without a magnitude."""

FINE, COARSE, THICK = 0.35, 0.25, 0.1
"""Shares of the scans to learn from whose voxels are cubes of 0.95 to 1.2 mm, where detail is finest and most
is left to learn, cubes of 1.4 to 2.2 mm, and slices of 2 to 3.2 mm; the others have any in between."""

BARE = 0.35
"""Share of the scans to learn from whose head is nothing but bone and air around the brain."""

OTHER_CONTRAST = 0.6
"""Share of the scans whose tissues differ in magnitude otherwise than textbook proton densities do: less,
more, or the other way round."""

GIVEN, GIVEN_WITHOUT_EDGES = 0.6, 0.5
"""Share of the scans that are also shown with a local field in which nothing but noise is wrong, and of these
the share without a magnitude."""


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


def voxel_to_learn_from(rng: np.random.Generator) -> Triple:
    """Draw the voxel size, mm, of a scan to learn from: fine or coarse cubes, thick slices, or any."""
    draw = rng.random()
    if draw < THICK:
        size = np.full(3, rng.uniform(0.9, 1.2))
        size[rng.integers(3)] = rng.uniform(2.0, 3.2)
        x, y, z = (float(s) for s in size)
        return x, y, z
    if draw < THICK + FINE + COARSE:
        edge = float(rng.uniform(0.95, 1.2) if draw < THICK + FINE else rng.uniform(1.4, 2.2))
        return edge, edge, edge
    return random_voxel(rng)


def random_examples(
    rng: np.random.Generator,
    labels: NDArray[np.int16] | None,
    network: Network | None = None,
    coarser: float = 1.0,
    solvers: Solvers = NUMPY,
) -> list[Example]:
    """Invent a head, scan it, and take the scan as far as the network's door.

    Parameters
    ----------
    rng : numpy Generator
    labels : (L, M, N) int or None
        Anatomy of a real head, used for some of the examples.
    network : Network or None
        See :func:`prepare_examples`.
    coarser : float
        Voxels are so many times those of :func:`voxel_to_learn_from`.
    solvers : Solvers
        Numpy's when left out.

    Returns
    -------
    list of Example
    """
    voxel_size = voxel_to_learn_from(rng)
    x, y, z = (size * coarser for size in voxel_size)
    head, echoes = random_scan(rng, (x, y, z), labels, bare=BARE)
    return prepare_examples(rng, head, echoes, network, solvers)


def random_scan(
    rng: np.random.Generator, voxel_size: Triple, labels: NDArray[np.int16] | None, bare: float = 0.0
) -> tuple[Head, Echoes]:
    """Invent a head and scan it with a protocol that a scanner might have.

    Parameters
    ----------
    rng : numpy Generator
    voxel_size : mm
    labels : (L, M, N) int or None
        Anatomy of a real head, used half of the time.
    bare : float
        Share of the heads with nothing but bone, 4 to 9 mm of it, and air around the brain.

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
    # A head drawn with none bare stays the same head: the calibration's are.
    if bare > 0 and rng.random() < bare:
        head = bared(head, skull=float(rng.uniform(4, 9)))
    if rng.random() < OTHER_CONTRAST:
        head = replace(head, signal=_with_contrast(head, rng.uniform(-0.5, 2.5)))
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


def _with_contrast(head: Head, power: float) -> Volume:
    """The magnitude at echo time zero, to a power within the brain."""
    inside = np.maximum(head.signal, np.float32(0.05)) ** np.float32(power)
    return np.where(head.brain, inside, head.signal)


def prepare_examples(
    rng: np.random.Generator,
    head: Head,
    echoes: Echoes,
    network: Network | None = None,
    solvers: Solvers = NUMPY,
) -> list[Example]:
    """Take a scan through unwrapping, field mapping and background removal, as the pipeline does.

    One scan stands at the network's door several times: after the background was sought knowing the classical
    map; with a network, also after it was sought knowing that one's maps; and some scans come with a local
    field that needs no removal, as often with a magnitude as without.

    Parameters
    ----------
    rng : numpy Generator
    head : Head
    echoes : Echoes
        Of this head.
    network : Network or None
        Of an earlier training.
    solvers : Solvers
        Numpy's when left out.

    Returns
    -------
    list of Example
        Cropped to the mask with a margin.

    Raises
    ------
    ValueError
        If so little of the brain is there that the mask is empty.
    """
    door = at_the_door(rng, head, echoes, solvers)
    examples = []
    if rng.random() < GIVEN and len(echoes.echo_times) > 1:  # a single echo's offset is more than noise
        beside = door.found_edges if rng.random() >= GIVEN_WITHOUT_EDGES else None
        examples.append(door.example(door.given_field(), beside, given=True)[0])

    edges = door.found_edges if rng.random() >= WITHOUT_EDGES else None
    removal = door.removal("pdf" if rng.random() < 0.95 else "lbv")
    _, chi = door.example(removal.local_field(), edges)
    for turn in range(PASSES if network is not None else 1):
        inner = forward_field(reference(chi, door.mask, "mean"), *door.geometry)
        example, chi = door.example(removal.local_field(inner), edges)
        examples.append(example)
        if network is not None and turn + 1 < PASSES:
            plan = plan_patches(door.mask)
            chi = predict_map(network, plan, example.inputs, chi, example.scale, door.known)
    return examples


def write_pool(
    directory: Path,
    seeds: range,
    labels: NDArray[np.int16] | None,
    network: Network | None = None,
    coarser: float = 1.0,
    solvers: Solvers = NUMPY,
) -> int:
    """Write examples, skipping seeds already there and examples that are not finite.

    Parameters
    ----------
    directory : Path
        Gets ``<seed>-<k>.npy``: (8, X, Y, Z) float16, the inputs, target and weight.
    seeds : range
    labels : (X, Y, Z) int or None
    network : Network or None
        See :func:`prepare_examples`.
    coarser : float
        See :func:`random_examples`.
    solvers : Solvers
        Numpy's when left out.

    Returns
    -------
    int
        Number of files written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = 0
    for seed in seeds:
        if any(directory.glob(f"{seed:06d}-*.npy")):
            continue
        made = random_examples(np.random.default_rng(seed), labels, network, coarser, solvers)
        for number, example in enumerate(made):
            stack = np.concatenate([example.inputs, example.target[None], example.weight[None]])
            written += store(stack, directory / f"{seed:06d}-{number}.npy")
    return written


def store(stack: NDArray[np.float32], path: Path) -> bool:
    """Write an example as float16, whole or not at all, unless it is not finite.

    Parameters
    ----------
    stack : (C, X, Y, Z) float32
    path : Path

    Returns
    -------
    bool
        Whether it was written.
    """
    if not np.isfinite(stack).all():
        return False
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.save(file, np.clip(stack, -LARGEST_STORED, LARGEST_STORED).astype(np.float16))
    partial.rename(path)
    return True
