"""What users get wrong about a good scan, to see whether the warning of unfamiliar scans tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from qsm_ai.scan import Scan

OFF_DEGREES = 30.0
"""By which the direction of B0 is wrong: as if a tilted slab had been taken for an upright one."""


def with_wrong_direction(scan: Scan) -> Scan:
    """The same scan, said to lie otherwise in the field.

    Parameters
    ----------
    scan : Scan

    Returns
    -------
    Scan
        Its direction of B0 turned by ``OFF_DEGREES``.
    """
    right = np.asarray(scan.b0_direction)
    # Turned within the plane of B0 and the voxel axis that is farthest from it.
    axis = np.eye(3)[np.abs(right).argmin()]
    aside = axis - right * (axis @ right)
    angle = np.deg2rad(OFF_DEGREES)
    x, y, z = np.cos(angle) * right + np.sin(angle) * aside / np.linalg.norm(aside)
    return replace(scan, b0_direction=(float(x), float(y), float(z)))


def with_wrong_sign(scan: Scan) -> Scan:
    """The same scan, its phase or field of the other sign.

    Parameters
    ----------
    scan : Scan

    Returns
    -------
    Scan
    """
    turned = {
        name: -volume
        for name in ("phase", "total_field", "local_field")
        if (volume := getattr(scan, name)) is not None
    }
    return replace(scan, **turned)


FAULTS: Mapping[str, Callable[[Scan], Scan]] = {
    "direction": with_wrong_direction,
    "sign": with_wrong_sign,
}
