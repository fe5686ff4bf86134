"""Training examples: invented scans that went through our own field mapping and background removal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from qsm_ai.network.anatomy import Head, bared, simulate_head
from qsm_ai.network.geometry import Triple, Volume, bounding_box, random_direction, random_rotation
from qsm_ai.network.simulation import Echoes, known_turns, simulate_echoes
from qsm_ai.physics.dipole import forward_field
from qsm_ai.physics.edges import Edges, magnitude_edges
from qsm_ai.physics.field_mapping import fit_field, reliable
from qsm_ai.physics.inversion import Inverter
from qsm_ai.physics.pdf import OuterSources
from qsm_ai.physics.referencing import reference
from qsm_ai.physics.total_variation import total_variation
from qsm_ai.physics.unwrapping import unwrap_echoes
from qsm_ai.reconstruction.inputs import Inversion, network_inputs
from qsm_ai.reconstruction.local_field import BackgroundRemoval
from qsm_ai.reconstruction.network import Network
from qsm_ai.reconstruction.patches import plan_patches
from qsm_ai.reconstruction.pipeline import PASSES
from qsm_ai.reconstruction.prediction import predict_map

MARGIN = 4
"""Voxels left around the brain."""

LARGEST_STORED = 6e4
"""Values beyond it are cut before they are stored as float16, which ends at 65504."""

TRUST_IN_LOST_FIELD = 0.2
"""Weight of voxels whose field was lost."""

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


@dataclass(frozen=True)
class Solvers:
    """Who runs the two loops that take most of an example's time.

    Attributes
    ----------
    sources : type
        Of the outer sources of PDF.
    total_variation : callable
        See :func:`physics.total_variation.total_variation`.
    """

    sources: type[OuterSources] = OuterSources
    total_variation: Inversion = total_variation


@dataclass(frozen=True)
class Example:
    """One volume that the network can learn from.

    Attributes
    ----------
    inputs : (6, X, Y, Z) float32
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
    solvers: Solvers = Solvers(),
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
    solvers: Solvers = Solvers(),
) -> list[Example]:
    """Take a scan through unwrapping, field mapping and background removal, as the pipeline does.

    One scan stands at the network's door several times: after the background was sought knowing the classical
    map; with a network, also after it was sought knowing that one's maps; and some scans come with a local
    field that needs no removal, as often with a magnitude as without. What users bring differs: some of the
    masks are a little too small or too large, and some of the phases are unwrapped by our own path following
    instead of the truth.

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
    mask = head.brain
    draw = rng.random()
    if draw < 0.15:
        mask = binary_erosion(mask, iterations=int(rng.integers(1, 3)))
    elif draw < 0.25:
        mask = binary_dilation(mask)
    box = bounding_box(mask, MARGIN)
    if box is None:
        raise ValueError("nothing of the brain is left in the mask")

    if rng.random() < 0.15:
        unwrapped = unwrap_echoes(echoes.phase, echoes.magnitude, mask, echoes.echo_times)
    else:
        unwrapped = known_turns(echoes)
    fit = fit_field(
        unwrapped, echoes.magnitude, mask, echoes.echo_times, echoes.field_strength, head.voxel_size
    )
    # Bone and air that a poor mask took in are nobody's to predict.
    sought = mask & head.brain
    truth = np.where(sought, head.chi - head.chi[sought].mean(), 0).astype(np.float32)
    door = _Door(
        mask=mask[box],
        sought=sought[box],
        known=reliable(fit.standard_error, mask)[box],
        field_error=fit.standard_error[box],
        truth=truth[box],
        geometry=(head.voxel_size, echoes.b0_direction),
        invert=solvers.total_variation,
    )
    found = magnitude_edges(echoes.magnitude[(slice(None), *box)], door.mask, head.voxel_size)
    examples = []
    if rng.random() < GIVEN and len(echoes.echo_times) > 1:  # a single echo's offset is more than noise
        noise = fit.total_field - echoes.true_field
        local = forward_field(truth, *door.geometry, margin=24) + noise
        beside = found if rng.random() >= GIVEN_WITHOUT_EDGES else None
        # As the pipeline does where it sees edges; the truth ends at the mask, however poor that is.
        given = door if beside is None else replace(door, invert=partial(door.invert, outside_weight=np.inf))
        examples.append(given.example(local[box] * door.known, beside)[0])

    edges = found if rng.random() >= WITHOUT_EDGES else None
    total = np.ascontiguousarray(fit.total_field[box])
    method: Literal["pdf", "lbv"] = "pdf" if rng.random() < 0.95 else "lbv"
    removal = BackgroundRemoval(
        total, door.mask, door.known, *door.geometry, method=method, sources=solvers.sources
    )
    _, chi = door.example(removal.local_field(), edges)
    for turn in range(PASSES if network is not None else 1):
        inner = forward_field(reference(chi, door.mask, "mean"), *door.geometry)
        example, chi = door.example(removal.local_field(inner), edges)
        examples.append(example)
        if network is not None and turn + 1 < PASSES:
            plan = plan_patches(door.mask)
            chi = predict_map(network, plan, example.inputs, chi, example.scale, door.known)
    return examples


@dataclass(frozen=True)
class _Door:
    """What is the same each time that a scan stands at the network's door, cropped to the mask."""

    mask: NDArray[np.bool_]
    sought: NDArray[np.bool_]
    known: NDArray[np.bool_]
    field_error: Volume
    truth: Volume
    geometry: tuple[Triple, Triple]
    invert: Inversion

    def example(self, local_field: Volume, edges: Edges | None = None) -> tuple[Example, Volume]:
        """An example of a local field, and the classical map of it, ppm."""
        inverter = Inverter(local_field, *self.geometry)
        made = network_inputs(inverter, self.field_error, self.mask, self.known, edges, self.invert)
        trust = np.where(self.known, np.float32(1), np.float32(TRUST_IN_LOST_FIELD))
        weight = self.sought * trust
        # A constant is what no field tells, and no patch could know.
        error = self.truth - made.first
        target = (error - np.average(error, weights=weight)) / np.float32(made.scale) * self.mask
        example = Example(made.channels, target.astype(np.float32), weight.astype(np.float32), made.scale)
        return example, made.first


def write_pool(
    directory: Path,
    seeds: range,
    labels: NDArray[np.int16] | None,
    network: Network | None = None,
    coarser: float = 1.0,
    solvers: Solvers = Solvers(),
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
            if not np.isfinite(stack).all():
                continue
            path = directory / f"{seed:06d}-{number}.npy"
            partial = path.with_suffix(".part")
            with partial.open("wb") as file:
                np.save(file, np.clip(stack, -LARGEST_STORED, LARGEST_STORED).astype(np.float16))
            partial.rename(path)
            written += 1
    return written
