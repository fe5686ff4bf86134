"""From a scan to a susceptibility map, stage by stage as the table says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsm_ai.physics.edges import Edges, magnitude_edges
from qsm_ai.physics.field_mapping import fit_field, reliable
from qsm_ai.physics.fourier import bounding_box
from qsm_ai.physics.inversion import Inverter, tikhonov, tkd
from qsm_ai.physics.laplacian_unwrapping import unwrap_laplacian
from qsm_ai.physics.masking import brain_mask
from qsm_ai.physics.r2star import r2star
from qsm_ai.physics.referencing import csf_region, reference
from qsm_ai.physics.total_variation import total_variation, variation
from qsm_ai.physics.unwrapping import in_step, unwrap_echoes
from qsm_ai.reconstruction.calibration import shipped_calibration
from qsm_ai.reconstruction.consistency import consistency_weight, hold_to_field, rim_trust
from qsm_ai.reconstruction.evidence import Evidence
from qsm_ai.reconstruction.inputs import NetworkInputs, network_inputs
from qsm_ai.reconstruction.local_field import BackgroundRemoval
from qsm_ai.reconstruction.network import Network
from qsm_ai.reconstruction.options import Options
from qsm_ai.reconstruction.out_of_distribution import familiarity, statistics_of
from qsm_ai.reconstruction.patches import plan_patches
from qsm_ai.reconstruction.prediction import predict_map
from qsm_ai.reconstruction.quality import physics_check
from qsm_ai.reconstruction.stages import ARTEFACTS, STAGES, Stage
from qsm_ai.reconstruction.uncertainty import chi_uncertainty
from qsm_ai.scan import MaskRefusal, Scan

Volume = NDArray[np.float32]

MARGIN = 4
"""Voxels kept around the mask."""

PASSES = 3
"""Of the network, each on a local field that knows the map of the one before."""

LAST_ITERATIONS = 80
"""Of the search for outer sources that knows the network's last map."""

DEAREST_WITHIN = 1.04
"""Total variation of a map of sources in the mask alone over that of one of sources anywhere. Simulated
fields had up to 1.013 where little or no background was left, from 1.077 where the mask lacked the rim."""

SMALLEST_BRAIN = 100
"""Voxels of a mask that was found, not given."""


@dataclass(frozen=True)
class Progress:
    """How far a reconstruction is.

    Attributes
    ----------
    stage, title : str
        From the table of stages.
    fraction : 0 to 1, of the whole, never falling
    stage_fraction : 0 to 1, of the stage
    detail : str
        Such as "patch 3 of 8"; often empty.
    """

    stage: str
    title: str
    fraction: float
    stage_fraction: float
    detail: str = ""


OnProgress = Callable[[Progress], None]
OnEvidence = Callable[[Evidence], None]


@dataclass(frozen=True)
class Reconstruction:
    """A susceptibility map and everything made on the way to it.

    Attributes
    ----------
    artefacts : dict of (X, Y, Z) arrays on the scan's grid
        Keys of ``stages.ARTEFACTS``; float32, the mask bool.
    timings : dict
        Seconds for each stage that ran, in order.
    scores : dict
        Of the physics check, the weight of the consistency, and how unfamiliar the scan is.
    options : Options
    network : str or None
        Model, version and where it ran.
    warnings : sentences for the user
    """

    artefacts: dict[str, NDArray[Any]]
    timings: dict[str, float]
    scores: dict[str, float]
    options: Options
    network: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def chi(self) -> Volume:
        """The susceptibility map, ppm."""
        return self.artefacts["chi"]


def planned_stages(scan: Scan, options: Options) -> tuple[Stage, ...]:
    """The stages of the table that this scan and these options need, in order."""
    skipped: set[str] = set()
    if scan.phase is None:
        skipped.add("field_mapping")
    if scan.local_field is not None:
        skipped.add("background")
    if options.method != "qsm-vit":
        skipped |= {"network", "consistency", "uncertainty"}
    return tuple(stage for stage in STAGES if stage.name not in skipped)


def reconstruct(
    scan: Scan,
    options: Options | None = None,
    network: Network | None = None,
    on_progress: OnProgress | None = None,
    on_evidence: OnEvidence | None = None,
) -> Reconstruction:
    """Reconstruct a susceptibility map.

    Parameters
    ----------
    scan : Scan
    options : Options
    network : Network
        Needed for the method "qsm-vit".
    on_progress : callable
        Told about every stage and patch. An exception that it raises ends the reconstruction and reaches
        the caller: that is how to cancel.
    on_evidence : callable
        Given what the map is judged by, where a network made it: that is how a calibration learns.

    Returns
    -------
    Reconstruction

    Raises
    ------
    MaskRefusal
        If no mask was given and no brain was found.
    ValueError
        If the method needs a network and none was given.
    """
    options = options or Options()
    if options.method == "qsm-vit" and network is None:
        raise ValueError("the method qsm-vit needs a network")
    reporter = _Reporter(planned_stages(scan, options), on_progress)
    work = _Work(scan, options, network, reporter, on_evidence=on_evidence)
    timings: dict[str, float] = {}
    for stage in work.reporter.stages:
        started = time.perf_counter()
        work.reporter.begin(stage)
        STEPS[stage.name](work)
        timings[stage.name] = time.perf_counter() - started
    work.reporter.finish()
    return Reconstruction(
        artefacts={name: work.full(name) for name in ARTEFACTS if name in work.volumes},
        timings=timings,
        scores=work.scores,
        options=work.options,
        network=network.name if network is not None and options.method == "qsm-vit" else None,
        warnings=tuple(work.warnings),
    )


class _Reporter:
    """Turns steps within stages into progress of the whole."""

    def __init__(self, stages: Sequence[Stage], tell: OnProgress | None) -> None:
        self.stages = stages
        self._tell = tell
        self._total = sum(stage.share for stage in stages)
        self._before = 0.0
        self._stage = stages[0]

    def begin(self, stage: Stage) -> None:
        done = self.stages[: list(self.stages).index(stage)]
        self._before = sum(s.share for s in done)
        self._stage = stage
        self.step(0.0)

    def step(self, fraction: float, detail: str = "") -> None:
        if self._tell is not None:
            whole = (self._before + fraction * self._stage.share) / self._total
            self._tell(Progress(self._stage.name, self._stage.title, min(whole, 1.0), fraction, detail))

    def finish(self) -> None:
        if self._tell is not None:
            self._tell(Progress(self._stage.name, self._stage.title, 1.0, 1.0))


@dataclass
class _Work:
    """What passes from stage to stage. Volumes are cropped to the mask and a margin."""

    scan: Scan
    options: Options
    network: Network | None
    reporter: _Reporter
    volumes: dict[str, NDArray[Any]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    box: tuple[slice, slice, slice] = (slice(None),) * 3

    valid: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=bool))
    """Where the local field is known: the mask, or less where the background removal takes its rim."""

    removal: BackgroundRemoval | None = None
    """Where the background can be sought again, knowing a map; V-SHARP cannot use one."""

    edges: Edges | None = None
    """Of the magnitude, where there is one: places where the map may step."""

    within: bool = False
    """Whether the mask holds all sources of the local field."""

    inverter: Inverter | None = None
    inputs: NetworkInputs | None = None
    scale: float = 1.0
    noise: float = 0.0
    prior: Volume | None = None
    correction: Volume | None = None
    on_evidence: OnEvidence | None = None

    @property
    def geometry(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Voxel size and direction of B0."""
        return self.scan.grid.voxel_size, self.scan.b0_direction

    def crop(self, volumes: NDArray[Any]) -> NDArray[Any]:
        """The box of the mask, of one volume or of a series."""
        return np.ascontiguousarray(volumes[(..., *self.box)])

    def full(self, name: str) -> NDArray[Any]:
        """A cropped volume back on the scan's grid."""
        cropped = self.volumes[name]
        volume = np.zeros(self.scan.grid.shape, dtype=cropped.dtype)
        volume[self.box] = cropped
        return volume


def _mask(work: _Work) -> None:
    scan = work.scan
    mask = scan.mask
    if mask is None:
        if scan.phase is None:
            raise MaskRefusal("A field without a mask cannot be reconstructed.", mend="Give the mask.")
        mask = brain_mask(scan.magnitude, scan.phase, scan.echo_times, scan.grid.voxel_size)
        if np.count_nonzero(mask) < SMALLEST_BRAIN:
            raise MaskRefusal(
                "No brain could be found in the images.", mend="Give a mask of the brain with --mask."
            )
    work.box = bounding_box(mask, MARGIN)
    work.valid = work.volumes["mask"] = work.crop(mask)


def _field_mapping(work: _Work) -> None:
    scan = work.scan
    assert scan.phase is not None  # noqa: S101 - planned_stages leaves this stage out otherwise
    mask = work.volumes["mask"]
    phase = work.crop(scan.phase)
    magnitude = None if scan.magnitude is None else work.crop(scan.magnitude)
    if magnitude is None:
        work.warnings.append("No magnitude was given: all echoes weigh the same, and there is no R2* map.")
    if len(scan.echo_times) == 1:
        work.warnings.append("With a single echo the phase offset of the coils stays in the field.")
    if work.options.unwrapping == "laplacian":
        each = unwrap_laplacian(phase, scan.grid.voxel_size)
        unwrapped = in_step(each, magnitude, mask, scan.echo_times)
    else:
        unwrapped = unwrap_echoes(phase, magnitude, mask, scan.echo_times)
    work.reporter.step(0.6)
    fitted = fit_field(unwrapped, magnitude, mask, scan.echo_times, scan.field_strength, scan.grid.voxel_size)
    work.volumes["total_field"] = fitted.total_field
    work.volumes["field_error"] = fitted.standard_error
    if magnitude is not None and len(scan.echo_times) > 1:
        work.reporter.step(0.9)
        work.volumes["r2star"] = r2star(magnitude, mask, scan.echo_times)


def _background(work: _Work) -> None:
    if "total_field" not in work.volumes:
        work.volumes["total_field"] = work.crop(work.scan.total_field) * work.volumes["mask"]  # type: ignore[arg-type]
    total, mask = work.volumes["total_field"], work.volumes["mask"]
    voxel_size, _ = work.geometry
    if "field_error" in work.volumes:
        mask = work.valid = reliable(work.volumes["field_error"], mask)
    if work.options.background == "v-sharp":
        from qsm_ai.physics.v_sharp import v_sharp

        try:
            work.volumes["local_field"], work.valid = v_sharp(total, mask, voxel_size)
        except ValueError as error:
            raise MaskRefusal(
                f"V-SHARP cannot remove the background: {error}.",
                mend="Choose another removal of the background (pdf keeps the whole mask), or a larger mask.",
            ) from error
    else:
        method: Literal["pdf", "lbv"] = "lbv" if work.options.background == "lbv" else "pdf"
        work.removal = BackgroundRemoval(total, work.volumes["mask"], mask, *work.geometry, method=method)
        work.volumes["local_field"] = work.removal.local_field()


def _inversion(work: _Work) -> None:
    if "local_field" not in work.volumes:
        work.volumes["local_field"] = work.crop(work.scan.local_field) * work.volumes["mask"]  # type: ignore[arg-type]
    local, mask = work.volumes["local_field"], work.valid
    voxel_size, b0_direction = work.geometry
    method = work.options.method
    if method == "qsm-vit":
        if work.scan.magnitude is not None:
            sought = work.volumes["mask"]
            work.edges = magnitude_edges(work.crop(work.scan.magnitude), sought, voxel_size)
        _prepare(work)
        if work.scan.local_field is not None and work.edges is not None:
            work.reporter.step(0.5, "once more, with no source outside the mask")
            _confine(work)
        if work.removal is not None:
            assert work.inputs is not None  # noqa: S101 - just made
            work.reporter.step(0.4, "once more, knowing a first map")
            _refine(work, work.inputs.first)
        return
    if method == "tkd":
        chi = tkd(local, mask, voxel_size, b0_direction)
    elif method == "tikhonov":
        chi = tikhonov(local, mask, voxel_size, b0_direction)
    else:
        chi = total_variation(local, mask, voxel_size, b0_direction)
    work.volumes["chi"] = _referenced(work, chi, mask)


def _prepare(work: _Work) -> None:
    """Classical maps and network inputs of the local field as it is now."""
    if work.inverter is None:
        work.inverter = Inverter(work.volumes["local_field"], *work.geometry)
    sought = work.valid if work.options.background == "v-sharp" else work.volumes["mask"]
    error = work.volumes.get("field_error")
    work.inputs = network_inputs(work.inverter, error, sought, work.valid, work.edges)
    work.scale, work.noise = work.inputs.scale, work.inputs.noise


def _confine(work: _Work) -> None:
    """Let all sources of a given field lie in the mask, unless that makes the map too restless."""
    assert work.inverter is not None  # noqa: S101 - the caller prepared
    assert work.inputs is not None  # noqa: S101
    mask = work.volumes["mask"]
    alone = partial(total_variation, outside_weight=np.inf)
    inputs = network_inputs(work.inverter, None, mask, work.valid, work.edges, alone)
    dear, cheap = (variation(i.first, mask, work.geometry[0], work.edges) for i in (inputs, work.inputs))
    work.within = dear <= DEAREST_WITHIN * cheap
    if work.within:
        work.inputs = inputs
    else:
        work.warnings.append(
            "Sources in the mask alone do not explain the local field: background is left in it, or the mask "
            "is smaller than the brain. A total field, or the mask of the whole brain, gives a better map."
        )


def _refine(work: _Work, chi: Volume) -> None:
    """Remove the background once more, knowing a map, and prepare anew."""
    _seek_background(work, chi)
    _prepare(work)


def _seek_background(work: _Work, chi: Volume, iterations: int = 40) -> None:
    """The local field once more, with the background sought on in what a map leaves unexplained."""
    assert work.removal is not None  # noqa: S101 - the caller's condition
    assert work.inverter is not None  # noqa: S101 - there is no map without one
    inner_field = work.inverter.forward(reference(chi, work.volumes["mask"], "mean"))
    work.volumes["local_field"] = work.removal.local_field(inner_field, iterations)
    work.inverter = Inverter(work.volumes["local_field"], *work.geometry)


def _network(work: _Work) -> None:
    passes = 1 if work.removal is None else PASSES
    for turn in range(passes):
        if work.prior is not None:
            _refine(work, work.prior)
        work.prior = _predict(work, turn, passes)


def _predict(work: _Work, turn: int, passes: int) -> Volume:
    """The network's map, ppm."""
    assert work.network is not None  # noqa: S101 - reconstruct() sees to it
    assert work.inputs is not None  # noqa: S101 - the stage before made them
    inputs = work.inputs
    plan = plan_patches(work.volumes["mask"])
    before, total = turn * len(plan), passes * len(plan)

    def on_patch(done: int) -> None:
        count = before + done
        work.reporter.step(count / total, f"patch {count} of {total}")

    on_patch(0)
    chi = predict_map(work.network, plan, inputs.channels, inputs.first, inputs.scale, work.valid, on_patch)
    work.correction = (chi - inputs.first) * work.volumes["mask"]
    work.inputs = None
    return chi


def _consistency(work: _Work) -> None:
    assert work.prior is not None  # noqa: S101 - the stage before made it
    assert work.inverter is not None  # noqa: S101
    mask = work.volumes["mask"]
    trust = work.valid.astype(np.float32)
    if work.removal is not None:
        _seek_background(work, work.prior, LAST_ITERATIONS)
        work.reporter.step(0.6)
        work.removal = None
        trust *= rim_trust(mask, work.scan.grid.voxel_size)
    work.scores["consistency_weight"] = consistency_weight(work.noise, work.scale)
    chi = hold_to_field(
        work.inverter, work.prior, mask, trust, work.noise, work.scale, work.edges, within=work.within
    )
    work.volumes["chi"] = _referenced(work, chi, mask)
    work.prior = work.inverter = work.edges = None


def _referenced(work: _Work, chi: Volume, mask: NDArray[np.bool_]) -> Volume:
    """The map relative to the reference that was asked for, or to the mean where there is no fluid."""
    fluid = None
    if work.options.reference == "csf":
        rate = work.volumes.get("r2star")
        fluid = None if rate is None else csf_region(rate, mask, work.scan.grid.voxel_size)
        if fluid is None:
            why = "there is no R2* map to find it by" if rate is None else "none was found in the ventricles"
            work.warnings.append(
                f"The map is not relative to cerebrospinal fluid: {why}. Zero is the mean of the mask."
            )
            work.options = replace(work.options, reference="mean")
    return reference(chi, mask, work.options.reference, fluid)


def _physics_check(work: _Work) -> None:
    check = physics_check(
        work.volumes["chi"],
        work.volumes["local_field"],
        work.valid,
        *work.geometry,
        work.volumes.get("field_error"),
    )
    work.volumes["residual"] = check.residual
    work.scores.update(check.scores)
    work.warnings.extend(check.warnings)


def _uncertainty(work: _Work) -> None:
    assert work.correction is not None  # noqa: S101 - planned_stages leaves this stage out otherwise
    assert work.network is not None  # noqa: S101
    evidence = Evidence(
        chi=work.volumes["chi"],
        correction=work.correction,
        local_field=work.volumes["local_field"],
        residual=work.volumes["residual"],
        mask=work.volumes["mask"],
        known=work.valid,
        voxel_size=work.scan.grid.voxel_size,
        b0_direction=work.scan.b0_direction,
        field_strength=work.scan.field_strength,
        noise=work.noise,
        scale=work.scale,
        background_removed=work.scan.local_field is None,
    )
    if work.on_evidence is not None:
        work.on_evidence(evidence)
    calibration = shipped_calibration()
    model = calibration.model(evidence.background_removed)
    work.volumes["chi_uncertainty"] = chi_uncertainty(evidence, model)
    known = familiarity(statistics_of(evidence), calibration.ranges_of(evidence.background_removed))
    work.scores["unfamiliarity"] = known.score
    work.warnings.extend(known.warnings)
    if not calibration.fits(work.network.name):
        work.warnings.append(
            "The standard deviation was calibrated for other weights of the network: "
            "run `qsm-ai benchmark calibrate` for these."
        )
    work.correction = None


STEPS: dict[str, Callable[[_Work], None]] = {
    "mask": _mask,
    "field_mapping": _field_mapping,
    "background": _background,
    "inversion": _inversion,
    "network": _network,
    "consistency": _consistency,
    "physics_check": _physics_check,
    "uncertainty": _uncertainty,
}
"""How each stage of the table is done."""
