"""The reference scan: an arithmetical head whose map is known, to see whether the network answers right.

``expected.json`` holds what the shipped weights make of it. ``python -m qsm_ai.doctor.reference`` writes it
anew after a training or a change of the pipeline; a test keeps them together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from qsm_ai.physics.dipole import forward_field

SHAPE = (44, 48, 40)
VOXEL_SIZE = (1.2, 1.2, 1.4)
"""mm."""

TILT_DEGREES = 15.0
STEP = 37
"""Every so many voxels of the mask, one is compared."""

LIMIT = 0.01
"""RMS error against the expected values over their RMS: bf16 stays far below, a dead network far above."""

EXPECTED = "expected.json"

INCLUSIONS: tuple[tuple[tuple[float, float, float], float, float], ...] = (
    ((9.0, 2.0, 0.0), 5.5, 0.13),
    ((-9.0, 2.0, 0.0), 5.5, 0.09),
    ((0.0, -11.0, 5.0), 4.0, -0.06),
    ((2.0, 10.0, -8.0), 3.0, 0.25),
)
"""Centre (mm), radius (mm) and susceptibility (ppm) of the balls in the head."""


@dataclass(frozen=True)
class ReferenceScan:
    """The scan and its truth.

    Attributes
    ----------
    local_field : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
    chi : (X, Y, Z) float32, ppm
    affine : (4, 4)
    """

    local_field: NDArray[np.float32]
    mask: NDArray[np.bool_]
    chi: NDArray[np.float32]
    affine: NDArray[np.float64]

    def files(self) -> dict[str, bytes]:
        """Local field and mask as NIfTI, by role."""
        volumes: dict[str, NDArray[Any]] = {
            "local_field": self.local_field, "mask": self.mask.astype(np.uint8)
        }  # fmt: skip
        return {role: _nifti(volume, self.affine) for role, volume in volumes.items()}


def _nifti(volume: NDArray[Any], affine: NDArray[np.float64]) -> bytes:
    image = nib.Nifti1Image(volume, affine)  # type: ignore[no-untyped-call]
    return bytes(image.to_bytes())


@cache
def reference_scan() -> ReferenceScan:
    """The same to the last bit but for rounding in the Fourier transforms, on every machine."""
    angle = np.deg2rad(TILT_DEGREES)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = tilt * np.asarray(VOXEL_SIZE)
    x, y, z = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * h for n, h in zip(SHAPE, VOXEL_SIZE, strict=True)), indexing="ij"
    )
    mask = (x / 22) ** 2 + (y / 24) ** 2 + (z / 23) ** 2 < 1
    chi = np.where(mask, 0.02 * np.cos(x / 5.0) * np.cos(y / 6.0 + 0.4) * np.cos(z / 7.0), 0.0)
    for (cx, cy, cz), radius, value in INCLUSIONS:
        chi = np.where((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius**2, value, chi)
    chi = np.where(mask, chi, 0.0).astype(np.float32)
    bx, by, bz = (float(c) for c in tilt[2])
    field = np.asarray(forward_field(chi, VOXEL_SIZE, (bx, by, bz)))
    return ReferenceScan((field * mask).astype(np.float32), mask, chi, affine)


def probe(chi: NDArray[Any], scan: ReferenceScan) -> NDArray[np.float64]:
    """The values that are compared: every ``STEP``-th voxel of the mask, in order.

    Parameters
    ----------
    chi : (X, Y, Z), ppm
    scan : ReferenceScan
    """
    return np.asarray(chi, np.float64)[scan.mask][::STEP]


def expected() -> Mapping[str, Any]:
    """``weights`` (first digits of the SHA-256 of the ONNX file) and ``values`` (ppm)."""
    told: Mapping[str, Any] = json.loads((files(__package__) / EXPECTED).read_text(encoding="utf-8"))
    return told


@dataclass(frozen=True)
class Agreement:
    """How a map compares.

    Attributes
    ----------
    error : RMS difference from the expected values over their RMS
    correlation : with the true susceptibility, in the mask
    """

    error: float
    correlation: float

    @property
    def is_right(self) -> bool:
        """Whether this is what the shipped network makes of it."""
        return self.error <= LIMIT

    @property
    def is_a_map(self) -> bool:
        """Whether it shows the head at all: what any good network would make of it."""
        return self.correlation >= 0.9


def compare(chi: NDArray[Any]) -> Agreement:
    """A map of the reference scan against what is expected and against the truth.

    Parameters
    ----------
    chi : (X, Y, Z), ppm

    Returns
    -------
    Agreement

    Raises
    ------
    ValueError
        When it has another shape, or values that are not finite.
    """
    scan = reference_scan()
    if chi.shape != scan.chi.shape:
        raise ValueError(f"the map has the shape {chi.shape}, not {scan.chi.shape}")
    if not np.isfinite(chi).all():
        raise ValueError("the map holds values that are not finite")
    wanted = np.asarray(expected()["values"], np.float64)
    error = float(np.sqrt(np.mean((probe(chi, scan) - wanted) ** 2) / np.mean(wanted**2)))
    inside = np.asarray(chi, np.float64)[scan.mask]
    correlation = float(np.corrcoef(inside, scan.chi[scan.mask])[0, 1]) if inside.std() > 0 else 0.0
    return Agreement(error, correlation)


def measure() -> dict[str, Any]:
    """The content of ``expected.json``: what the weights in the model repository make of the scan, in f32."""
    from qsm_ai.inference.openvino import OpenVinoNetwork
    from qsm_ai.inference.repository import DIGITS, model_file, weights_digest
    from qsm_ai.io.loading import load_scan
    from qsm_ai.io.source import SourceFile
    from qsm_ai.reconstruction.options import Options
    from qsm_ai.reconstruction.pipeline import reconstruct

    scan = reference_scan()
    given = {role: SourceFile(f"{role}.nii", content) for role, content in scan.files().items()}
    loaded = load_scan(mask_file=given["mask"], local_field=given["local_field"])
    chi = reconstruct(loaded, Options(), OpenVinoNetwork(model_file(), "f32")).chi
    return {
        "weights": weights_digest(model_file())[:DIGITS],
        "values": [round(float(v), 5) for v in probe(chi, scan)],
    }


if __name__ == "__main__":
    from pathlib import Path

    target = Path(__file__).with_name(EXPECTED)
    target.write_text(json.dumps(measure()) + "\n", encoding="utf-8")
