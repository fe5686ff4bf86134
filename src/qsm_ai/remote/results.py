"""What a finished job's files are called."""

from __future__ import annotations

import json
from pathlib import Path

from qsm_ai import __version__
from qsm_ai.client import Job
from qsm_ai.io.outputs import PAGE_SUFFIX, PICTURE_SUFFIX, REPORT_SUFFIX
from qsm_ai.reconstruction.stages import ARTEFACTS

REPORT, PICTURE, PAGE = "report", "picture", "page"


def files_of(job: Job) -> dict[str, str]:
    """Name in the API to file name: every volume, report, picture, and the quality page where it has one."""
    files = {artefact.name: Path(artefact.file).name for artefact in job.artefacts}
    stem = files["chi"].removesuffix(f"_{ARTEFACTS['chi'].suffix}.nii.gz")
    files |= {REPORT: f"{stem}_{REPORT_SUFFIX}", PICTURE: f"{stem}_{PICTURE_SUFFIX}"}
    has_page = bool((job.raw.get("links") or {}).get("page"))
    return {**files, PAGE: f"{stem}_{PAGE_SUFFIX}"} if has_page else files


def describe_dataset(results: Path) -> None:
    """Write BIDS' description of derived data, where there is none."""
    path = results / "dataset_description.json"
    if path.exists():
        return
    content = {
        "Name": "QSM-AI: quantitative susceptibility maps",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "qsm-ai", "Version": __version__}],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
