"""The report beside a map: every parameter, where it came from, how long it took, how good it is."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from qsm_ai import __version__
from qsm_ai.io.methods import methods_paragraph
from qsm_ai.reconstruction.pipeline import Reconstruction
from qsm_ai.reconstruction.stages import ARTEFACTS, STAGES
from qsm_ai.scan import Scan

SCORE_MEANINGS = {
    "physics_check": "share of the local field's energy in the mask that the map explains; 1 is all",
    "residual_rms_ppm": "root mean square of the field that the map does not explain, ppm",
    "residual_relative": "root mean square of that residual over that of the local field",
    "residual_chi_square": "median squared residual over its noise; 1 says that only noise is left",
    "consistency_weight": "weight of the network's map against the measured field, set by its noise",
    "unfamiliarity": "how far the scan lies from those of the training; up to 1 it is like them",
}
PACKAGES = ("numpy", "scipy", "nibabel", "openvino", "tritonclient")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScanReport(_Frozen):
    """The scan as it was understood."""

    shape: tuple[int, int, int] = Field(description="voxels")
    voxel_size_mm: tuple[float, float, float]
    b0_direction: tuple[float, float, float] = Field(description="unit vector in voxel axes")
    field_strength_t: float
    echo_times_s: tuple[float, ...]
    starts_from: Literal["phase", "total_field", "local_field"]
    phase_rule: str = Field(description="how the stored phase became radians")
    magnitude: bool
    mask: Literal["given", "made"]
    sources: dict[str, str] = Field(description="where each parameter came from")


class StageReport(_Frozen):
    """A stage that ran."""

    name: str
    title: str
    seconds: float


class ArtefactReport(_Frozen):
    """A file that was written."""

    file: str
    title: str
    unit: str
    window: tuple[float, float] = Field(description="display range, in the unit")


class ScoreReport(_Frozen):
    """A number and its meaning."""

    value: float
    meaning: str


class CitationReport(_Frozen):
    """A source named in the methods paragraph."""

    number: int
    text: str
    doi: str


class Report(_Frozen):
    """Content of ``<name>_qsm.json``."""

    format: Literal["qsm-ai report 1"] = "qsm-ai report 1"
    notice: str = "Research use only; not a medical device."
    name: str
    versions: dict[str, str]
    scan: ScanReport
    options: dict[str, str]
    network: str | None = Field(description="model, version and where it ran")
    stages: tuple[StageReport, ...]
    timings_s: dict[str, float] = Field(description="by stage, with reading and writing of files")
    total_s: float
    scores: dict[str, ScoreReport]
    warnings: tuple[str, ...]
    artefacts: dict[str, ArtefactReport]
    methods: str = Field(description="a paragraph for a methods section")
    citations: tuple[CitationReport, ...]


def make_report(
    scan: Scan, reconstruction: Reconstruction, file_timings: Mapping[str, float] | None = None
) -> Report:
    """Everything worth knowing about a reconstruction.

    Parameters
    ----------
    scan : Scan
    reconstruction : Reconstruction
    file_timings : dict
        Seconds of what happened around the stages, such as ``{"reading": 0.8}``.

    Returns
    -------
    Report
    """
    paragraph, citations = methods_paragraph(scan, reconstruction.options, reconstruction.network)
    titles = {stage.name: stage.title for stage in STAGES}
    timings = {**(file_timings or {}), **reconstruction.timings}
    if scan.phase is not None:
        start: Literal["phase", "total_field", "local_field"] = "phase"
    else:
        start = "total_field" if scan.total_field is not None else "local_field"
    x, y, z = (round(v, 6) for v in scan.grid.voxel_size)
    return Report(
        name=scan.name,
        versions=_versions(),
        scan=ScanReport(
            shape=scan.grid.shape,
            voxel_size_mm=(x, y, z),
            b0_direction=scan.b0_direction,
            field_strength_t=scan.field_strength,
            echo_times_s=scan.echo_times,
            starts_from=start,
            phase_rule=scan.phase_rule,
            magnitude=scan.magnitude is not None,
            mask="given" if scan.mask is not None else "made",
            sources=dict(scan.sources),
        ),
        options=reconstruction.options.as_dict(),
        network=reconstruction.network,
        stages=tuple(
            StageReport(name=name, title=titles[name], seconds=round(seconds, 3))
            for name, seconds in reconstruction.timings.items()
        ),
        timings_s={name: round(seconds, 3) for name, seconds in timings.items()},
        total_s=round(sum(timings.values()), 3),
        scores={
            name: ScoreReport(value=value, meaning=SCORE_MEANINGS[name])
            for name, value in reconstruction.scores.items()
        },
        warnings=reconstruction.warnings,
        artefacts={
            name: ArtefactReport(
                file=f"{scan.name}_{artefact.suffix}.nii.gz",
                title=artefact.title,
                unit=artefact.unit,
                window=artefact.window,
            )
            for name, artefact in ARTEFACTS.items()
            if name in reconstruction.artefacts
        },
        methods=paragraph,
        citations=tuple(
            CitationReport(number=i, text=c.text, doi=c.doi) for i, c in enumerate(citations, start=1)
        ),
    )


def _versions() -> dict[str, str]:
    found = {"qsm-ai": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
