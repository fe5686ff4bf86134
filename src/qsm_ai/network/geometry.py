"""Where things lie in an invented head: coordinates, shapes, rotations, smooth random fields."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, rfftn

from qsm_ai.physics.fourier import WORKERS, bounding_box, frequencies

Volume = NDArray[np.float32]
Triple = tuple[float, float, float]
Coordinates = list[Volume]
"""Three (X, Y, Z) volumes: how far right, front and up of the head's middle each voxel lies, mm."""


def low_pass(k: Volume, wavelength: float) -> Volume:
    r"""Response of the low pass of smooth random fields, without their mean.

    .. math:: e^{-k^2 \ell^2 / 2}, \quad 0 \text{ at } k = 0

    Parameters
    ----------
    k : (X, Y, Z) float32, 1/mm
        Frequency.
    wavelength : mm
        ℓ, the shortest that is left.

    Returns
    -------
    (X, Y, Z) float32
    """
    centre = 1 / wavelength
    response: Volume = np.exp(-(k**2) / (2 * centre**2))
    response[0, 0, 0] = 0
    return response


class Noise:
    """Smooth random fields on one grid.

    Parameters
    ----------
    rng : numpy Generator
    shape : (X, Y, Z)
    voxel_size : mm
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...], voxel_size: Triple) -> None:
        self.rng, self.shape = rng, shape
        kx, ky, kz = frequencies(shape, voxel_size)
        self.k = np.sqrt(kx**2 + ky**2 + kz**2)

    def field(self, wavelength: float, bandwidth: float = 0.0) -> Volume:
        """Draw a field of zero mean and unit variance.

        Parameters
        ----------
        wavelength : mm
            Of the middle of the band, or the shortest that a low pass leaves.
        bandwidth : float
            Standard deviation of the band relative to its middle; zero for a low pass.

        Returns
        -------
        (X, Y, Z) float32
        """
        centre = 1 / wavelength
        if bandwidth:
            weight = np.exp(-((self.k - centre) ** 2) / (2 * (bandwidth * centre) ** 2))
        else:
            weight = low_pass(self.k, wavelength)
        weight[0, 0, 0] = 0
        white = rfftn(self.rng.standard_normal(self.shape, dtype=np.float32), workers=WORKERS)
        volume: Volume = irfftn(white * weight.astype(np.float32), s=self.shape, workers=WORKERS)
        return np.asarray(volume / volume.std(), np.float32)


def head_coordinates(
    shape: tuple[int, ...], voxel_size: Triple, rotation: NDArray[np.float64]
) -> Coordinates:
    """Head axes (right, front, up; mm) of every voxel, the middle of the grid being zero.

    Parameters
    ----------
    shape : (X, Y, Z)
    voxel_size : mm
    rotation : (3, 3)
        From voxel axes to head axes.

    Returns
    -------
    three (X, Y, Z) float32 volumes
    """
    x, y, z = (
        (np.arange(n, dtype=np.float32) - (n - 1) / 2) * h for n, h in zip(shape, voxel_size, strict=True)
    )
    r = rotation.astype(np.float32)
    return [
        r[i, 0] * x[:, None, None] + r[i, 1] * y[None, :, None] + r[i, 2] * z[None, None, :] for i in range(3)
    ]


def share_inside(distance: Volume, width: float) -> Volume:
    """Share of each voxel that lies inside a surface: a logistic step in place of the exact partial volume.

    Parameters
    ----------
    distance : (X, Y, Z) float32, mm
        Signed distance to the surface, positive inside.
    width : mm
        Over which the share rises from one eighth to seven eighths.

    Returns
    -------
    (X, Y, Z) float32, 0 to 1
    """
    slope = np.clip(4 * distance / width, -30, 30)
    return np.asarray(1 / (1 + np.exp(-slope)), np.float32)


def ellipsoid(c: Coordinates, centre: Triple, axes: Triple) -> Volume:
    """Signed distance to an ellipsoid, near enough close to its surface.

    Parameters
    ----------
    c : three (X, Y, Z) float32 volumes, mm
    centre, axes : mm
        Middle and half axes along the coordinates.

    Returns
    -------
    (X, Y, Z) float32, mm
        Positive inside.
    """
    p, q, s = (np.asarray((x - m) / a) for x, m, a in zip(c, centre, axes, strict=True))
    radius = np.sqrt(p * p + q * q + s * s) + 1e-6
    return np.asarray((1 - radius) * (sum(axes) / 3))


def box_around(c: Coordinates, centre: Triple, reach: float) -> tuple[slice, slice, slice] | None:
    """Smallest box of voxels that holds every one within ``reach`` of a point along each head axis.

    Parameters
    ----------
    c : three (X, Y, Z) float32 volumes, mm
    centre : mm
    reach : mm

    Returns
    -------
    three slices, or None where the point lies off the grid
    """
    close = np.ones(c[0].shape, np.bool_)
    for x, middle in zip(c, centre, strict=True):
        close &= np.abs(x - middle) < reach
    return bounding_box(close) if close.any() else None


def random_rotation(rng: np.random.Generator, degrees: float) -> NDArray[np.float64]:
    """Draw a rotation matrix (3, 3) about a random axis by up to ``degrees``."""
    axis = rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    angle = np.deg2rad(rng.uniform(0, degrees))
    cross: NDArray[np.float64] = np.cross(np.eye(3), axis)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def random_direction(rng: np.random.Generator, degrees: float) -> Triple:
    """Draw a direction of B0 (unit vector in voxel axes), tilted from the third axis by up to ``degrees``."""
    x, y, z = random_rotation(rng, degrees)[2]
    return float(x), float(y), float(z)
