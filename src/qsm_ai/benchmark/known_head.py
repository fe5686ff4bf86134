"""Heads of which everything is known beforehand but how their tissue varies: the best case for any method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsm_ai.network.anatomy import EXTENT, Head, bared, grid_shape
from qsm_ai.network.geometry import Noise, Triple, Volume, head_coordinates
from qsm_ai.network.tissue import CSF, GREY, WHITE, appearance, iron_r2star, nuclei, tissues
from qsm_ai.physics.morphology import largest_component


@dataclass(frozen=True)
class Variation:
    """One way in which the susceptibility of a known anatomy may still differ, by chance.

    Attributes
    ----------
    share : (X, Y, Z) float32
        Where it does, and how far.
    spread : float, ppm
        Standard deviation.
    wavelength : float, mm
        The shortest that its low pass leaves, see :meth:`network.geometry.Noise.field`; infinite where the
        whole tissue differs by the same.
    """

    share: Volume
    spread: float
    wavelength: float = np.inf

    def draw(self, noise: Noise) -> Volume:
        """One of its outcomes, (X, Y, Z) float32, ppm.

        Parameters
        ----------
        noise : Noise
            On the grid of the share.
        """
        if np.isinf(self.wavelength):
            return self.share * np.float32(self.spread * noise.rng.standard_normal())
        return self.share * np.float32(self.spread) * noise.field(self.wavelength)


@dataclass(frozen=True)
class KnownHead:
    """A head, and what may be known of it before it is scanned.

    Attributes
    ----------
    head : Head
        With nothing but bone and air around its brain.
    expected : (X, Y, Z) float32, ppm
        Mean of the susceptibility in the brain; zero outside.
    variations : tuple of Variation
        Independent of each other: the brain's susceptibility is what is expected and one outcome of each.
    """

    head: Head
    expected: Volume
    variations: tuple[Variation, ...]


def known_head(rng: np.random.Generator, voxel_size: Triple) -> KnownHead:
    """Invent a head whose tissue varies as :func:`network.anatomy.simulate_head` lets it, on average.

    Borders of tissue, deep nuclei and their susceptibilities, bone and air are known, and there are no
    vessels and no lesions. White matter, grey matter and fluid differ by 0.010 to 0.012 ppm each, bundles of
    white matter by 0.012 ppm over 17 mm, all tissue by 0.005 ppm over 40 mm and by 0.008 ppm over 5.5 mm:
    the middles of what that function draws from.

    Parameters
    ----------
    rng : numpy Generator
    voxel_size : mm

    Returns
    -------
    KnownHead
    """
    shape = grid_shape(EXTENT, voxel_size)
    c = head_coordinates(shape, voxel_size, np.eye(3))
    noise = Noise(rng, shape, voxel_size)
    width = float(np.mean(voxel_size))
    distance, tissue = tissues(rng, c, noise, 1.0, width)
    brain = largest_component(distance > 0)
    deep, share = nuclei(rng, c, 1.0, width, variety=0.0)
    white, grey, fluid = (
        (tissue[name] * (1 - share) * brain).astype(np.float32) for name in ("white", "grey", "csf")
    )
    expected = WHITE * white + GREY * grey + CSF * fluid + deep * share * brain
    variations = (
        Variation(white, 0.012),
        Variation(grey, 0.012),
        Variation(fluid, 0.010),
        Variation(white, 0.012, wavelength=17.0),
        Variation(brain.astype(np.float32), 0.005, wavelength=40.0),
        Variation(brain.astype(np.float32), 0.008, wavelength=5.5),
    )
    chi = sum((variation.draw(noise) for variation in variations), expected)
    signal, r2star = appearance(tissue)
    r2star = (r2star + iron_r2star(deep, share)).astype(np.float32)
    head = bared(Head(chi.astype(np.float32), brain, signal.astype(np.float32), r2star, voxel_size))
    return KnownHead(head, expected.astype(np.float32), variations)


def known_mean(known: KnownHead) -> NDArray[np.float32]:
    """What is expected, with the mean of the true map in the brain taken off, (X, Y, Z) float32, ppm."""
    brain = known.head.brain
    return np.where(brain, known.expected - known.head.chi[brain].mean(), 0).astype(np.float32)
