"""The rate at which the magnitude decays over the echoes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_E_FOLDS = 5.0
"""A decay by more than this between two echoes leaves no second echo to measure."""


def r2star(
    magnitude: NDArray[np.float32], mask: NDArray[np.bool_], echo_times: Sequence[float]
) -> NDArray[np.float32]:
    r"""Effective transverse relaxation rate, by a weighted straight line through the log magnitude.

    .. math:: \ln S_e = \ln S_0 - R_2^* \, TE_e

    The noise of :math:`\ln S` is :math:`\sigma / S`, so that the weights are :math:`S^2`. The closed form is
    exact for a single exponential and for any spacing of the echoes.

    Parameters
    ----------
    magnitude : (E, X, Y, Z) float32
    mask : (X, Y, Z) bool
    echo_times : E values, s, increasing

    Returns
    -------
    (X, Y, Z) float32, 1/s
        Between 0 and 5 / (smallest echo spacing); 0 outside the mask and where fewer than two echoes have
        signal.

    Raises
    ------
    ValueError
        If there are fewer than two echoes, or not one magnitude per echo time.

    References
    ----------
    Pei et al. 2015, 10.1002/mrm.25137, compares this fit with others.
    """
    times = np.asarray(echo_times, dtype=np.float64)
    if times.size < 2 or len(magnitude) != times.size:
        raise ValueError(
            f"{len(magnitude)} magnitudes and {times.size} echo times: two or more of each needed"
        )
    spacing = np.diff(times)
    if not (spacing > 0).all():
        raise ValueError("the echo times do not increase")
    signal = magnitude[:, mask].astype(np.float64)
    measured = np.isfinite(signal) & (signal > 0)
    weight = np.where(measured, signal, 0.0) ** 2
    log = np.log(np.where(measured, signal, 1.0))
    total = np.maximum(weight.sum(axis=0), np.finfo(np.float64).tiny)
    time_mean = (weight * times[:, None]).sum(axis=0) / total
    time = times[:, None] - time_mean
    spread = (weight * time**2).sum(axis=0)
    decay = -(weight * time * log).sum(axis=0)
    fitted = (measured.sum(axis=0) >= 2) & (spread > 0)
    rate = np.divide(decay, spread, out=np.zeros_like(decay), where=fitted)
    out = np.zeros(mask.shape, dtype=np.float32)
    out[mask] = np.clip(rate, 0.0, _E_FOLDS / spacing.min())
    return out
