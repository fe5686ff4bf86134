"""A small head with a known answer, in arrays and as files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.physics.dipole import GYROMAGNETIC_RATIO, forward_field

pytest_plugins = ["real_services", "strict_s3", "chromium"]

SHAPE = (48, 44, 40)
VOXEL = (1.0, 1.1, 1.25)
ECHO_TIMES = (0.004, 0.008, 0.012)
FIELD_STRENGTH = 3.0


def oblique_affine(degrees: float = 20.0) -> NDArray[np.float64]:
    """Voxels tilted about the patient's left-right axis, then about the vertical one."""
    a, b = np.deg2rad(degrees), np.deg2rad(-degrees / 2)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x * np.asarray(VOXEL)
    affine[:3, 3] = (-21.5, -30.25, 12.75)
    return affine


@dataclass(frozen=True)
class Phantom:
    """A ball of tissue with two inclusions, a source outside, and what a scanner would record of them."""

    chi: NDArray[np.float32]
    mask: NDArray[np.bool_]
    local_field: NDArray[np.float32]
    total_field: NDArray[np.float32]
    phase: NDArray[np.float32]
    magnitude: NDArray[np.float32]
    affine: NDArray[np.float64]
    b0_direction: tuple[float, float, float]


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    affine = oblique_affine()
    x, y, z = affine[2, :3] / np.asarray(VOXEL)
    direction = (float(x), float(y), float(z))
    axes = np.meshgrid(
        *[(np.arange(n) - (n - 1) / 2) * h for n, h in zip(SHAPE, VOXEL, strict=True)], indexing="ij"
    )

    def ball(centre: tuple[float, float, float], radius: float) -> NDArray[np.bool_]:
        distance2 = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True))
        return np.asarray(distance2 < radius**2)

    mask = ball((0, 0, 0), 17)
    chi = np.zeros(SHAPE, np.float32)
    chi[ball((6, 0, 0), 4)] = 0.10
    chi[ball((-6, 3, 2), 3)] = -0.08
    local = forward_field(chi, VOXEL, direction)
    outside = np.zeros(SHAPE, np.float32)
    outside[ball((0, 0, 22), 4)] = 3.0
    total = local + forward_field(outside, VOXEL, direction)
    rng = np.random.default_rng(7)
    signal = np.where(mask, 1.0, 0.02)
    rate = 2 * np.pi * GYROMAGNETIC_RATIO * FIELD_STRENGTH
    echoes = [
        signal * np.exp(-25 * t) * np.exp(1j * (0.4 + rate * t * total))
        + 0.004 * (rng.standard_normal(SHAPE) + 1j * rng.standard_normal(SHAPE))
        for t in ECHO_TIMES
    ]
    phase = np.stack([np.angle(e) for e in echoes]).astype(np.float32)
    magnitude = np.stack([np.abs(e) for e in echoes]).astype(np.float32)
    return Phantom(
        chi,
        mask,
        (local * mask).astype(np.float32),
        total.astype(np.float32),
        phase,
        magnitude,
        affine,
        direction,
    )


@dataclass(frozen=True)
class Files:
    """A phantom on disk: 4D images, and one 3D image per echo with sidecars."""

    folder: Path
    phase: Path
    magnitude: Path
    mask: Path
    total_field: Path
    local_field: Path
    echo_phase: tuple[Path, ...]
    echo_magnitude: tuple[Path, ...]


def save(path: Path, volume: NDArray[np.generic], affine: NDArray[np.float64]) -> Path:
    """Write an image with both forms in scanner coordinates and a header full of free text."""
    image = nib.Nifti1Image(volume, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"Doe^Jane 1970-01-01"
    image.header["aux_file"] = b"doe.txt"
    image.header["db_name"] = b"hospital"
    nib.save(image, path)
    return path


@pytest.fixture(scope="session")
def files(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Read only: a test that changes a file makes its own copy."""
    folder = tmp_path_factory.mktemp("phantom")

    def write(name: str, volume: NDArray[np.generic]) -> Path:
        return save(folder / name, volume, phantom.affine)

    echo_phase, echo_magnitude = [], []
    for echo, time in enumerate(ECHO_TIMES, start=1):
        for part, series, paths in (
            ("phase", phantom.phase, echo_phase),
            ("mag", phantom.magnitude, echo_magnitude),
        ):
            path = write(f"sub-1_echo-{echo}_part-{part}_MEGRE.nii.gz", series[echo - 1])
            sidecar = {"EchoTime": time, "MagneticFieldStrength": FIELD_STRENGTH, "PatientName": "Doe^Jane"}
            path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
            paths.append(path)
    return Files(
        folder,
        write("phase.nii.gz", np.moveaxis(phantom.phase, 0, -1)),
        write("magnitude.nii.gz", np.moveaxis(phantom.magnitude, 0, -1)),
        write("mask.nii.gz", phantom.mask.astype(np.uint8)),
        write("total.nii.gz", phantom.total_field),
        write("local.nii.gz", phantom.local_field),
        tuple(echo_phase),
        tuple(echo_magnitude),
    )
