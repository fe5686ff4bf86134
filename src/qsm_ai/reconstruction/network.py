"""What the pipeline asks of a network, whoever runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Network(Protocol):
    """Something that predicts a correction for each patch."""

    @property
    def name(self) -> str:
        """Model, version and where it runs, for the report."""
        ...

    def predict(
        self,
        patches: NDArray[np.float32],
        on_patch: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Corrections for a stack of patches.

        Parameters
        ----------
        patches : (N, C, P, P, P) float32
            Dimensionless network inputs (see ``reconstruction.inputs``).
        on_patch : callable
            Told the number of patches done so far.

        Returns
        -------
        (N, 1, P, P, P) float32
        """
        ...
