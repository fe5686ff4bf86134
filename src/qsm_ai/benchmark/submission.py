"""A stage of the public benchmark QSM-CI: canonical files in, a map in ppm out.

``python -m qsm_ai.benchmark.submission STAGE IN OUT`` is what the run scripts of ``benchmarks/qsm-ci`` call.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from qsm_ai.inference.openvino import OpenVinoNetwork
from qsm_ai.io.loading import load_scan
from qsm_ai.io.outputs import encode_nifti
from qsm_ai.reconstruction.options import Options
from qsm_ai.reconstruction.pipeline import reconstruct
from qsm_ai.reconstruction.stages import ARTEFACTS
from qsm_ai.scan import Scan

STAGES = ("end-to-end", "bfr+dipole", "dipole")
"""As QSM-CI names them: from phase, from the total field, from the local field."""

OUTPUT = "chimap.nii.gz"


def read_scan(stage: str, folder: Path) -> Scan:
    """Read the canonical files of a stage.

    Parameters
    ----------
    stage : one of ``STAGES``
    folder : Path
        Holds ``phase``, ``totalfield`` or ``localfield`` (rad, ppm), ``mask`` and, where there is one,
        ``magnitude``, each ``.nii.gz``; and ``params.json`` with TE (s), B0 (T) and B0_dir.

    Returns
    -------
    Scan

    Raises
    ------
    ValueError
        If there is no such stage.
    Refusal
        If the files do not make a scan.
    """
    if stage not in STAGES:
        raise ValueError(f"no stage {stage!r}: {', '.join(STAGES)}")
    params = json.loads((folder / "params.json").read_text(encoding="utf-8"))
    known: dict[str, Any] = {"mask_file": folder / "mask.nii.gz", "b0": float(params["B0"])}
    if direction := params.get("B0_dir"):
        x, y, z = (float(v) for v in direction)
        known["b0_direction"] = (x, y, z)
    magnitude = folder / "magnitude.nii.gz"
    known["magnitude_files"] = [magnitude] if magnitude.exists() else []
    if stage == "bfr+dipole":
        return load_scan(total_field=folder / "totalfield.nii.gz", **known)
    if stage == "dipole":
        return load_scan(local_field=folder / "localfield.nii.gz", **known)
    times = params["TE"] if isinstance(params["TE"], list) else [params["TE"]]
    return load_scan(
        [folder / "phase.nii.gz"],
        te_ms=[1000 * float(t) for t in times],
        phase_sign="positive",
        **known,
    )


def main(stage: str, source: str, target: str) -> None:
    """Reconstruct the canonical files of a stage.

    Parameters
    ----------
    stage : one of ``STAGES``
    source, target : folders
    """
    scan = read_scan(stage, Path(source))
    config = Path(source) / "config.json"
    chosen = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    options = Options(**{name: str(v) for name, v in chosen.items() if name in Options().as_dict()})  # type: ignore[arg-type]
    network = OpenVinoNetwork() if options.method == "qsm-vit" else None
    result = reconstruct(scan, options, network)
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OUTPUT).write_bytes(encode_nifti(result.chi, scan.grid, ARTEFACTS["chi"].window))


if __name__ == "__main__":
    main(*sys.argv[1:4])
