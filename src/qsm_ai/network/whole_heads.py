"""Whole coarse heads to learn from, with more beside them than the network is given, and their dipole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qsm_ai.network.door import NUMPY, Solvers, at_the_door
from qsm_ai.network.examples import BARE, random_scan, store
from qsm_ai.network.training import Pool
from qsm_ai.physics.background import lbv
from qsm_ai.physics.dipole import dipole_kernel, forward_field
from qsm_ai.physics.fourier import irfftn
from qsm_ai.physics.referencing import reference
from qsm_ai.physics.v_sharp import v_sharp
from qsm_ai.reconstruction.consistency import rim_trust
from qsm_ai.reconstruction.inputs import CHANNELS, ERROR_GAIN

V_SHARP_MM = (12, 25)
"""Largest radii of the balls."""

LBV = "lbv"
MAPS = (*CHANNELS, *(f"v_sharp_{radius}" for radius in V_SHARP_MM), LBV)
"""What a network may see: what it sees in use, and local fields of other ways to remove the background."""

DIPOLE, TRUST = len(MAPS), len(MAPS) + 1
"""Where the stack holds the dipole, and how far the field is to be trusted."""

BRAIN_MM = 180.0
"""Longest side of the box around the largest invented brain."""

LEAST_KNOWN, LOUDEST = 0.9, 0.2
"""Share of the mask whose field is known, and noise / scale: beyond them coarse voxels have lost turns of the
phase all over the brain, as no scan that is worth a map has."""

FREE = 8
"""Voxels that the smallest heads leave free along the longest side, for the dipole's field wraps around."""


def whole_head(
    rng: np.random.Generator, labels: NDArray[np.int16] | None, edge: int, solvers: Solvers = NUMPY
) -> NDArray[np.float32]:
    """Invent a scan of which a cube holds the whole brain, and take it to the network's door.

    The background was sought twice, as the network finds it in use.

    Parameters
    ----------
    rng : numpy Generator
    labels : (L, M, N) int or None
        Anatomy of a real head, used for half of them.
    edge : voxels
        Of the cube.
    solvers : Solvers
        Numpy's when left out.

    Returns
    -------
    (13, E, E, E) float32
        ``MAPS``, the whole spectrum of the dipole in a volume of this shape, trust in the field
        (:func:`reconstruction.consistency.rim_trust`), target and weight.

    Raises
    ------
    ValueError
        If the brain does not fit, or noise and lost turns hide what is in it.
    """
    size = BRAIN_MM / (edge - FREE) * rng.uniform(0.97, 1.05)
    head, echoes = random_scan(rng, (size, size, size), labels, bare=BARE)
    door = at_the_door(rng, head, echoes, solvers)
    if max(door.mask.shape) > edge:
        raise ValueError(f"a brain of {door.mask.shape} voxels does not fit a cube of {edge}")
    if door.known.sum() < LEAST_KNOWN * door.mask.sum():
        raise ValueError("turns of the phase were lost between voxels that are so large")
    removal = door.removal()
    _, first = door.example(removal.local_field(), door.found_edges)
    inner = forward_field(reference(first, door.mask, "mean"), *door.geometry)
    example, _ = door.example(removal.local_field(inner), door.found_edges)
    if np.median(example.inputs[CHANNELS.index("field_error")][door.known]) > LOUDEST * ERROR_GAIN:
        raise ValueError("the field is little but noise")
    others = [
        v_sharp(door.total_field, door.known, door.geometry[0], range(radius, 0, -1))[0]
        for radius in V_SHARP_MM
    ]
    others.append(lbv(door.total_field, door.known, door.geometry[0]) * door.known)
    stack = np.zeros((TRUST + 3, edge, edge, edge), dtype=np.float32)
    x, y, z = (slice(n) for n in door.mask.shape)
    stack[: len(MAPS), x, y, z] = [*example.inputs, *(field / example.scale for field in others)]
    cube = (edge, edge, edge)
    stack[DIPOLE] = np.fft.fftn(irfftn(dipole_kernel(cube, *door.geometry), cube)).real
    trust = rim_trust(door.mask, door.geometry[0]) * door.known
    stack[TRUST:, x, y, z] = trust, example.target, example.weight
    return stack


def write_whole_heads(
    directory: Path,
    seeds: range,
    labels: NDArray[np.int16] | None,
    edge: int,
    solvers: Solvers = NUMPY,
) -> None:
    """Write whole heads, skipping seeds already there and brains that do not fit or have nothing to learn.

    Parameters
    ----------
    directory : Path
        Gets ``<seed>.npy``, see :func:`whole_head`; float16.
    seeds : range
    labels : (L, M, N) int or None
    edge : voxels
    solvers : Solvers
        Numpy's when left out.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        path = directory / f"{seed:06d}.npy"
        if path.exists():
            continue
        try:
            stack = whole_head(np.random.default_rng(seed), labels, edge, solvers)
        except ValueError:
            continue
        store(stack, path)


class WholeHeads(Pool):
    """A pool that gives whole heads and turns their dipole with them, or crops whose dipole means nothing."""

    def crop(self, rng: np.random.Generator, edge: int) -> Tensor:
        """Draw a head, randomly turned and mirrored.

        Parameters
        ----------
        rng : numpy Generator
        edge : voxels
            Less than that of the heads draws a crop of one.

        Returns
        -------
        (13, edge, edge, edge) float32
            See :func:`whole_head`.
        """
        stack = self._stack(self.files[rng.integers(len(self.files))])
        if edge < stack.shape[1]:
            return super().crop(rng, edge)
        order = tuple(int(axis) for axis in rng.permutation(3))
        mirrored = [axis for axis in range(3) if rng.random() < 0.5]
        turned = stack.float().permute(0, *(1 + axis for axis in order)).flip([1 + axis for axis in mirrored])
        # A spectrum is mirrored about its first voxel, which stands for no wave at all.
        for axis in mirrored:
            turned[DIPOLE] = turned[DIPOLE].roll(1, axis)
        return turned
