"""How little error any method could leave: the best guess of one that knows the anatomy beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, lsmr

from qsm_ai.benchmark.known_head import KnownHead, known_head, known_mean
from qsm_ai.benchmark.scoring import Quality, assess
from qsm_ai.benchmark.simulated_scan import simulated_scan
from qsm_ai.network.geometry import Triple, Volume, low_pass
from qsm_ai.network.simulation import simulate_echoes
from qsm_ai.physics.dipole import dipole_kernel, forward_field
from qsm_ai.physics.fourier import bounding_box, fast_shape, frequencies, irfftn, rfftn
from qsm_ai.physics.referencing import reference
from qsm_ai.reconstruction.network import Network
from qsm_ai.reconstruction.options import Options
from qsm_ai.reconstruction.pipeline import reconstruct

FIRST_LIMIT_SEED = 980_000
"""Heads from here on are those that the limit is reckoned on."""

B0 = (0.0, 0.0, 1.0)

OUTER_SPREAD = 3.0
"""ppm; of the sources outside the brain, about which nothing else is known."""

MARGIN_MM = 16.0
"""Room for sources outside."""

ITERATIONS, TOLERANCE = 2000, 1e-7


@dataclass(frozen=True)
class Found:
    """One way to a map, and what came of it.

    Attributes
    ----------
    seed : int
        Of the head.
    start : "phase" or "local field"
        The second with the noise of the first, and the magnitude.
    way : "qsm-vit" or "known anatomy"
    quality : Quality
    """

    seed: int
    start: str
    way: str
    quality: Quality

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


class _Unknowns:
    r"""The field of all that is not known of a head, as an operator on unknowns of unit variance.

    .. math:: A x = \frac{1}{\sigma} M d * \Big( \sum_v w_v s_v \, c_v * x_v + (1 - M) s_o x_o \Big)

    with the share :math:`w_v`, the spread :math:`s_v` and the low pass :math:`c_v` of each variation (a
    number instead of a volume for one that is the same everywhere), and white sources :math:`x_o` outside.
    """

    def __init__(self, known: KnownHead, deviation: Volume, background_known: bool) -> None:
        brain, voxel_size = known.head.brain, known.head.voxel_size
        self.box = bounding_box(brain)
        margins = [round(MARGIN_MM / h) for h in voxel_size]
        inner = brain[self.box]
        self.shape = fast_shape(inner.shape, tuple(2 * m for m in margins))
        self.place = tuple(slice(m, m + n) for m, n in zip(margins, inner.shape, strict=True))
        self._kernel = dipole_kernel(self.shape, voxel_size, B0)
        self._precision = np.zeros(inner.shape, np.float32)
        told = inner & (deviation[self.box] > 0)
        self._precision[told] = 1 / deviation[self.box][told]
        wave = np.sqrt(np.asarray(sum(k**2 for k in frequencies(self.shape, voxel_size))))
        self._shares = [v.share[self.box] * np.float32(v.spread) for v in known.variations]
        self._passes = [self._low_pass(wave, v.wavelength) for v in known.variations]
        outside = np.full(self.shape, 0 if background_known else OUTER_SPREAD, np.float32)
        outside[self.place][inner] = 0
        self._outside = outside
        self.sizes = [1 if p is None else outside.size for p in self._passes] + [outside.size]

    def operator(self) -> LinearOperator:
        """From all unknowns in a row to the field over its standard deviation, in the brain's box."""
        size = self._precision.size
        return LinearOperator((size, sum(self.sizes)), self._field, self._adjoint, dtype=np.float64)

    def told(self, field: Volume) -> Volume:
        """A field (X, Y, Z), ppm, over its standard deviation, in a row."""
        return (field[self.box] * self._precision).ravel()

    def chi(self, unknowns: Volume) -> Volume:
        """Susceptibility in the brain's box, ppm."""
        return self._chi(self._apart(unknowns)[:-1])

    def _field(self, unknowns: Volume) -> Volume:
        *varied, outer = self._apart(unknowns)
        sources = self._outside * outer
        sources[self.place] += self._chi(varied)
        return (self._filtered(sources, self._kernel)[self.place] * self._precision).ravel()

    def _chi(self, varied: list[Volume]) -> Volume:
        made = np.zeros(self._precision.shape, np.float32)
        for share, response, part in zip(self._shares, self._passes, varied, strict=True):
            made += share * (part[0] if response is None else self._filtered(part, response)[self.place])
        return made

    def _adjoint(self, residual: Volume) -> Volume:
        told = residual.reshape(self._precision.shape).astype(np.float32)
        sources = self._filtered(self._laid(told * self._precision), self._kernel)
        parts = []
        for share, response in zip(self._shares, self._passes, strict=True):
            felt = sources[self.place] * share
            parts.append(
                np.array([felt.sum()])
                if response is None
                else self._filtered(self._laid(felt), response).ravel()
            )
        return np.concatenate([*parts, (sources * self._outside).ravel()]).astype(np.float32)

    def _apart(self, unknowns: Volume) -> list[Volume]:
        parts = np.split(unknowns.ravel().astype(np.float32), np.cumsum(self.sizes)[:-1])
        return [part if part.size == 1 else part.reshape(self.shape) for part in parts]

    def _laid(self, volume: Volume) -> Volume:
        laid = np.zeros(self.shape, np.float32)
        laid[self.place] = volume
        return laid

    def _filtered(self, volume: Volume, response: Volume) -> Volume:
        filtered: Volume = irfftn(rfftn(volume) * response, self.shape)
        return filtered

    def _low_pass(self, wave: Volume, wavelength: float) -> Volume | None:
        """Response that makes of white noise of unit variance a field of unit variance."""
        if np.isinf(wavelength):
            return None
        response = low_pass(wave, wavelength).astype(np.float32)
        of_an_impulse: Volume = irfftn(response.astype(np.complex64), self.shape)
        scaled: Volume = response / np.linalg.norm(of_an_impulse)
        return scaled


def best_guess(
    known: KnownHead,
    field: Volume,
    deviation: Volume,
    *,
    background_known: bool,
    iterations: int = ITERATIONS,
) -> Volume:
    r"""The mean of all maps that a field leaves possible, of a head of which all but its variations is known.

    .. math:: \hat\chi = \mathrm{E}[\chi \mid f], \quad f = d * (\chi + \xi) + n

    where χ is what is expected and an outcome of each variation, ξ the sources outside, white with 3 ppm, or
    none where the background is known, and n noise. All are Gaussian, so that it is a least-squares problem;
    on average no method errs less, whatever it is, that does not know more beforehand.

    Parameters
    ----------
    known : KnownHead
    field : (X, Y, Z) float32, ppm
        Total or local: what sources outside have left of it, or all, is reckoned with.
    deviation : (X, Y, Z) float32, ppm
        Standard deviation of n; zero where the field tells nothing.
    background_known : bool
        Whether all of the field comes from the brain.
    iterations : int
        At most.

    Returns
    -------
    (X, Y, Z) float32, ppm
        Zero outside the brain.

    References
    ----------
    Fong and Saunders 2011, 10.1137/10079687X (LSMR).
    """
    head = known.head
    expected = known_mean(known)
    unknowns = _Unknowns(known, deviation, background_known)
    unexplained = field - forward_field(expected, head.voxel_size, B0)
    found = lsmr(
        unknowns.operator(),
        unknowns.told(unexplained).astype(np.float64),  # whose condition numbers float32 cannot hold
        damp=1.0,
        atol=TOLERANCE,
        btol=TOLERANCE,
        conlim=0,
        maxiter=iterations,
    )[0]
    chi = expected.copy()
    chi[unknowns.box] += unknowns.chi(found)
    return chi * head.brain


def measure(
    seed: int,
    voxel_size: Triple,
    network: Network,
    snr: float = 100.0,
    iterations: int = ITERATIONS,
    tell: Callable[[Found], None] = lambda found: None,
) -> list[Found]:
    """Scan a known head, and let the pipeline and the best guess find its map.

    Parameters
    ----------
    seed : int
        Of the head, added to ``FIRST_LIMIT_SEED``.
    voxel_size : mm
    network : Network
    snr : float
        See :func:`network.simulation.simulate_echoes`; four echoes at 3 T.
    iterations : int
        Of the best guess, at most.
    tell : callable
        Given each result as soon as it is there.

    Returns
    -------
    list of Found
        From phase by the pipeline and with known anatomy, then both from the local field.
    """
    rng = np.random.default_rng(FIRST_LIMIT_SEED + seed)
    known = known_head(rng, voxel_size)
    head = known.head
    echoes = simulate_echoes(rng, head, b0_direction=B0, snr=snr)
    truth = reference(head.chi, head.brain)
    scan = partial(simulated_scan, f"known head {seed}", head, echoes, head.brain)
    results: list[Found] = []

    def judge(start: str, way: str, chi: Volume) -> None:
        results.append(Found(seed, start, way, assess(chi, truth, head.brain)))
        tell(results[-1])

    made = reconstruct(scan(phase=echoes.phase, magnitude=echoes.magnitude), Options(), network)
    judge("phase", "qsm-vit", made.chi)
    local: Volume = made.artefacts["local_field"]
    deviation = made.artefacts["field_error"] * (local != 0)
    guess = partial(best_guess, known, deviation=deviation, iterations=iterations)
    judge("phase", "known anatomy", guess(local, background_known=False))
    noise = deviation * rng.standard_normal(truth.shape, dtype=np.float32)
    given = (forward_field(truth, voxel_size, B0) + noise) * head.brain
    made = reconstruct(scan(local_field=given, magnitude=echoes.magnitude), Options(), network)
    judge("local field", "qsm-vit", made.chi)
    judge("local field", "known anatomy", guess(given, background_known=True))
    return results
