"""Scans of heads: the field that they make, and the noisy, wrapped echoes that a scanner records of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from qsm_ai.network.anatomy import Head
from qsm_ai.network.geometry import Triple, Volume
from qsm_ai.network.surroundings import AIR
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

    with the field δ of the head's susceptibility, a smooth offset φ₀ of the receive coil, signal lost where
    the field is steep across a voxel (m₀ times the sinc of half the phase that it spans there), and complex
    noise n.

    Parameters
    ----------
    rng : numpy Generator
    head : Head
    b0_direction : unit vector in voxel axes
    field_strength : T
    echo_times : s
    snr : float
        Of white matter at echo time zero: one over the standard deviation of the real and of the imaginary
        part of n.

    Returns
    -------
    Echoes
    """
    field = _total_field(head, b0_direction, edge=rng.uniform(0.6, 1.0))
    rate = np.float32(2 * np.pi * GYROMAGNETIC_RATIO * field_strength)
    steepness = np.zeros_like(field)
    for axis in range(3):
        steepness += np.gradient(field, axis=axis).astype(np.float32) ** 2
    steepness = np.sqrt(steepness) * rate
    shape = field.shape
    offset = _coil_offset(rng, shape)
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


def _total_field(head: Head, b0_direction: Triple, edge: float) -> Volume:
    """Field (X, Y, Z) of a head, ppm, with zero mean in the brain; bone and air end over ``edge`` voxels.

    Relative to the air around, so that the source has an end; and with the partial volume that voxels have,
    since the steps at bone and air are a hundred times those within the brain and would ring all through it.
    """
    around = gaussian_filter(np.where(head.brain, 0, head.chi), edge)
    sources = np.where(head.brain, head.chi, around) - np.float32(AIR)
    field: Volume = forward_field(sources, head.voxel_size, b0_direction, margin=24)
    field -= np.float32(field[head.brain].mean())
    return field


def _coil_offset(rng: np.random.Generator, shape: tuple[int, ...]) -> Volume:
    """Phase of a receive coil (X, Y, Z), rad: a few turns at most, smooth over the whole grid."""
    x, y, z = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    return np.asarray(
        rng.uniform(-np.pi, np.pi)
        + rng.uniform(-2, 2) * x[:, None, None]
        + rng.uniform(-2, 2) * y[None, :, None] ** 2
        + rng.uniform(-2, 2) * z[None, None, :]
    )


def known_turns(echoes: Echoes) -> NDArray[np.float32]:
    """Unwrap echoes by the true field: noise and coil offset stay, wraps do not.

    Parameters
    ----------
    echoes : Echoes

    Returns
    -------
    (E, X, Y, Z) float32, rad
    """
    rate = 2 * np.pi * GYROMAGNETIC_RATIO * echoes.field_strength
    truth = np.stack([echoes.true_field * np.float32(rate * t) for t in echoes.echo_times])
    first = wrap(echoes.phase[0] - truth[0])
    smooth = np.arctan2(gaussian_filter(np.sin(first), 3), gaussian_filter(np.cos(first), 3))
    expected = truth + smooth
    return np.asarray(expected + wrap(echoes.phase - expected))
