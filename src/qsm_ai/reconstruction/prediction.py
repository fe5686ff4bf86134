"""The network's map: the classical one and its correction, patch by patch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qsm_ai.reconstruction.network import Network
from qsm_ai.reconstruction.patches import Patches

PATCHES_AT_ONCE = 16
"""That are held in memory together."""


def predict_map(
    network: Network,
    plan: Patches,
    inputs: NDArray[np.float32],
    first: NDArray[np.float32],
    scale: float,
    known: NDArray[np.bool_],
    on_patch: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Correct a classical map by the network.

    Parameters
    ----------
    network : Network
    plan : Patches
        Of the mask.
    inputs : (C, X, Y, Z) float32
        Of the whole volume, see ``reconstruction.inputs``.
    first : (X, Y, Z) float32, ppm
        The map to be corrected, zero outside the mask.
    scale : float, ppm
        One unit of the network's correction.
    known : (X, Y, Z) bool
        Elsewhere the network saw nothing to correct by, and the first map stays.
    on_patch : callable
        Told the number of patches done so far.

    Returns
    -------
    (X, Y, Z) float32, ppm
    """
    correction = np.zeros(first.shape, dtype=np.float32)
    for batch in plan.batches(PATCHES_AT_ONCE):

        def done(count: int, before: int = batch.start) -> None:
            if on_patch is not None:
                on_patch(before + count)

        plan.blend(network.predict(plan.cut(inputs, batch), done), correction, batch)
    return first + np.float32(scale) * correction * known
