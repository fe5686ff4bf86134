"""An invented scan on its way to the network: unwrapped, mapped and cropped as the pipeline does it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from qsm_ai.network.anatomy import Head
from qsm_ai.network.geometry import Triple, Volume
from qsm_ai.network.simulation import Echoes, known_turns
from qsm_ai.physics.dipole import forward_field
from qsm_ai.physics.edges import Edges, magnitude_edges
from qsm_ai.physics.field_mapping import fit_field, reliable
from qsm_ai.physics.fourier import bounding_box
from qsm_ai.physics.inversion import Inverter
from qsm_ai.physics.pdf import OuterSources
from qsm_ai.physics.total_variation import total_variation
from qsm_ai.physics.unwrapping import unwrap_echoes
from qsm_ai.reconstruction.inputs import Inversion, network_inputs
from qsm_ai.reconstruction.local_field import BackgroundRemoval
from qsm_ai.reconstruction.pipeline import MARGIN

TRUST_IN_LOST_FIELD = 0.2
"""Weight of voxels whose field was lost."""


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


NUMPY = Solvers()


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


@dataclass(frozen=True)
class Door:
    """What is the same each time that a scan stands at the network's door, cropped to the mask with a margin.

    Attributes
    ----------
    mask : (X, Y, Z) bool
        That a user would bring.
    sought : (X, Y, Z) bool
        Its voxels that are brain: bone and air that a poor mask took in are nobody's to predict.
    known : (X, Y, Z) bool
        Its voxels whose field can be trusted.
    total_field, field_error : (X, Y, Z) float32, ppm
        Of the fit over echoes.
    noise : (X, Y, Z) float32, ppm
        What the fit has wrong, in the mask.
    truth : (X, Y, Z) float32, ppm
        Susceptibility relative to its mean, zero outside ``sought``.
    found_edges : Edges
        Of the magnitude.
    geometry : voxel size, mm, and direction of B0
    solvers : Solvers
    """

    mask: NDArray[np.bool_]
    sought: NDArray[np.bool_]
    known: NDArray[np.bool_]
    total_field: Volume
    field_error: Volume
    noise: Volume
    truth: Volume
    found_edges: Edges
    geometry: tuple[Triple, Triple]
    solvers: Solvers

    def given_field(self) -> Volume:
        """The local field in which nothing but noise is wrong, (X, Y, Z) float32, ppm."""
        local: Volume = (forward_field(self.truth, *self.geometry, margin=24) + self.noise) * self.known
        return local

    def removal(self, method: Literal["pdf", "lbv"] = "pdf") -> BackgroundRemoval:
        """What takes the background away, as in the pipeline.

        Parameters
        ----------
        method : str

        Returns
        -------
        BackgroundRemoval
        """
        return BackgroundRemoval(
            self.total_field,
            self.mask,
            self.known,
            *self.geometry,
            method=method,
            sources=self.solvers.sources,
        )

    def example(
        self, local_field: Volume, edges: Edges | None = None, *, given: bool = False
    ) -> tuple[Example, Volume]:
        """An example of a local field, and its classical map.

        Parameters
        ----------
        local_field : (X, Y, Z) float32, ppm
        edges : Edges or None
        given : bool
            Whether the field came as it is: then it has no standard error, and beside edges the classical map
            no source outside the mask.

        Returns
        -------
        example : Example
        first : (X, Y, Z) float32, ppm
        """
        invert = self.solvers.total_variation
        if given and edges is not None:
            # As the pipeline does where it sees edges; the truth ends at the mask, however poor that is.
            invert = partial(invert, outside_weight=np.inf)
        inverter = Inverter(local_field, *self.geometry)
        error = None if given else self.field_error
        made = network_inputs(inverter, error, self.mask, self.known, edges, invert)
        trust = np.where(self.known, np.float32(1), np.float32(TRUST_IN_LOST_FIELD))
        weight = self.sought * trust
        # A constant is what no field tells, and no patch could know.
        missing = self.truth - made.first
        target = (missing - np.average(missing, weights=weight)) / np.float32(made.scale) * self.mask
        example = Example(made.channels, target.astype(np.float32), weight.astype(np.float32), made.scale)
        return example, made.first


def at_the_door(rng: np.random.Generator, head: Head, echoes: Echoes, solvers: Solvers = NUMPY) -> Door:
    """Take a scan through masking, unwrapping and field mapping.

    What users bring differs: some of the masks are a little too small or too large, and some of the phases
    are unwrapped by our own path following instead of the truth.

    Parameters
    ----------
    rng : numpy Generator
    head : Head
    echoes : Echoes
        Of this head.
    solvers : Solvers
        Numpy's when left out.

    Returns
    -------
    Door

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
    if not mask.any():
        raise ValueError("nothing of the brain is left in the mask")
    box = bounding_box(mask, MARGIN)

    if rng.random() < 0.15:
        unwrapped = unwrap_echoes(echoes.phase, echoes.magnitude, mask, echoes.echo_times)
    else:
        unwrapped = known_turns(echoes)
    fit = fit_field(
        unwrapped, echoes.magnitude, mask, echoes.echo_times, echoes.field_strength, head.voxel_size
    )
    sought = mask & head.brain
    truth = np.where(sought, head.chi - head.chi[sought].mean(), 0).astype(np.float32)
    cropped = mask[box]
    return Door(
        mask=cropped,
        sought=sought[box],
        known=reliable(fit.standard_error, mask)[box],
        total_field=np.ascontiguousarray(fit.total_field[box]),
        field_error=fit.standard_error[box],
        noise=((fit.total_field - echoes.true_field) * mask)[box],
        truth=truth[box],
        found_edges=magnitude_edges(echoes.magnitude[(slice(None), *box)], cropped, head.voxel_size),
        geometry=(head.voxel_size, echoes.b0_direction),
        solvers=solvers,
    )
