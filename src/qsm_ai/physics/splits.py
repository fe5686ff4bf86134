"""The splits of total variation: the map's gradient, and the map outside the mask, each with a multiplier."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qsm_ai.physics.edges import Edges


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
        self.along = np.empty(shape, dtype=np.float32)
        self.length = np.empty(shape, dtype=np.float32)

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
        for axis, h in enumerate(self.voxel_size):
            moved = self.multiplier[axis]  # becomes ∇χ + u
            _difference(chi, axis, self.along)
            self.along /= np.float32(h)
            moved += self.along
        # u is what the threshold cuts off: ∇χ + u brought to a length of at most the threshold. With edges,
        # what runs across them is taken out first and cut by itself.
        across = None if self.edges is None else self._taken_out(self.edges)
        length = self.length
        length.fill(0)
        for moved in self.multiplier:
            np.square(moved, out=self.along)
            length += self.along
        np.sqrt(length, out=length)
        np.maximum(length, self.threshold, out=length)
        np.divide(self.threshold, length, out=length)
        pull = np.zeros_like(chi)
        for axis, h in enumerate(self.voxel_size):
            moved = self.multiplier[axis]
            cut = np.multiply(moved, length, out=self.along)
            moved -= cut
            moved -= cut  # z − u
            if across is not None:
                rest, cut_across, normal = across
                moved += rest * normal[axis]
                cut += cut_across * normal[axis]
            _add_adjoint_difference(moved, axis, np.float32(1 / h), pull)
            self.multiplier[axis] = cut
        return pull

    def _taken_out(
        self, edges: Edges
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Take what runs across edges out of ∇χ + u; its z − u and its u along the normal, and the normal."""
        normal = edges.normal
        across = np.einsum("a...,a...->...", normal, self.multiplier)
        for axis in range(3):
            self.multiplier[axis] -= np.multiply(across, normal[axis], out=self.along)
        most = np.multiply(edges.smoothness, self.threshold, out=self.along)
        cut = np.clip(across, -most, most)
        across -= cut
        across -= cut
        return across, cut, normal


def _difference(volume: NDArray[np.float32], axis: int, out: NDArray[np.float32]) -> None:
    """Of each voxel's next neighbour and itself, periodic."""
    source, target = np.moveaxis(volume, axis, 0), np.moveaxis(out, axis, 0)
    np.subtract(source[1:], source[:-1], out=target[:-1])
    np.subtract(source[0], source[-1], out=target[-1])


def _add_adjoint_difference(
    volume: NDArray[np.float32], axis: int, factor: np.float32, out: NDArray[np.float32]
) -> None:
    """Add the adjoint of :func:`_difference` times ``factor`` to ``out``; ``volume`` is used up."""
    volume *= factor
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
