"""Learning how wrong the network's maps are, and what its scans look like, from heads of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion
from scipy.optimize import minimize

from qsm_ai.benchmark.faults import FAULTS
from qsm_ai.benchmark.simulated_scan import simulated_scan
from qsm_ai.network.anatomy import Head
from qsm_ai.network.examples import BARE, GIVEN_WITHOUT_EDGES, random_scan, voxel_to_learn_from
from qsm_ai.physics.dipole import forward_field
from qsm_ai.physics.fourier import bounding_box
from qsm_ai.reconstruction.evidence import Evidence
from qsm_ai.reconstruction.network import Network
from qsm_ai.reconstruction.out_of_distribution import TOLERANCE, familiarity, statistics_of
from qsm_ai.reconstruction.pipeline import MARGIN, reconstruct
from qsm_ai.reconstruction.uncertainty import FEATURES, ErrorModel, features_of
from qsm_ai.scan import Scan

FIRST_CALIBRATION_SEED = 950_000
"""Heads from here on are neither trained, validated nor tested on."""

VOXELS = 6000
"""Taken from each head."""

HELD_OUT = 3
"""Every third head is kept from the fit, to be judged by it."""

LARGEST_ERROR = 20.0
"""In units of the scale: what is larger counts as this much, so that one voxel does not rule the fit."""

BINS = 10

KINDS = ("removed", "given")

BOUNDS: dict[str, tuple[float | None, float | None]] = {"depth": (None, 0.0), "noise": (0.05, None)}
"""Of weights; the others are not negative. A noisier field never makes a surer map."""

COARSER = (1.0, 1.25, 1.6, 1.25)
"""How many times those of the training the voxels of one head after the other are: most are coarser, to save
time and because users' are. Heads fitted to and heads kept from the fit have all of them."""

TRAILING = ("cone",)
"""Statistics that trail off far on the side that does no harm. Their range begins at the median there: its
width is what a scan may stray by on the other side."""

DRAWS = 2000
"""Of the training's voxel sizes, for their range."""


@dataclass(frozen=True)
class Sample:
    """Voxels of one map of one head.

    Attributes
    ----------
    features : (features, N) float32
        See ``reconstruction.uncertainty``.
    errors : (N,) float32
        Estimated less true χ, in units of the robust scale.
    statistics : dict
        See ``reconstruction.out_of_distribution``.
    faulty : dict of dict
        The same of the scan with each of ``faults.FAULTS``; empty where they were not tried.
    """

    features: NDArray[np.float32]
    errors: NDArray[np.float32]
    statistics: dict[str, float]
    faulty: dict[str, dict[str, float]] = field(default_factory=dict)


def collect(
    folder: Path,
    seeds: Iterable[int],
    network: Network,
    labels: NDArray[np.int16] | None,
    tell: Callable[[int], None] = lambda _: None,
) -> dict[str, list[Sample]]:
    """Reconstruct calibration heads from phase and from a local field, unless a folder holds them already.

    Those that are kept from the fit are reconstructed with every fault, too.

    Parameters
    ----------
    folder : Path
        Gets a file for each head.
    seeds : int
    network : Network
    labels : (L, M, N) int or None
        Of a real head, for half of the heads.
    tell : callable
        Given each seed that is done.

    Returns
    -------
    dict of lists of Sample
        By kind, in the order of seeds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Sample]] = {kind: [] for kind in KINDS}
    for number, seed in enumerate(seeds):
        path = folder / f"{seed}.npz"
        if not path.exists():
            coarser = COARSER[number % len(COARSER)]
            _write(path, sample_head(seed, network, labels, coarser, faults=number % HELD_OUT == 0))
        for kind, sample in _read(path).items():
            found[kind].append(sample)
        tell(seed)
    return found


def sample_head(
    seed: int, network: Network, labels: NDArray[np.int16] | None, coarser: float, *, faults: bool
) -> dict[str, Sample]:
    """Invent and reconstruct one head, twice, and with faults; see :func:`collect`."""
    rng = np.random.default_rng(seed)
    x, y, z = (size * coarser for size in voxel_to_learn_from(rng))
    head, echoes = random_scan(rng, (x, y, z), labels, bare=BARE)
    mask = head.brain
    draw = rng.random()
    if draw < 0.2:
        mask = binary_erosion(mask)
    elif draw < 0.4:
        mask = binary_dilation(mask)
    truth = np.where(mask, head.chi - head.chi[mask & head.brain].mean(), 0).astype(np.float32)
    noise = np.float32(np.exp(rng.uniform(np.log(3e-4), np.log(5e-3))))
    local = forward_field(truth, head.voxel_size, echoes.b0_direction, margin=24)
    local += noise * rng.standard_normal(local.shape, dtype=np.float32)
    beside = echoes.magnitude if rng.random() < 1 - GIVEN_WITHOUT_EDGES else None
    scan = partial(simulated_scan, "calibration", head, echoes, mask)
    scans = {
        "removed": scan(phase=echoes.phase, magnitude=echoes.magnitude),
        "given": scan(local_field=(local * mask).astype(np.float32), magnitude=beside),
    }
    samples = {kind: _sample(rng, scan, head, truth, network) for kind, scan in scans.items()}
    for kind, sample in samples.items() if faults else ():
        for name, wrong in FAULTS.items():
            sample.faulty[name] = statistics_of(_evidence(wrong(scans[kind]), network))
    return samples


def _evidence(scan: Scan, network: Network) -> Evidence:
    seen: list[Evidence] = []
    reconstruct(scan, network=network, on_evidence=seen.append)
    return seen[0]


def _sample(
    rng: np.random.Generator, scan: Scan, head: Head, truth: NDArray[np.float32], network: Network
) -> Sample:
    evidence = _evidence(scan, network)
    assert scan.mask is not None  # noqa: S101 - calibration heads have masks
    box = bounding_box(scan.mask, MARGIN)
    inside = evidence.mask
    # Bone that a poor mask took in has no χ that a map could be right about.
    judged = head.brain[box][inside]
    chi, true = evidence.chi[inside][judged], truth[box][inside][judged]
    errors = (chi - chi.mean() - (true - true.mean())) / np.float32(evidence.scale)
    few = rng.choice(errors.size, min(VOXELS, errors.size), replace=False)
    return Sample(features_of(evidence)[:, judged][:, few], errors[few], statistics_of(evidence))


def _write(path: Path, samples: dict[str, Sample]) -> None:
    stored: dict[str, Any] = {}
    for kind, sample in samples.items():
        stored[f"{kind}-features"] = sample.features.astype(np.float32)
        stored[f"{kind}-errors"] = sample.errors.astype(np.float32)
        stored[f"{kind}-statistics"] = np.array(json.dumps([sample.statistics, sample.faulty]))
    partial = path.with_suffix(".part.npz")
    np.savez_compressed(partial, **stored)
    partial.rename(path)


def _read(path: Path) -> dict[str, Sample]:
    with np.load(path) as stored:
        return {
            kind: Sample(
                stored[f"{kind}-features"],
                stored[f"{kind}-errors"],
                *json.loads(str(stored[f"{kind}-statistics"])),
            )
            for kind in KINDS
        }


def fit_errors(samples: Sequence[Sample]) -> ErrorModel:
    r"""Fit an error model by maximum likelihood of normal errors.

    .. math:: \min_w \sum \ln \sigma_w + e^2 / 2 \sigma_w^2

    so that σ is the root mean square of the error wherever it says so. The signs of the weights are held,
    so that the standard deviation grows with all that an error grows with.

    Parameters
    ----------
    samples : Sample

    Returns
    -------
    ErrorModel
    """
    features = np.concatenate([s.features for s in samples], axis=1).astype(np.float64)
    errors = np.clip(np.concatenate([s.errors for s in samples]), -LARGEST_ERROR, LARGEST_ERROR)
    design = np.concatenate([np.ones((1, features.shape[1])), features])

    def cost(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        line = np.clip(weights @ design, -12, 8)
        share = errors**2 * np.exp(-2 * line)
        return float((line + share / 2).mean()), design @ (1 - share) / errors.size

    start = np.zeros(len(design))
    start[0] = np.log(np.sqrt((errors**2).mean()) + 1e-6)
    bounds = [(None, None), *(BOUNDS.get(name, (0.0, None)) for name in FEATURES)]
    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds)
    intercept, *weights = (round(float(w), 4) for w in found.x)
    return ErrorModel(intercept, dict(zip(FEATURES, weights, strict=True)))


def judge(model: ErrorModel, samples: Sequence[Sample]) -> dict[str, Any]:
    """How well an error model tells the errors of heads.

    Parameters
    ----------
    model : ErrorModel
    samples : Sample
        Better of heads that it was not fitted to.

    Returns
    -------
    dict
        ``within_one``, ``within_two``: share of voxels whose error is within one and two σ. ``curve``:
        for tenths of the voxels by σ, the root mean squares of σ and of the error. ``heads``: for each
        head, the root mean square of error over σ. ``voxels``.
    """
    spread = np.concatenate([model.spread(s.features) for s in samples])
    errors = np.concatenate([s.errors for s in samples])
    order = np.array_split(np.argsort(spread), BINS)
    return {
        "voxels": int(errors.size),
        "within_one": float((np.abs(errors) <= spread).mean()),
        "within_two": float((np.abs(errors) <= 2 * spread).mean()),
        "curve": [
            [float(np.sqrt((values[part] ** 2).mean())) for values in (spread, errors)] for part in order
        ],
        "heads": [float(np.sqrt(((s.errors / model.spread(s.features)) ** 2).mean())) for s in samples],
    }


def ranges_of(samples: Sequence[Sample]) -> dict[str, tuple[float, float]]:
    """Lowest and highest of each statistic; of voxel sizes, those that the training draws from."""
    names = {name for s in samples for name in s.statistics}
    found = {}
    for name in sorted(names):
        values = [s.statistics[name] for s in samples if name in s.statistics]
        found[name] = (float(np.median(values)) if name in TRAILING else min(values), max(values))
    rng = np.random.default_rng(FIRST_CALIBRATION_SEED)
    sizes = np.log([voxel_to_learn_from(rng) for _ in range(DRAWS)])
    for name, drawn in (("finest_voxel", sizes.min(axis=1)), ("coarsest_voxel", sizes.max(axis=1))):
        low, high = found.get(name, (np.inf, -np.inf))
        found[name] = (min(low, float(drawn.min())), max(high, float(drawn.max())))
    return found


def false_alarms(samples: Sequence[Sample]) -> float:
    """Share of heads that would be called unlike the training, each judged by the ranges of the others."""
    alarms = 0
    for index, sample in enumerate(samples):
        others = [*samples[:index], *samples[index + 1 :]]
        alarms += bool(familiarity(sample.statistics, ranges_of(others)).strange)
    return alarms / len(samples)


def found_faults(samples: Sequence[Sample], ranges: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Share of the faulty scans, by fault, that are called unlike the training.

    Parameters
    ----------
    samples : Sample
        Some of them with faults.
    ranges : (lowest, highest) of each statistic

    Returns
    -------
    dict of float
        Without faults that none was tried with.
    """
    tried = [s.faulty for s in samples if s.faulty]
    return {
        fault: sum(bool(familiarity(faulty[fault], ranges).strange) for faulty in tried) / len(tried)
        for fault in FAULTS
        if tried
    }


def calibrate(samples: dict[str, list[Sample]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit everything that the pipeline needs, and judge it on heads that were kept from the fit.

    Parameters
    ----------
    samples : of :func:`collect`

    Returns
    -------
    calibration : JSON for ``reconstruction/calibration.json``, without the weights' digest
    record : JSON of how good it is
    """
    calibration: dict[str, Any] = {}
    record: dict[str, Any] = {}
    for kind, found in samples.items():
        fitted = [s for index, s in enumerate(found) if index % HELD_OUT]
        held_out = found[::HELD_OUT]
        model = fit_errors(fitted)
        ranges = ranges_of(found)
        calibration[kind] = {
            "intercept": model.intercept,
            "weights": dict(model.weights),
            "ranges": {name: [round(v, 4) for v in pair] for name, pair in ranges.items()},
        }
        record[kind] = {
            "heads_fitted": len(fitted),
            "heads_held_out": len(held_out),
            "held_out": judge(model, held_out),
            "fitted": judge(model, fitted),
            "false_alarms": false_alarms(found),
            "found_faults": found_faults(found, ranges),
            "tolerance": TOLERANCE,
        }
    return calibration, record
