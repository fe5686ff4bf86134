"""The splits of total variation: the map's gradient, and the map outside the mask, each with a multiplier."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qsm_ai.physics.edges import Edges

PLANES = 4
"""That are worked on at a time: few enough to stay in a processor's cache."""


class ShrunkGradient:
    """The split gradient z and its multiplier u, on a periodic grid.

    Parameters
    ----------
    shape : of the grid
    voxel_size : mm
    threshold : float, ppm/mm
        λ / μ.
    edges : Edges or None
        On this grid.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        voxel_size: tuple[float, float, float],
        threshold: np.float32,
        edges: Edges | None = None,
    ) -> None:
        self.voxel_size = voxel_size
        self.threshold = threshold
        self.edges = edges
        self.multiplier = np.zeros((3, *shape), dtype=np.float32)

    def step(self, chi: NDArray[np.float32]) -> NDArray[np.float32]:
        """Update z and u.

        Parameters
        ----------
        chi : float32 grid, ppm

        Returns
        -------
        float32 grid, ppm/mm²
            The adjoint gradient of z − u.
        """
        count = len(chi)
        pull = np.zeros_like(chi)
        for start in range(0, count, PLANES):
            block = slice(start, min(start + PLANES, count))
            after = block.stop % count
            split = self._split(chi, block, chi[after])
            for axis, h in enumerate(self.voxel_size):
                split[axis] *= np.float32(1 / h)
            part = pull[block]
            part -= split[0]
            part[1:] += split[0, :-1]
            pull[after] += split[0, -1]
            for axis in (1, 2):
                _add_adjoint_difference(split[axis], axis, part)
        return pull

    def _split(
        self, chi: NDArray[np.float32], block: slice, after: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """z − u of some planes, whose u is updated; ``after`` is the plane behind them."""
        here = chi[block]
        moved = np.empty((3, *here.shape), dtype=np.float32)
        np.subtract(here[1:], here[:-1], out=moved[0, :-1])
        np.subtract(after, here[-1], out=moved[0, -1])
        for axis in (1, 2):
            _difference(here, axis, moved[axis])
        for axis, h in enumerate(self.voxel_size):
            moved[axis] /= np.float32(h)
        moved += self.multiplier[:, block]
        # u is what the threshold cuts off: ∇χ + u brought to a length of at most the threshold. With edges,
        # what runs across them is taken out first and cut by itself.
        across = None if self.edges is None else self._taken_out(self.edges, moved, block)
        length = np.square(moved[0])
        length += np.square(moved[1])
        length += np.square(moved[2])
        np.sqrt(length, out=length)
        np.maximum(length, self.threshold, out=length)
        np.divide(self.threshold, length, out=length)
        for axis in range(3):
            cut = moved[axis] * length
            moved[axis] -= cut
            moved[axis] -= cut  # z − u
            if across is not None:
                rest, cut_across, normal = across
                moved[axis] += rest * normal[axis]
                cut += cut_across * normal[axis]
            self.multiplier[axis, block] = cut
        return moved

    def _taken_out(
        self, edges: Edges, moved: NDArray[np.float32], block: slice
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Take what runs across edges out of ∇χ + u; its z − u and its u along the normal, and the normal."""
        normal = edges.normal[:, block]
        across = np.einsum("a...,a...->...", normal, moved)
        moved -= across * normal
        most = edges.smoothness[block] * self.threshold
        cut = np.clip(across, -most, most)
        across -= cut
        across -= cut
        return across, cut, normal


def _difference(volume: NDArray[np.float32], axis: int, out: NDArray[np.float32]) -> None:
    """Of each voxel's next neighbour and itself, periodic."""
    source, target = np.moveaxis(volume, axis, 0), np.moveaxis(out, axis, 0)
    np.subtract(source[1:], source[:-1], out=target[:-1])
    np.subtract(source[0], source[-1], out=target[-1])


def _add_adjoint_difference(volume: NDArray[np.float32], axis: int, out: NDArray[np.float32]) -> None:
    """Add the adjoint of :func:`_difference` to ``out``."""
    source, target = np.moveaxis(volume, axis, 0), np.moveaxis(out, axis, 0)
    target -= source
    target[1:] += source[:-1]
    target[0] += source[-1]


class DearOutside:
    r"""The copy y of the map, less outside the mask, and its multiplier v, on a periodic grid.

    .. math:: y = \frac{\rho}{\rho + \kappa} (\chi + v) \text{ outside}, \quad y = \chi \text{ inside}, \quad
              v \leftarrow v + \chi - y

    Parameters
    ----------
    inner : (X, Y, Z) bool
        The mask, at the start of the grid.
    shape : of the grid
    weight : float
        κ; may be infinite.
    stiffness : float
        ρ.
    gradient_stiffness : float
        μ, in whose units the pull is.
    """

    def __init__(
        self,
        inner: NDArray[np.bool_],
        shape: tuple[int, ...],
        weight: float,
        stiffness: float,
        gradient_stiffness: np.float32,
    ) -> None:
        self.place = tuple(slice(n) for n in inner.shape)
        self.inner = inner
        self.share = np.float32(1 / (1 + stiffness / weight))
        self.gain = np.float32(stiffness / gradient_stiffness)
        self.multiplier = np.zeros(shape, dtype=np.float32)

    def step(self, chi: NDArray[np.float32], pull: NDArray[np.float32]) -> None:
        """Update y and v; add ρ / μ (y − v) to what pulls the gradient.

        Parameters
        ----------
        chi : float32 grid, ppm
            Used up.
        pull : float32 grid
            Changed in place.
        """
        chi += self.multiplier  # y + v
        np.multiply(chi, self.share, out=self.multiplier)
        self.multiplier[self.place][self.inner] = 0
        chi -= self.multiplier
        chi -= self.multiplier
        chi *= self.gain
        pull += chi
