"""Accuracy of every method on phantoms, from phase and from the true local field."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from qsm_ci.qsm_eval import score_arrays
from scipy.ndimage import distance_transform_edt

from qsm_ai.benchmark.phantoms import Case, make_phantom
from qsm_ai.reconstruction.network import Network
from qsm_ai.reconstruction.options import METHODS, Options
from qsm_ai.reconstruction.pipeline import reconstruct

RIM = 6
"""Voxels taken off the brain for the interior, as in the project's goal."""


@dataclass(frozen=True)
class Score:
    """One method on one phantom.

    Attributes
    ----------
    case, start, method : str
        ``start`` is "phase" or "local field".
    nrmse, xsim : per cent, and 0 to 1; in the brain eroded by ``RIM`` voxels
    nrmse_brain, xsim_brain : the same in the whole brain
    coverage : share of the brain's voxels that have a value
    seconds : float
    """

    case: str
    start: str
    method: str
    nrmse: float
    xsim: float
    nrmse_brain: float
    xsim_brain: float
    coverage: float
    seconds: float

    def as_dict(self) -> dict[str, str | float]:
        """By name, for JSON."""
        return asdict(self)


def score(chi: NDArray[np.float32], truth: NDArray[np.float32], mask: NDArray[np.bool_]) -> dict[str, float]:
    """The public benchmark's metrics, in the interior and in the whole brain.

    Parameters
    ----------
    chi, truth : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool

    Returns
    -------
    dict
        Keys as in ``Score``.
    """
    interior = distance_transform_edt(mask) > RIM
    inner, _ = score_arrays(chi, truth, interior)
    whole, _ = score_arrays(chi, truth, mask)
    return {
        "nrmse": float(inner["nrmse"]),
        "xsim": float(inner["xsim"]),
        "nrmse_brain": float(whole["nrmse"]),
        "xsim_brain": float(whole["xsim"]),
        "coverage": float(whole["coverage"]),
    }


def measure(
    cases: Iterable[Case],
    network: Network | None,
    methods: Iterable[str] = METHODS,
    tell: Callable[[Score], None] = lambda _: None,
) -> list[Score]:
    """Reconstruct every phantom by every method, from its phase and from its true local field.

    Parameters
    ----------
    cases : Case
    network : Network or None
        Needed for the method "qsm-vit" alone.
    methods : names of methods
    tell : callable
        Given each score as it is known.

    Returns
    -------
    list of Score
    """
    scores = []
    chosen = tuple(methods)
    for case in cases:
        phantom = make_phantom(case)
        assert phantom.scan.mask is not None  # noqa: S101 - a phantom knows its brain
        for start, scan in (("phase", phantom.scan), ("local field", phantom.from_local_field)):
            for method in chosen:
                result = reconstruct(scan, Options(method=method), network)  # type: ignore[arg-type]
                numbers = score(result.chi, phantom.chi, phantom.scan.mask)
                scores.append(
                    Score(case.name, start, method, seconds=sum(result.timings.values()), **numbers)
                )
                tell(scores[-1])
    return scores
