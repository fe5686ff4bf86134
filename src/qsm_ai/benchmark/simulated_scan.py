"""A simulated head as a scan that the pipeline takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_ai.network.anatomy import Head
from qsm_ai.network.simulation import Echoes
from qsm_ai.scan import Grid, Scan


def simulated_scan(name: str, head: Head, echoes: Echoes, mask: NDArray[np.bool_], **measured: Any) -> Scan:
    """Make a scan of what is given of a simulated head.

    Parameters
    ----------
    name : str
    head : Head
    echoes : Echoes
        Of this head: tell where B0 points, how strong it is, and when a phase was measured.
    mask : (X, Y, Z) bool
    **measured
        Phase, magnitude or fields, named as in :class:`scan.Scan`.

    Returns
    -------
    Scan
        With echo times where there is a phase.
    """
    x, y, z = mask.shape
    return Scan(
        name=name,
        grid=Grid((x, y, z), np.diag([*head.voxel_size, 1.0])),
        b0_direction=echoes.b0_direction,
        field_strength=echoes.field_strength,
        echo_times=echoes.echo_times if "phase" in measured else (),
        mask=mask,
        **measured,
    )
