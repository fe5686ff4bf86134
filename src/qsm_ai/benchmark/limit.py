"""How little error any method could leave: the best guess of one that knows the anatomy beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, lsmr

from qsm_ai.benchmark.known_head import KnownHead, known_head, known_mean
from qsm_ai.benchmark.scoring import Quality, assess
from qsm_ai.network.geometry import Triple, Volume
from qsm_ai.network.simulation import simulate_echoes
from qsm_ai.physics.dipole import dipole_kernel, forward_field
from qsm_ai.physics.fourier import bounding_box, fast_shape, frequencies, irfftn, rfftn
from qsm_ai.reconstruction.network import Network
from qsm_ai.reconstruction.options import Options
from qsm_ai.reconstruction.pipeline import reconstruct
from qsm_ai.scan import Grid, Scan

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
        made = np.zeros(self._precision.shape, np.float32)
        for share, low_pass, part in zip(self._shares, self._passes, self._apart(unknowns), strict=False):
            made += share * (part[0] if low_pass is None else self._filtered(part, low_pass)[self.place])
        return made

    def _field(self, unknowns: Volume) -> Volume:
        sources = self._outside * list(self._apart(unknowns))[-1]
        sources[self.place] += self.chi(unknowns)
        return (self._filtered(sources, self._kernel)[self.place] * self._precision).ravel()

    def _adjoint(self, residual: Volume) -> Volume:
        told = residual.reshape(self._precision.shape).astype(np.float32)
        sources = self._filtered(self._laid(told * self._precision), self._kernel)
        parts = []
        for share, low_pass in zip(self._shares, self._passes, strict=True):
            felt = sources[self.place] * share
            parts.append(
                np.array([felt.sum()])
                if low_pass is None
                else self._filtered(self._laid(felt), low_pass).ravel()
            )
        return np.concatenate([*parts, (sources * self._outside).ravel()]).astype(np.float32)

    def _apart(self, unknowns: Volume) -> Iterator[Volume]:
        ends = np.cumsum(self.sizes)
        for part, size in zip(
            np.split(unknowns.ravel().astype(np.float32), ends[:-1]), self.sizes, strict=True
        ):
            yield part if size == 1 else part.reshape(self.shape)

    def _laid(self, volume: Volume) -> Volume:
        laid = np.zeros(self.shape, np.float32)
        laid[self.place] = volume
        return laid

    def _filtered(self, volume: Volume, response: Volume) -> Volume:
        filtered: Volume = irfftn(rfftn(volume) * response, self.shape)
        return filtered

    def _low_pass(self, wave: Volume, wavelength: float) -> Volume | None:
        """Response that makes white noise what :meth:`network.geometry.Noise.field` draws."""
        if np.isinf(wavelength):
            return None
        response = np.exp(-(wave**2) * np.float32(wavelength**2 / 2))
        response[0, 0, 0] = 0
        # Of a real volume's half spectrum, all but the first plane and perhaps the last stand for two.
        twice = np.full(response.shape[2], 2.0)
        twice[0] = 1
        if self.shape[2] % 2 == 0:
            twice[-1] = 1
        power = float((response.astype(np.float64) ** 2 * twice).sum()) / np.prod(self.shape)
        scaled: Volume = (response / np.sqrt(power)).astype(np.float32)
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
    truth = np.where(head.brain, head.chi - head.chi[head.brain].mean(), 0).astype(np.float32)
    x, y, z = truth.shape
    grid = Grid((x, y, z), np.diag([*voxel_size, 1.0]))
    results: list[Found] = []

    def judge(start: str, way: str, chi: Volume) -> None:
        results.append(Found(seed, start, way, assess(chi, truth, head.brain)))
        tell(results[-1])

    scan = Scan(
        name=f"known head {seed}",
        grid=grid,
        b0_direction=B0,
        field_strength=echoes.field_strength,
        phase=echoes.phase,
        magnitude=echoes.magnitude,
        echo_times=echoes.echo_times,
        mask=head.brain,
    )
    made = reconstruct(scan, Options(), network)
    judge("phase", "qsm-vit", made.chi)
    local: NDArray[np.float32] = made.artefacts["local_field"]
    deviation = made.artefacts["field_error"] * (local != 0)
    guess = partial(best_guess, known, deviation=deviation, iterations=iterations)
    judge("phase", "known anatomy", guess(local, background_known=False))
    noise = deviation * rng.standard_normal(truth.shape, dtype=np.float32)
    given = (forward_field(truth, voxel_size, B0) + noise) * head.brain
    scan = Scan(
        name=scan.name,
        grid=grid,
        b0_direction=B0,
        field_strength=scan.field_strength,
        magnitude=scan.magnitude,
        local_field=given,
        mask=head.brain,
    )
    judge("local field", "qsm-vit", reconstruct(scan, Options(), network).chi)
    judge("local field", "known anatomy", guess(given, background_known=True))
    return results
