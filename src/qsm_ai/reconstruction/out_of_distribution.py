"""A warning of scans that are unlike everything that the network was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qsm_ai.physics.fourier import frequencies
from qsm_ai.physics.inversion import Inverter
from qsm_ai.physics.robust import robust_spread
from qsm_ai.reconstruction.evidence import Evidence

TOLERANCE = 0.25
"""Of the range over the calibration heads, by which a scan may lie outside of it."""

CONE, ELSEWHERE = 0.06, 0.2
"""|D| below which a spectrum belongs to the cone, and above which it does not."""

LOWEST, HIGHEST = 0.05, 0.25
"""Cycles per voxel between which the two are compared."""

FEW = 3.0
"""Robust standard deviations of what a map leaves unexplained, beyond which it is that of a few strong
sources, and cut: a bleeding leaves more than all that a wrong direction does."""

LEAST_NOISE = 1e-3
"""Of noise / scale; less is as good as none."""

SENTENCES: Mapping[str, tuple[str | None, str | None]] = {
    "field_strength": ("the field strength is lower", "the field strength is higher"),
    "finest_voxel": ("the voxels are finer", "the voxels are coarser"),
    "coarsest_voxel": ("the voxels are finer", "the voxels are coarser"),
    "volume": (
        "the mask holds less than a brain (another part of the body, or a slab)",
        "the mask holds more than a brain",
    ),
    "contrast": (
        "the susceptibility varies less than in any brain (is the phase scaled right?)",
        "the susceptibility varies more than in any brain (is the phase scaled right?)",
    ),
    "noise": (None, "the field is noisier"),
    "unexplained": (None, "the map leaves more of the field unexplained"),
    "correction": (None, "the network changed more of the classical map"),
    "cone": (
        None,
        "field and map disagree as they do where B0 points another way (is its direction right?)",
    ),
    "asymmetry": (
        "strong sources are mostly diamagnetic (is the sign of the phase right?)",
        None,
    ),
    "extremes": ("there are no veins or other strong sources", "there are more strong sources"),
}
"""What is said of a statistic below and above its range; None where that side does no harm."""


@dataclass(frozen=True)
class Familiarity:
    """How far a scan lies from those of the training.

    Attributes
    ----------
    score : float
        Largest distance of any statistic from the middle of its range, in units of half its range and the
        tolerance: up to 1 a scan is familiar.
    strange : names of the statistics that lie outside
    warnings : sentences for the user
    """

    score: float
    strange: tuple[str, ...]
    warnings: tuple[str, ...]


def statistics_of(evidence: Evidence) -> dict[str, float]:
    """A few numbers that tell one kind of scan from another.

    Parameters
    ----------
    evidence : Evidence

    Returns
    -------
    dict
        Keys of ``SENTENCES``, logarithms where only ratios matter; without the field strength where that
        is not known.
    """
    mask, scale = evidence.mask, evidence.scale
    inside = evidence.chi[mask]
    low, middle, high = (float(v) for v in np.percentile(inside, [0.5, 50, 99.5]))
    span = max(high - low, 1e-12)
    litres = np.count_nonzero(mask) * float(np.prod(evidence.voxel_size)) / 1e6
    known = evidence.local_field[evidence.known]
    field = float(known.std()) if known.size else 0.0
    residual = evidence.residual[evidence.known]
    left = float(np.sqrt((residual**2).mean())) if residual.size else 0.0
    correction = float(np.sqrt((evidence.correction[mask] ** 2).mean()))
    numbers = {
        "finest_voxel": np.log(min(evidence.voxel_size)),
        "coarsest_voxel": np.log(max(evidence.voxel_size)),
        "volume": np.log(max(litres, 1e-6)),
        "contrast": np.log(scale),
        "noise": np.log(_loudness(evidence)),
        "unexplained": np.log(max(left / field, 1e-2)) if field > 0 else 0.0,
        "correction": np.log(max(correction / scale, 1e-2)),
        "cone": cone_energy(evidence),
        "asymmetry": (high + low - 2 * middle) / span,
        "extremes": np.log(span / scale),
    }
    if evidence.field_strength:
        numbers["field_strength"] = np.log(evidence.field_strength)
    return {name: float(value) for name, value in numbers.items()}


def cone_energy(evidence: Evidence) -> float:
    r"""Logarithm of the power on the cone of what a map leaves unexplained, where D is next to nothing.

    .. math:: \ln \frac{\mathrm{median}_{|D| < 0.06} |F r|^2}{\mathrm{median}_{|D| > 0.2} |F f|^2}
              - \ln \frac{\sigma}{s}

    with the residual r, the local field f, and its noise over the scale, at middle frequencies. Whatever the
    susceptibility, its field has no power on the cone: there a map explains nothing. Where B0 is taken to
    point another way, the true field lies there. So does noise, which adds its square; half of that is taken
    off, and scans of much and of little noise with the right direction are alike.

    Parameters
    ----------
    evidence : Evidence

    Returns
    -------
    float
        −5 to −2 for simulated heads, above −1.5 where B0 is 20° off or more.
    """
    residual = evidence.residual * evidence.known
    inside = residual[evidence.known]
    if not inside.size:
        return 0.0
    most = np.float32(FEW * robust_spread(inside))
    field = Inverter(evidence.local_field * evidence.known, evidence.voxel_size, evidence.b0_direction)
    left = field.transform(residual.clip(-most, most))
    size = field.voxel_size
    cycles = sum((k * h) ** 2 for k, h in zip(frequencies(field.padded, size), size, strict=True))
    middle = (cycles > LOWEST**2) & (cycles < HIGHEST**2)
    strength = np.abs(field.kernel)
    on = np.abs(left[middle & (strength < CONE)]) ** 2
    off = np.abs(field.spectrum[middle & (strength > ELSEWHERE)]) ** 2
    if not on.size or not off.size or not (reference := float(np.median(off))) > 0:
        return 0.0
    return float(np.log(max(float(np.median(on)) / reference, 1e-6) / _loudness(evidence)))


def _loudness(evidence: Evidence) -> float:
    return max(evidence.noise / evidence.scale, LEAST_NOISE)


def familiarity(statistics: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> Familiarity:
    """Compare a scan's statistics with their ranges over the heads that the calibration saw.

    Parameters
    ----------
    statistics : see :func:`statistics_of`
    ranges : (lowest, highest) of each
        Statistics without a range are left out.

    Returns
    -------
    Familiarity
    """
    distances: dict[str, float] = {}
    said: dict[str, None] = {}
    for name, value in statistics.items():
        if name not in ranges:
            continue
        low, high = ranges[name]
        reach = max((high - low) * (0.5 + TOLERANCE), 1e-6)
        distance = (value - (low + high) / 2) / reach
        sentence = SENTENCES[name][distance > 0]
        if sentence is None:
            continue
        distances[name] = abs(distance)
        if abs(distance) > 1:
            said[sentence] = None
    strange = tuple(name for name, distance in distances.items() if distance > 1)
    warnings: tuple[str, ...] = ()
    if strange:
        warnings = (
            f"This scan is unlike those that the network was trained on: {'; '.join(said)}. "
            "Its errors, and the standard deviation given for them, are not known here.",
        )
    return Familiarity(max(distances.values(), default=0.0), strange, warnings)
