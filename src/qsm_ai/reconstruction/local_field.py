"""The local field: what remains of a total field without the sources outside."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qsm_ai.physics.coherent_background import coherent_background
from qsm_ai.physics.pdf import OuterSources

Volume = NDArray[np.float32]


class BackgroundRemoval:
    """Takes the field of sources outside the mask away, better with every map of the sources inside.

    What is taken for background depends on what the inner sources do at the rim. Where a first map tells
    their field, the background is sought in what that leaves unexplained, from where the last search ended.

    Parameters
    ----------
    total_field : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
    known : (X, Y, Z) bool
        Voxels of the mask whose field can be trusted.
    voxel_size : mm
    b0_direction : unit vector in voxel axes
    method : str
        ``pdf`` or ``lbv``.
    sources : type
        What seeks the outer sources of ``pdf``: numpy's, or the same on another device.
    """

    def __init__(
        self,
        total_field: Volume,
        mask: NDArray[np.bool_],
        known: NDArray[np.bool_],
        voxel_size: tuple[float, float, float],
        b0_direction: tuple[float, float, float],
        *,
        method: Literal["pdf", "lbv"] = "pdf",
        sources: type[OuterSources] = OuterSources,
    ) -> None:
        self._total_field, self._known, self._voxel_size = total_field, known, voxel_size
        self._sources: OuterSources | None = None
        if method == "pdf":
            coarse = coherent_background(total_field, mask, known, voxel_size, b0_direction)
            self._total_field = total_field - coarse
            # Voxels without a trustworthy field say nothing, but are no place for outer sources either: a
            # calcification there would be taken for background.
            silent = np.where(known, np.float32(1), np.float32(np.inf))
            self._sources = sources(mask, voxel_size, b0_direction, silent)

    def local_field(self, inner_field: Volume | None = None, iterations: int = 40) -> Volume:
        """The total field without what is taken for background.

        Parameters
        ----------
        inner_field : (X, Y, Z) float32 or None, ppm
            Field of the sources inside, as far as they are known.
        iterations : int
            Of the search for outer sources; ``lbv`` solves its equation to the end.

        Returns
        -------
        (X, Y, Z) float32, ppm
            Zero where the field is not known.
        """
        if self._sources is not None:
            return self._sources.remove(self._total_field, inner_field, iterations) * self._known
        from qsm_ai.physics.background import lbv

        if inner_field is None:
            return lbv(self._total_field, self._known, self._voxel_size) * self._known
        unexplained = self._total_field - inner_field
        return (lbv(unexplained, self._known, self._voxel_size) + inner_field) * self._known
