"""Brains with the anatomy of a real head: its labels, bent, with susceptibilities drawn for each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, binary_fill_holes, map_coordinates

from qsm_ai.network.geometry import Coordinates, Noise, Volume
from qsm_ai.network.tissue import CSF, GREY, WHITE, Brain
from qsm_ai.physics.morphology import largest_component

FREESURFER: dict[str, tuple[int, ...]] = {
    "white": (2, 41, 251, 252, 253, 254, 255, 7, 46, 16, 77),
    "csf": (4, 43, 5, 44, 14, 15, 24, 72, 31, 63),
    "thalamus": (10, 49),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "ventral": (28, 60),
    "hippocampus": (17, 53, 18, 54),
    "accumbens": (26, 58),
    "cerebellum": (8, 47),
}
"""Numbers in FreeSurfer's colour table of what is told apart here; every other label is cortex."""

CHI: dict[str, float] = {
    "white": WHITE,
    "csf": CSF,
    "thalamus": 0.02,
    "caudate": 0.044,
    "putamen": 0.038,
    "pallidum": 0.13,
    "ventral": 0.05,
    "hippocampus": 0.01,
    "accumbens": 0.03,
    "cerebellum": 0.01,
}
"""Mean susceptibility, ppm."""


def labelled_brain(
    rng: np.random.Generator, c: Coordinates, noise: Noise, scale: float, labels: NDArray[np.int16]
) -> Brain:
    """Bend a labelled head and give each label a susceptibility.

    Parameters
    ----------
    rng : numpy Generator
    c : three (X, Y, Z) float32 volumes
        Head coordinates, mm.
    noise : Noise
    scale : float
        Size of the head, one being as labelled.
    labels : (L, M, N) int
        FreeSurfer labels at 1 mm, right-front-up.

    Returns
    -------
    Brain
    """
    values = np.zeros((3, int(labels.max()) + 1), np.float32)
    cortex = GREY + 0.012 * rng.standard_normal()
    values[0] = cortex + 0.008 * rng.standard_normal(values.shape[1])
    values[1], values[2] = 0.85, 16.0
    for kind, numbers in FREESURFER.items():
        shared = CHI[kind] * rng.normal(1, 0.4) + 0.012 * rng.standard_normal()
        for number in numbers:
            if number < values.shape[1]:
                values[0, number] = shared + 0.006 * rng.standard_normal()
                values[1, number] = {"white": 1.0, "csf": 0.7}.get(kind, 0.9)
                values[2, number] = {"white": 20.0, "csf": 3.0}.get(kind, 18.0) + 120 * max(shared, 0)
    values[0, 0], values[1, 0], values[2, 0] = CSF + 0.01 * rng.standard_normal(), 0.7, 3.0
    stretch = scale * np.exp(0.06 * rng.standard_normal(3))
    bend = np.float32(rng.uniform(1, 5))
    bent = [x / np.float32(s) + bend * noise.field(50) for x, s in zip(c, stretch, strict=True)]
    inside = sample_labels(labels, bent, (np.arange(values.shape[1]) > 0).astype(np.float32)) > 0.5
    brain = largest_component(binary_fill_holes(binary_closing(inside, iterations=int(rng.integers(2, 6)))))
    chi, signal, r2star = (sample_labels(labels, bent, v) for v in values)
    chi += np.float32(0.012 * rng.random()) * noise.field(rng.uniform(9, 25))
    return Brain(brain, (chi * brain).astype(np.float32), signal, r2star)


def sample_labels(labels: NDArray[np.int16], c: Coordinates, values: NDArray[np.float32]) -> Volume:
    """Look a label map up at any place, with a value for each label and partial volume between them.

    Parameters
    ----------
    labels : (L, M, N) int
        At 1 mm, right-front-up; its middle is the origin.
    c : three (X, Y, Z) float32 volumes
        Where to look, mm.
    values : (labels,) float32

    Returns
    -------
    (X, Y, Z) float32
        Zero beyond the map.
    """
    where = np.stack([x + (n - 1) / 2 for x, n in zip(c, labels.shape, strict=True)])
    found = map_coordinates(values[labels], where, order=1, mode="constant", cval=0.0, prefilter=False)
    return np.asarray(found, np.float32)
