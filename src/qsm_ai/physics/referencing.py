"""What a susceptibility of zero means."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Reference = Literal["mean", "none"]


def reference(
    chi: NDArray[np.float32], mask: NDArray[np.bool_], kind: Reference = "mean"
) -> NDArray[np.float32]:
    r"""Susceptibility relative to a reference, zero outside the mask.

    The dipole kernel is undefined at k = 0, so that a map is known up to a constant; the consensus
    recommendation is to state the reference with the map.

    .. math:: \chi_{ref} = \chi - \langle \chi \rangle_{mask}

    Parameters
    ----------
    chi : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
    kind : "mean" or "none"
        The mean over the mask, or the constant as the inversion left it.

    Returns
    -------
    (X, Y, Z) float32, ppm

    Raises
    ------
    ValueError
        If the kind is unknown or the mask is empty.

    References
    ----------
    QSM Consensus Organization Committee 2024, 10.1002/mrm.30006.
    """
    if kind not in {"mean", "none"}:
        raise ValueError(f"unknown reference {kind!r}: mean or none")
    if not mask.any():
        raise ValueError("the mask is empty")
    offset = np.float32(chi[mask].mean(dtype=np.float64)) if kind == "mean" else np.float32(0)
    return np.where(mask, chi - offset, np.float32(0)).astype(np.float32, copy=False)
