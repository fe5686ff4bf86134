"""Where the network's map and the measured field meet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qsm_ai.physics.edges import Edges
from qsm_ai.physics.inversion import Inverter
from qsm_ai.physics.morphology import depth_below_surface
from qsm_ai.physics.total_variation import total_variation
from qsm_ai.reconstruction.inputs import USUAL_SCALE

CONSISTENCY_FACTOR, LEAST_CONSISTENCY, MOST_CONSISTENCY = 5.0, 0.0005, 2.0
"""Of μ = 5 (noise / scale)², held between the two others: the noisier the field, the less it overrules."""

BESIDE_EDGES = 0.3
"""Share of μ where edges are known: what total variation leaves to do."""

VARIATION_FACTOR, LEAST_VARIATION, MOST_VARIATION = 1.2e-3, 1e-6, 0.02
"""Of λ = 1.2·10⁻³ noise / scale, ppm mm at the usual scale, held between the two others."""

LOUD = 0.1
"""Noise / scale beyond which the field tells so little that the share and λ grow by as much."""

RIM_MM = 6.0
"""Depth below the mask's surface at which a field without its background is trusted in full."""

ITERATIONS, ITERATIONS_WITHIN = 20, 40
"""Of total variation, which starts from the network's map; the second where the mask holds all sources."""

OUTSIDE_WEIGHT = 0.005
"""κ where the mask holds all sources: finite, for a field that seems clean holds some background yet."""


def consistency_weight(noise: float, scale: float) -> float:
    r"""How much the network's map weighs against the measured field.

    .. math:: \mu = 5 \, (\sigma / s)^2

    Parameters
    ----------
    noise : float, ppm
        Median standard error of the field.
    scale : float, ppm
        Robust scale of the map.

    Returns
    -------
    float
        Between ``LEAST_CONSISTENCY`` and ``MOST_CONSISTENCY``.
    """
    return min(max(CONSISTENCY_FACTOR * (noise / scale) ** 2, LEAST_CONSISTENCY), MOST_CONSISTENCY)


def rim_trust(mask: NDArray[np.bool_], voxel_size: tuple[float, float, float]) -> NDArray[np.float32]:
    r"""Trust in a local field near the rim, where background removal errs most.

    .. math:: w = \min(d / 6\,\mathrm{mm}, 1)^2

    Parameters
    ----------
    mask : (X, Y, Z) bool
    voxel_size : mm

    Returns
    -------
    (X, Y, Z) float32
        Of the distance d to the nearest voxel outside the mask; zero there.
    """
    depth = depth_below_surface(mask, voxel_size)
    trust: NDArray[np.float32] = np.square(np.minimum(depth / RIM_MM, 1)).astype(np.float32)
    return trust


def hold_to_field(
    inverter: Inverter,
    prior: NDArray[np.float32],
    mask: NDArray[np.bool_],
    trust: NDArray[np.float32],
    noise: float,
    scale: float,
    edges: Edges | None = None,
    *,
    within: bool = False,
) -> NDArray[np.float32]:
    r"""The map nearest to the network's and to the measured field at once.

    .. math:: \min_\chi \tfrac12 \| W (d * \chi - f) \|_2^2 + \tfrac{\mu}{2} \| \chi - \chi_0 \|_2^2

    in a few steps from the network's map (:func:`physics.inversion.data_consistency`). Edges of the magnitude
    add what the network does not know, as in :func:`physics.total_variation.total_variation`,

    .. math:: \min_\chi \tfrac12 \| W (d * \chi - f) \|_2^2 + \tfrac{0.3 \mu}{2} \| \chi - \chi_0 \|_2^2
              + \lambda \mathrm{TV}_{\mathrm{edges}}(\chi), \qquad \lambda = 1.2 \cdot 10^{-3} \, \sigma / s

    where 0.3, up to one, and λ are multiplied by :math:`10 \sigma / s` if that is more than one.

    Parameters
    ----------
    inverter : Inverter
        Of the local field.
    prior : (X, Y, Z) float32, ppm
        The network's map χ₀.
    mask : (X, Y, Z) bool
        Where susceptibility is sought.
    trust : (X, Y, Z) float32 between 0 and 1
        W²: zero where the field is not known, less than one where it is doubted (:func:`rim_trust`).
    noise, scale : float, ppm
        See :func:`consistency_weight`.
    edges : Edges or None
    within : bool
        Whether all sources of the field lie in the mask, which counts where edges are known: then
        susceptibility outside costs as much as :math:`\kappa = 0.005` says.

    Returns
    -------
    (X, Y, Z) float32, ppm
        Zero outside the mask.

    References
    ----------
    Liu et al. 2012, 10.1016/j.neuroimage.2011.08.082.
    """
    weight = consistency_weight(noise, scale)
    if edges is None:
        held: NDArray[np.float32] = inverter.consistency(prior, weight, trust) * mask
        return held
    factor = np.float32(USUAL_SCALE / scale)
    louder = max(noise / scale / LOUD, 1.0)
    variation = min(max(VARIATION_FACTOR * noise / scale * louder, LEAST_VARIATION), MOST_VARIATION)
    return (
        total_variation(
            inverter.local_field * (trust > 0) * factor,
            mask,
            inverter.voxel_size,
            inverter.b0_direction,
            variation,
            weights=trust,
            iterations=ITERATIONS_WITHIN if within else ITERATIONS,
            edges=edges,
            prior=prior * factor,
            prior_weight=min(BESIDE_EDGES * louder, 1.0) * weight,
            outside_weight=OUTSIDE_WEIGHT if within else 0.0,
        )
        / factor
    )
