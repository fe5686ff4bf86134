"""The sample scan: an invented head, recorded at a tilt, as BIDS files with the truth beside them."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from qsm_ai import __version__
from qsm_ai.io.bids import derivatives_folder
from qsm_ai.io.outputs import encode_nifti
from qsm_ai.scan import Grid, OutputRefusal

SEED = 2026
VOXEL_SIZE = (1.25, 1.25, 1.5)
"""mm."""

ECHO_TIMES = (0.004, 0.012, 0.020, 0.028)
"""s."""

TILT_DEGREES = (12.0, -5.0, 8.0)
"""Of the slices against the scanner, about its three axes."""

STORED_PHASE_END = 4096.0
"""The phase is stored as Siemens scanners do, −4096 to 4095."""


@dataclass(frozen=True)
class Sample:
    """A simulated scan and what it was made from.

    Attributes
    ----------
    name : str
        BIDS stem, such as ``sub-sample``.
    grid : Grid
    phase : (E, X, Y, Z) float32, rad, wrapped
    magnitude : (E, X, Y, Z) float32
    echo_times : s
    field_strength : T
    chi : (X, Y, Z) float32, ppm
        Zero outside the brain.
    mask : (X, Y, Z) bool
    """

    name: str
    grid: Grid
    phase: NDArray[np.float32]
    magnitude: NDArray[np.float32]
    echo_times: tuple[float, ...]
    field_strength: float
    chi: NDArray[np.float32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class SampleFiles:
    """Where a sample was written."""

    phase: tuple[Path, ...]
    magnitude: tuple[Path, ...]
    sidecars: tuple[Path, ...]
    chi: Path
    mask: Path


def simulate_sample(seed: int = SEED, voxel_size: tuple[float, float, float] = VOXEL_SIZE) -> Sample:
    """Simulate the sample scan: 3 T, four echoes, slices tilted against the field; the same every time.

    Parameters
    ----------
    seed : int
        Another seed is another head.
    voxel_size : mm

    Returns
    -------
    Sample
    """
    from qsm_ai.network.anatomy import simulate_head
    from qsm_ai.network.simulation import simulate_echoes

    rng = np.random.default_rng(seed)
    tilt = Rotation.from_euler("xyz", TILT_DEGREES, degrees=True).as_matrix()
    head = simulate_head(rng, voxel_size, tilt=tilt, calcification=True, variety=0.0)
    x, y, z = (float(v) for v in tilt[2])
    echoes = simulate_echoes(rng, head, b0_direction=(x, y, z), field_strength=3.0, echo_times=ECHO_TIMES)
    affine = np.eye(4)
    affine[:3, :3] = tilt * np.asarray(voxel_size)
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(head.chi.shape) - 1) / 2)
    nx, ny, nz = head.chi.shape
    return Sample(
        name="sub-sample",
        grid=Grid((nx, ny, nz), affine),
        phase=echoes.phase,
        magnitude=echoes.magnitude,
        echo_times=echoes.echo_times,
        field_strength=echoes.field_strength,
        chi=np.where(head.brain, head.chi, np.float32(0)).astype(np.float32),
        mask=head.brain,
    )


def write_sample(sample: Sample, folder: str | Path) -> SampleFiles:
    """Write a sample as a small BIDS data set: one phase and one magnitude image per echo, with sidecars.

    Parameters
    ----------
    sample : Sample
    folder : path
        Made if it does not exist. Files of the same names are replaced.

    Returns
    -------
    SampleFiles

    Raises
    ------
    OutputRefusal
        If the folder cannot be written. Nothing is left behind then.
    """
    root = Path(folder)
    anat = Path(sample.name) / "anat"
    derivatives = Path(derivatives_folder(sample.name))
    files: dict[Path, bytes] = {
        Path("dataset_description.json"): _json(
            {"Name": "QSM-AI sample (simulated)", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
        ),
        derivatives.parents[1] / "dataset_description.json": _json(
            {
                "Name": "True susceptibility of the QSM-AI sample",
                "BIDSVersion": "1.10.0",
                "DatasetType": "derivative",
                "GeneratedBy": [{"Name": "qsm-ai", "Version": __version__}],
            }
        ),
    }
    names: dict[str, list[Path]] = {"phase": [], "mag": [], "json": []}
    for echo, time in enumerate(sample.echo_times, start=1):
        stored = _as_stored(sample.phase[echo - 1])
        magnitude = np.clip(np.round(sample.magnitude[echo - 1] * 1000), 0, 32767).astype(np.int16)
        for part, volume in (("phase", stored), ("mag", magnitude)):
            stem = f"{sample.name}_echo-{echo}_part-{part}_MEGRE"
            names[part].append(anat / f"{stem}.nii.gz")
            names["json"].append(anat / f"{stem}.json")
            files[names[part][-1]] = encode_nifti(volume, sample.grid)
            sidecar: dict[str, object] = {
                "EchoTime": time,
                "EchoNumber": echo,
                "MagneticFieldStrength": sample.field_strength,
                "Manufacturer": "simulated",
            }
            files[names["json"][-1]] = _json(sidecar | ({"Units": "arbitrary"} if part == "phase" else {}))
    chi = derivatives / f"{sample.name}_desc-true_Chimap.nii.gz"
    mask = derivatives / f"{sample.name}_desc-true_mask.nii.gz"
    files[chi] = encode_nifti(sample.chi, sample.grid, (-0.1, 0.2))
    files[chi.with_name(f"{sample.name}_desc-true_Chimap.json")] = _json({"Units": "ppm"})
    files[mask] = encode_nifti(sample.mask, sample.grid)
    _write_all(root, files)
    return SampleFiles(
        tuple(root / f for f in names["phase"]),
        tuple(root / f for f in names["mag"]),
        tuple(root / f for f in names["json"]),
        root / chi,
        root / mask,
    )


def _as_stored(phase: NDArray[np.float32]) -> NDArray[np.int16]:
    steps = np.round(phase * np.float32(STORED_PHASE_END / math.pi))
    return np.clip(steps, -STORED_PHASE_END, STORED_PHASE_END - 1).astype(np.int16)


def _json(content: dict[str, object]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _write_all(root: Path, files: dict[Path, bytes]) -> None:
    """All files or none."""
    existed = root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".qsm-ai-", dir=root))
    except OSError:
        raise OutputRefusal("The folder cannot be written.", mend="Give a folder of your own.") from None
    try:
        for number, content in enumerate(files.values()):
            (staging / str(number)).write_bytes(content)
        for number, relative in enumerate(files):
            (root / relative).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / str(number), root / relative)  # noqa: PTH105 - within one disk
    except OSError:
        raise OutputRefusal(
            "The sample could not be written.", mend="Check the space left on the disk."
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not existed and not any(root.iterdir()):
            root.rmdir()
