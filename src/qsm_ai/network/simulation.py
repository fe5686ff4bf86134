"""Scans of invented heads: the field they make, and the noisy, wrapped echoes that a scanner records of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.ndimage import binary_closing, binary_fill_holes, gaussian_filter, label

from qsm_ai.network.anatomy import (
    AIR,
    CSF,
    GREY,
    VEIN,
    WHITE,
    Head,
    Noise,
    Triple,
    Volume,
    _coordinates,
    _edge,
    nuclei,
    paint_balls,
    procedural_brain,
    random_rotation,
    surroundings,
    veins,
    warp_labels,
)
from qsm_ai.physics.dipole import GYROMAGNETIC_RATIO, forward_field
from qsm_ai.physics.unwrapping import wrap


@dataclass(frozen=True)
class Echoes:
    """What the scanner stores, and what it measured.

    Attributes
    ----------
    phase : (E, X, Y, Z) float32, rad, wrapped
    magnitude : (E, X, Y, Z) float32
    echo_times : s
    field_strength : T
    b0_direction : unit vector in voxel axes
    true_field : (X, Y, Z) float32, ppm
        The total field without noise.
    """

    phase: NDArray[np.float32]
    magnitude: NDArray[np.float32]
    echo_times: tuple[float, ...]
    field_strength: float
    b0_direction: Triple
    true_field: Volume


def simulate_head(
    rng: np.random.Generator,
    voxel_size: Triple,
    *,
    scale: float = 1.0,
    tilt: NDArray[np.float64] | None = None,
    labels: NDArray[np.int16] | None = None,
    lesions: bool = True,
    variety: float = 1.0,
) -> Head:
    """Invent a head.

    Parameters
    ----------
    rng : numpy Generator
    voxel_size : mm
    scale : float
        Size of the head, one being an adult's.
    tilt : (3, 3) rotation or None
        From voxel axes to head axes.
    labels : (X, Y, Z) int or None
        FreeSurfer labels of a real head (1 mm, right-front-up): its anatomy instead of an invented one.
    lesions : bool
        Whether microbleeds, calcifications and haemorrhages may occur.
    variety : float
        How far susceptibilities, sizes and places stray from the published ones; zero is the textbook.

    Returns
    -------
    Head
    """
    rotation = np.eye(3) if tilt is None else tilt
    reach = np.abs(rotation.T) @ (np.array([172, 212, 182]) * scale)
    shape = tuple(
        next_fast_len(int(np.ceil(r / v)), real=True) for r, v in zip(reach, voxel_size, strict=True)
    )
    c = _coordinates(shape, voxel_size, rotation)
    noise = Noise(rng, shape, voxel_size)
    width = float(np.mean(voxel_size))
    if labels is None:
        brain, chi, signal, r2star = _invented(rng, c, noise, scale, width, variety)
    else:
        brain, chi, signal, r2star = _from_labels(rng, c, noise, scale, labels)
    deep, share = nuclei(rng, c, scale, width, variety)
    if labels is None or rng.random() < 0.5:
        chi = chi * (1 - share) + deep * share
        r2star = r2star + 25 * share * np.maximum(deep, 0) / 0.1
    chi += np.float32(0.004 + 0.008 * rng.random() * variety) * noise.field(rng.uniform(3, 8)) * brain
    chi += np.float32(0.010 * rng.random() * variety) * noise.field(rng.uniform(20, 60)) * brain

    volume = float(brain.sum() * np.prod(voxel_size)) / 1e6
    vessel = veins(rng, brain, voxel_size, int(rng.integers(60, 260) * volume))
    level = VEIN * (1 + 0.3 * variety * float(rng.standard_normal()))
    chi = chi * (1 - vessel) + level * vessel
    r2star = r2star + 40 * vessel
    if lesions:
        _lesions(rng, brain, chi, r2star, voxel_size)

    outside, around, _ = surroundings(rng, c, brain, noise, voxel_size)
    chi = np.where(brain, chi, outside).astype(np.float32)
    signal = np.where(brain, signal, around) * (1 + 0.25 * noise.field(120)).clip(0.3, 1.7)
    return Head(chi, brain, signal.astype(np.float32), np.clip(r2star, 1, 400).astype(np.float32), voxel_size)


Parts = tuple[NDArray[np.bool_], Volume, Volume, Volume]


def _invented(
    rng: np.random.Generator, c: list[Volume], noise: Noise, scale: float, width: float, variety: float
) -> Parts:
    distance, tissue = procedural_brain(rng, c, noise, scale, width)
    brain = _largest(distance > 0)
    stray = lambda s: variety * s * float(rng.standard_normal())  # noqa: E731
    chi = (
        (WHITE + stray(0.012)) * tissue["white"] + (GREY + stray(0.012)) * tissue["grey"]
        + (CSF + stray(0.01)) * tissue["csf"]
    )  # fmt: skip
    # Bundles of white matter differ in orientation and myelin.
    chi = chi + np.float32(0.012 * (0.5 + rng.random())) * noise.field(rng.uniform(9, 25)) * tissue["white"]
    # A layer of iron along the deep cortex.
    chi = chi + np.float32(0.01 * rng.random()) * np.minimum(tissue["grey"], tissue["white"]) * 4
    signal = 1.0 * tissue["white"] + 0.85 * tissue["grey"] + 0.7 * tissue["csf"]
    r2star = 20 * tissue["white"] + 16 * tissue["grey"] + 3 * tissue["csf"]
    return brain, (chi * brain).astype(np.float32), signal, r2star


FREESURFER = {
    "white": (2, 41, 251, 252, 253, 254, 255, 7, 46, 16, 77),
    "csf": (4, 43, 5, 44, 14, 15, 24, 72, 31, 63),
    "thalamus": (10, 49), "caudate": (11, 50), "putamen": (12, 51), "pallidum": (13, 52),
    "ventral": (28, 60), "hippocampus": (17, 53, 18, 54), "accumbens": (26, 58),
    "cerebellum": (8, 47),
}  # fmt: skip


def _from_labels(
    rng: np.random.Generator, c: list[Volume], noise: Noise, scale: float, labels: NDArray[np.int16]
) -> Parts:
    values = np.zeros((3, int(labels.max()) + 1), np.float32)
    means = {"white": WHITE, "csf": CSF, "thalamus": 0.02, "caudate": 0.044, "putamen": 0.038,
             "pallidum": 0.13, "ventral": 0.05, "hippocampus": 0.01, "accumbens": 0.03, "cerebellum": 0.01}  # fmt: skip
    cortex = GREY + 0.012 * rng.standard_normal()
    values[0] = cortex + 0.008 * rng.standard_normal(values.shape[1])
    values[1], values[2] = 0.85, 16.0
    for kind, numbers in FREESURFER.items():
        shared = means[kind] * rng.normal(1, 0.4) + 0.012 * rng.standard_normal()
        for number in numbers:
            if number < values.shape[1]:
                values[0, number] = shared + 0.006 * rng.standard_normal()
                values[1, number] = {"white": 1.0, "csf": 0.7}.get(kind, 0.9)
                values[2, number] = {"white": 20.0, "csf": 3.0}.get(kind, 18.0) + 120 * max(shared, 0)
    values[0, 0], values[1, 0], values[2, 0] = CSF + 0.01 * rng.standard_normal(), 0.7, 3.0
    stretch = scale * np.exp(0.06 * rng.standard_normal(3))
    bend = np.float32(rng.uniform(1, 5))
    warped = [x / np.float32(s) + bend * noise.field(50) for x, s in zip(c, stretch, strict=True)]
    inside = warp_labels(rng, labels, warped, (np.arange(values.shape[1]) > 0).astype(np.float32)) > 0.5
    brain = _largest(binary_fill_holes(binary_closing(inside, iterations=int(rng.integers(2, 6)))))
    chi, signal, r2star = (warp_labels(rng, labels, warped, v) for v in values)
    chi += np.float32(0.012 * rng.random()) * noise.field(rng.uniform(9, 25))
    return brain, (chi * brain).astype(np.float32), signal, r2star


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def _lesions(
    rng: np.random.Generator, brain: NDArray[np.bool_], chi: Volume, r2star: Volume, voxel_size: Triple
) -> None:
    """Microbleeds up to 2 ppm, calcifications down to −3.3 ppm, and haemorrhages, in place."""
    places = np.argwhere(brain)
    for count, low, high, size in (
        (rng.poisson(1.5), 0.2, 2.0, (0.7, 2.5)),
        (rng.poisson(0.8), -3.3, -0.2, (0.8, 4.0)),
        (rng.poisson(0.25), 0.2, 1.2, (4.0, 11.0)),
    ):
        for _ in range(count):
            share = np.zeros(chi.shape, np.float32)
            middle = places[rng.integers(len(places))]
            radius = rng.uniform(*size)
            blobs = rng.integers(1, 5)
            centres = middle + rng.standard_normal((blobs, 3)) * radius / 2 / np.asarray(voxel_size)
            radii = radius * rng.uniform(0.6, 1, blobs)
            paint_balls(share, np.vstack([middle, centres]), np.append(radius, radii), voxel_size)
            value = np.sign(low + high) * np.exp(rng.uniform(*np.log(np.sort(np.abs([low, high])))))
            chi *= 1 - share
            chi += value * share
            r2star += share * 60 * min(2.0, abs(value))


def simulate_echoes(
    rng: np.random.Generator,
    head: Head,
    *,
    b0_direction: Triple = (0.0, 0.0, 1.0),
    field_strength: float = 3.0,
    echo_times: tuple[float, ...] = (0.004, 0.012, 0.020, 0.028),
    snr: float = 100.0,
) -> Echoes:
    r"""Record a head with a multi-echo gradient-echo sequence.

    .. math:: s_j = m_0 e^{-t_j R_2^*} e^{i(\varphi_0 + 2\pi\gamma B_0 \delta t_j)} + n_j

    with the field δ of the head's susceptibility, a smooth offset φ₀ of the receive coil, signal lost where the
    field is steep across a voxel, and complex noise n.

    Parameters
    ----------
    rng : numpy Generator
    head : Head
    b0_direction : unit vector in voxel axes
    field_strength : T
    echo_times : s
    snr : float
        Of white matter at echo time zero.

    Returns
    -------
    Echoes
    """
    # Relative to the air around, so that the source has an end; and with the partial volume that voxels have, since
    # the steps at bone and air are a hundred times those within the brain and would ring all through it.
    around = gaussian_filter(np.where(head.brain, 0, head.chi), rng.uniform(0.6, 1.0))
    sources = np.where(head.brain, head.chi, around) - np.float32(AIR)
    field = forward_field(sources, head.voxel_size, b0_direction, margin=24)
    field -= np.float32(field[head.brain].mean())
    rate = np.float32(2 * np.pi * GYROMAGNETIC_RATIO * field_strength)
    steepness = np.zeros_like(field)
    for axis in range(3):
        steepness += np.gradient(field, axis=axis).astype(np.float32) ** 2
    steepness = np.sqrt(steepness) * rate
    shape = field.shape
    ramps = [np.linspace(-1, 1, n, dtype=np.float32) for n in shape]
    offset = (
        rng.uniform(-np.pi, np.pi)
        + rng.uniform(-2, 2) * ramps[0][:, None, None]
        + rng.uniform(-2, 2) * ramps[1][None, :, None] ** 2
        + rng.uniform(-2, 2) * ramps[2][None, None, :]
    )
    r2star = head.r2star * np.float32(field_strength / 3)
    phases, magnitudes = [], []
    sigma = np.float32(1 / snr)
    for time in echo_times:
        t = np.float32(time)
        lost = np.sinc(np.minimum(steepness * t / np.float32(2 * np.pi), 1))
        clean = head.signal * np.exp(-t * r2star) * lost * np.exp(1j * (offset + rate * t * field))
        noise = rng.standard_normal((2, *shape), dtype=np.float32) * sigma
        signal = clean.astype(np.complex64) + (noise[0] + 1j * noise[1])
        phases.append(np.angle(signal).astype(np.float32))
        magnitudes.append(np.abs(signal).astype(np.float32))
    return Echoes(
        np.stack(phases),
        np.stack(magnitudes),
        echo_times,
        field_strength,
        b0_direction,
        field.astype(np.float32),
    )


def known_turns(echoes: Echoes) -> NDArray[np.float32]:
    """The echoes' phase (E, X, Y, Z), rad, unwrapped by the true field: noise and offset stay, wraps do not."""
    rate = 2 * np.pi * GYROMAGNETIC_RATIO * echoes.field_strength
    truth = np.stack([echoes.true_field * np.float32(rate * t) for t in echoes.echo_times])
    first = wrap(echoes.phase[0] - truth[0])
    smooth = np.arctan2(gaussian_filter(np.sin(first), 3), gaussian_filter(np.cos(first), 3))
    expected = truth + smooth
    return expected + wrap(echoes.phase - expected)


def random_direction(rng: np.random.Generator, limit: float) -> Triple:
    """Direction of B0 tilted from the third axis by up to ``limit`` degrees."""
    x, y, z = random_rotation(rng, limit)[2]
    return float(x), float(y), float(z)


__all__ = ["Echoes", "known_turns", "random_direction", "simulate_echoes", "simulate_head"]
