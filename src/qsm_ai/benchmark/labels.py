"""Labels of a real head, where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER, FILE = "QSM_SHARED_DATA", Path("anatomy") / "aparc.a2009s+aseg.nii.gz"
"""Environment variable with the folder that may hold the labels, and where in it."""


def find_labels(given: Path | None) -> NDArray[np.int16] | None:
    """Read the labels that were given, or those of the folder that the environment names.

    Parameters
    ----------
    given : NIfTI or None

    Returns
    -------
    (L, M, N) int16 or None
        None where there are none.
    """
    from qsm_ai.network.examples import load_labels

    if given is None:
        folder = os.environ.get(FOLDER)
        given = Path(folder) / FILE if folder else None
    return load_labels(given) if given is not None and given.is_file() else None
