"""The physics check: does the field of the map agree with the measured one?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsm_ai.physics.dipole import forward_field

GOOD_SCORE = 0.6
"""Below it a map is reported as doubtful."""

MEDIAN_OF_CHI_SQUARE = 0.45494
"""With one degree of freedom."""


@dataclass(frozen=True)
class PhysicsCheck:
    """How well a susceptibility map explains the local field it came from.

    Attributes
    ----------
    residual : (X, Y, Z) float32, ppm
        Measured field minus the map's field; zero outside the mask and where no local field is known.
    score : float, 0 to 1
        Share of the local field's energy that the map explains.
    residual_rms : ppm
    residual_relative : float
        Root mean square of the residual over that of the field.
    chi_square : float or None
        Median of the squared residual over its noise, divided by what pure noise would give: 1 says that
        only noise is left. None where the noise is unknown.
    """

    residual: NDArray[np.float32]
    score: float
    residual_rms: float
    residual_relative: float
    chi_square: float | None

    @property
    def scores(self) -> dict[str, float]:
        """The numbers by name, for reports."""
        numbers = {
            "physics_check": self.score,
            "residual_rms_ppm": self.residual_rms,
            "residual_relative": self.residual_relative,
        }
        if self.chi_square is not None:
            numbers["residual_chi_square"] = self.chi_square
        return numbers

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know, in plain sentences."""
        if self.score >= GOOD_SCORE:
            return ()
        return (
            f"The map explains only {100 * self.score:.0f} % of the local field's energy; look at the "
            "residual map, the mask and the phase before using it.",
        )


def physics_check(
    chi: NDArray[np.float32],
    local_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: tuple[float, float, float],
    b0_direction: tuple[float, float, float],
    field_error: NDArray[np.float32] | None = None,
) -> PhysicsCheck:
    r"""Forward-simulate the field of a map and compare it with the measured local field.

    .. math:: r = f - D * \chi - a \, (D * m) - b

    A phase knows neither the reference of the susceptibility nor a constant field: ``a``, the shift of
    the map within the mask m, and ``b`` are fitted before anything is called a residual.

    Parameters
    ----------
    chi, local_field : (X, Y, Z) float32, ppm
        Zero outside the mask.
    mask : (X, Y, Z) bool
    voxel_size : mm
    b0_direction : unit vector in voxel axes
    field_error : (X, Y, Z) float32, ppm, optional
        Standard error of the field.

    Returns
    -------
    PhysicsCheck
    """
    # Methods that lose the rim leave exact zeros there: nothing was measured, nothing can disagree.
    known = mask & (local_field != 0)
    residual = np.zeros(mask.shape, dtype=np.float32)
    if not known.any():
        return PhysicsCheck(residual, 0.0, 0.0, 1.0, None)
    measured = local_field[known].astype(np.float64)
    explained = forward_field(chi, voxel_size, b0_direction)[known]
    shift = forward_field(mask.astype(np.float32), voxel_size, b0_direction)[known]
    unknowable = np.stack([shift, np.ones_like(shift)], axis=1).astype(np.float64)
    left = measured - explained
    fitted, *_ = np.linalg.lstsq(unknowable, left, rcond=None)
    left -= unknowable @ fitted
    residual[known] = left
    field_energy = float(((measured - measured.mean()) ** 2).mean())
    energy = float((left**2).mean())
    ratio = energy / field_energy if field_energy > 0 else 1.0
    chi_square = None
    if field_error is not None:
        noise = field_error[known].astype(np.float64)
        certain = noise > 0
        if certain.any():
            chi_square = float(np.median((left[certain] / noise[certain]) ** 2) / MEDIAN_OF_CHI_SQUARE)
    return PhysicsCheck(
        residual, float(np.clip(1 - ratio, 0.0, 1.0)), energy**0.5, float(ratio**0.5), chi_square
    )
