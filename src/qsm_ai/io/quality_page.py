"""The quality page: a report for people, one HTML file that needs nothing beside it and asks nobody."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from numpy.typing import NDArray

from qsm_ai.io.report import Report, ScanReport
from qsm_ai.reconstruction.stages import ARTEFACTS

PICTURED: Mapping[str, str] = {
    "chi": "dark is diamagnetic (calcification, myelin), bright is paramagnetic (iron, venous blood).",
    "chi_uncertainty": "where it is bright the map may be wrong by as much.",
    "residual": "anatomy in it, or a bright rim, says where the map does not fit what was measured.",
    "local_field": "what the map was made from. Broad shades near the rim are background that was left.",
}
"""Artefacts that are shown, and what to look for."""


@dataclass(frozen=True)
class Picture:
    """A picture on the page.

    Attributes
    ----------
    title, unit : str
    words : str
        What to look for.
    png : str
        Base64.
    """

    title: str
    unit: str
    words: str
    png: str


@dataclass(frozen=True)
class Row:
    """What is known of a scan, and where from."""

    name: str
    value: str
    source: str = ""


def quality_page(
    report: Report,
    pictures: Mapping[str, bytes],
    chi: NDArray[np.float32],
    mask: NDArray[np.bool_],
) -> str:
    """The page of one reconstruction.

    Parameters
    ----------
    report : Report
    pictures : PNG by artefact
        Of those of ``PICTURED`` that were made.
    chi : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool

    Returns
    -------
    str
        HTML; whatever came from outside is escaped.
    """
    shown = [
        Picture(ARTEFACTS[name].title, ARTEFACTS[name].unit, words, b64encode(pictures[name]).decode())
        for name, words in PICTURED.items()
        if name in pictures
    ]
    return _template().render(
        report=report,
        pictures=shown,
        distribution=_distribution(chi[mask]),
        scan=_rows(report.scan),
    )


def amount(value: float) -> str:
    """A number with three significant digits, never in powers of ten."""
    if not np.isfinite(value):
        return "unknown"
    digits = 0 if value == 0 else max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:.{digits}f}"


def _distribution(values: NDArray[np.float32]) -> dict[str, str]:
    if not values.size:
        return {}
    low, median, high = np.percentile(values, [5, 50, 95])
    numbers = {
        "Mean": values.mean(),
        "Standard deviation": values.std(),
        "Median": median,
        "5th percentile": low,
        "95th percentile": high,
    }
    # Adding zero takes the sign off a mean that is none.
    told = {name: f"{round(float(number), 4) + 0.0:.4f} ppm" for name, number in numbers.items()}
    return {**told, "Voxels": f"{values.size:,}"}


def _rows(scan: ScanReport) -> list[Row]:
    times = ", ".join(f"{1000 * t:g}" for t in scan.echo_times_s)
    rows = [
        Row("Grid", " × ".join(map(str, scan.shape)) + " voxels"),
        Row("Voxel size", " × ".join(f"{h:g}" for h in scan.voxel_size_mm) + " mm"),
        Row(
            "Direction of B0 in voxel axes",
            ", ".join(f"{b:.3f}" for b in scan.b0_direction),
            scan.sources.get("b0_direction", ""),
        ),
        Row("Field strength", f"{scan.field_strength_t:g} T", scan.sources.get("field_strength", "")),
        Row("Echo times", f"{times} ms" if times else "none", scan.sources.get("echo_times", "")),
        Row("Started from", scan.starts_from.replace("_", " "), scan.phase_rule),
        Row("Magnitude", "given" if scan.magnitude else "not given"),
        Row("Mask", "given" if scan.mask == "given" else "made from the images"),
    ]
    if "phase_sign" in scan.sources:
        rows.append(Row("Sign of the phase", scan.sources["phase_sign"]))
    return rows


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("qsm_ai.io", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["amount"] = amount
    return environment.get_template("quality_page.html.j2")
