"""Reading NIfTI files that may be anything: every promise of the header is checked before memory is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, prod
from typing import Literal

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from qsm_ai.io.source import Limits, SourceFile
from qsm_ai.io.unpacking import HIGHEST_RATIO, SEND_AGAIN, BoundedReader
from qsm_ai.scan import (
    Damaged,
    FileRefusal,
    Grid,
    GridRefusal,
    NotAnImage,
    TooLarge,
    Truncated,
    WrongDimensions,
)

SHORTEST_AXIS = 8
"""Voxels; below it there is no volume to take a field from."""

VOXEL_RANGE = (0.02, 20.0)
"""Plausible edges of a voxel, mm."""

SHEAR = 0.02
"""Cosine between two axes of voxels from which they are not taken as perpendicular."""

SAME_SIZE, SAME_DIRECTION = 0.02, 0.9986
"""What two forms may differ by that claim to say the same: relatively, and cosine (3 degrees)."""

SLAB = 1 << 20
"""Voxels that are converted at once."""

TAIL = 1 << 20
"""Bytes behind the image that are passed over without complaint."""

EXPORT = "Export the image as NIfTI (.nii or .nii.gz)."

UNITS_PER_MM = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}
"""mm in a NIfTI spatial unit: unknown (taken as mm), metre, millimetre, micrometre."""

GEOMETRY = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
            "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units")  # fmt: skip


Doubt = Literal["", "sheared", "voxel size", "direction"]


@dataclass(frozen=True)
class Image:
    """A volume or a series of volumes as it is stored, and where it lies.

    Attributes
    ----------
    name : str
    data : (E, X, Y, Z) float32
        One volume has E = 1. Stored slope and intercept are applied.
    grid : Grid
    oriented : bool
        The header says how the voxels lie in the scanner.
    b0_direction : unit vector in voxel axes
        The scanner's z axis, from the form that is in scanner coordinates where there is one.
    b0_source : str
        Which part of the header said so.
    doubt : str
        Why the geometry is not enough to reconstruct from, though it is to compare images by: axes that are
        not perpendicular, or two forms, both in scanner coordinates, that contradict each other.
    """

    name: str
    data: NDArray[np.float32]
    grid: Grid
    oriented: bool
    b0_direction: tuple[float, float, float]
    b0_source: str
    doubt: Doubt = ""


@dataclass(frozen=True)
class _Layout:
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    offset: int
    slope: float
    inter: float

    @property
    def stored(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @property
    def unpacked(self) -> int:
        return prod(self.shape) * max(4, self.dtype.itemsize)


def read_image(source: SourceFile, limits: Limits, already: int = 0) -> Image:
    """Read one NIfTI-1 or NIfTI-2 file, gzipped or not.

    Parameters
    ----------
    source : SourceFile
    limits : Limits
    already : bytes
        Unpacked size of the images of the same kind that were read before.

    Returns
    -------
    Image

    Raises
    ------
    NotAnImage, Truncated, Damaged, TooLarge, WrongDimensions, FileRefusal
        Before anything of the size of the image is allocated, where the header alone gives it away.
    """
    with source.open() as (stream, size):
        if size > limits.stored:
            raise TooLarge(
                f"is larger than the limit of {_mebibytes(limits.stored)}.",
                mend="Crop the scan to the head, or store it as 16-bit integers.",
                file=source.name,
            )
        if size == 0:
            raise Truncated("is empty.", mend=SEND_AGAIN, file=source.name)
        reader = BoundedReader(stream, source.name)
        header, consumed = _read_header(reader, source.name)
        layout = _layout(header, consumed, source.name)
        if already + layout.unpacked > limits.unpacked:
            raise TooLarge(
                f"unpacks to more than the limit of {_mebibytes(limits.unpacked)}.",
                mend="Crop the scan to the head, or reconstruct fewer echoes.",
                file=source.name,
            )
        room = size * HIGHEST_RATIO if reader.gzipped else size
        if layout.offset + layout.stored > room:
            raise Truncated("ends before its image does.", mend=SEND_AGAIN, file=source.name)
        placed = _geometry(header, layout.shape, source.name)
        reader.skip(layout.offset - consumed)
        data = _read_voxels(reader, layout)
        reader.finish(TAIL)
    grid, oriented, direction, said_by, doubt = placed
    return Image(source.name, data, grid, oriented, direction, said_by, doubt)


def require_same_grid(first: Image, others: Sequence[Image], what: str) -> None:
    """Refuse images that do not lie on the grid of ``first``.

    Parameters
    ----------
    what : str
        For the sentence, such as "phase and magnitude".

    Raises
    ------
    GridRefusal
        Naming both files.
    """
    for other in others:
        if other.grid.shape != first.grid.shape:
            raise GridRefusal(
                f"{what} have different sizes: {_times(other.grid.shape)} voxels here, "
                f"{_times(first.grid.shape)} in {first.name}.",
                mend="Give images of the same acquisition, or resample one onto the other.",
                file=other.name,
            )
        # A mask from a tool that drops the orientation can only be taken by its shape.
        if other.oriented and first.oriented and _displacement(first.grid, other.grid) > 0.1:
            raise GridRefusal(
                f"{what} have the same size but lie in different places or orientations "
                f"(compared with {first.name}).",
                mend="Give images of the same acquisition, or resample one onto the other.",
                file=other.name,
            )


def _read_header(reader: BoundedReader, name: str) -> tuple[Nifti1Header | Nifti2Header, int]:
    start = reader.read(4)
    sizes = {int.from_bytes(start, "little"), int.from_bytes(start, "big")}
    if 348 in sizes:
        kind: type[Nifti1Header] | type[Nifti2Header] = Nifti1Header
    elif 540 in sizes:
        kind = Nifti2Header
    else:
        is_dicom = reader.read(128)[124:] == b"DICM"
        mend = "Give the whole DICOM folder, or a zip of it." if is_dicom else EXPORT
        raise NotAnImage("is not a NIfTI image.", mend=mend, file=name)
    length = 348 if kind is Nifti1Header else 540
    block = start + reader.read_exactly(length - 4)
    magic = block[344:348] if length == 348 else block[4:8]
    if magic[:3] in (b"ni1", b"ni2"):
        raise NotAnImage(
            "is one half of a pair of .hdr and .img files.",
            mend="Convert the pair to one .nii file.",
            file=name,
        )
    if magic[:3] not in (b"n+1", b"n+2"):
        raise NotAnImage("is not a NIfTI image.", mend=EXPORT, file=name)
    return kind(binaryblock=block, check=False), length


def _layout(header: Nifti1Header | Nifti2Header, consumed: int, name: str) -> _Layout:
    dim = [int(n) for n in np.asarray(header["dim"])]
    if dim[0] not in (3, 4):
        raise WrongDimensions(
            f"has {dim[0]} dimensions instead of 3 or 4.",
            mend="Give one 4D file (echoes last) or one 3D file per echo.",
            file=name,
        )
    shape = tuple(dim[1 : dim[0] + 1])
    if min(shape) < 1 or min(shape[:3]) < SHORTEST_AXIS:
        raise WrongDimensions(
            f"has an axis too short for a volume ({_times(shape)} voxels).",
            mend=f"Give a 3D acquisition of at least {SHORTEST_AXIS} voxels along each axis.",
            file=name,
        )
    try:
        dtype = header.get_data_dtype()  # type: ignore[no-untyped-call]
    except (HeaderDataError, KeyError):
        dtype = np.dtype("V1")
    if dtype.kind == "c":
        raise FileRefusal(
            "holds complex numbers.", mend="Save phase and magnitude as two real images.", file=name
        )
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise FileRefusal(
            "does not hold plain numbers (a colour or unknown data type).",
            mend="Save it as 16-bit integers or 32-bit floats.",
            file=name,
        )
    # A negative or broken offset means the place right behind the header, as for offset 0.
    stored_offset = float(header["vox_offset"])
    offset = int(stored_offset) if isfinite(stored_offset) and stored_offset > consumed else consumed + 4
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not isfinite(slope):
        # The standard's "not scaled"; some writers put NaN there.
        slope, inter = 1.0, 0.0
    if not isfinite(inter):
        raise Damaged("has an intercept that is no number.", mend=EXPORT, file=name)
    return _Layout(shape, dtype, offset, slope, inter)


def _geometry(
    header: Nifti1Header | Nifti2Header, shape: tuple[int, ...], name: str
) -> tuple[Grid, bool, tuple[float, float, float], str, Doubt]:
    """The grid, whether it is oriented, the direction of B0, which form says so, and what is in doubt."""
    per_mm = UNITS_PER_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    forms: dict[str, NDArray[np.float64]] = {}
    if sform_code > 0:
        forms["sform"] = np.asarray(header.get_sform(), dtype=np.float64)  # type: ignore[no-untyped-call]
    if qform_code > 0:
        try:
            forms["qform"] = np.asarray(header.get_qform(), dtype=np.float64)  # type: ignore[no-untyped-call]
        except (HeaderDataError, ValueError):
            forms["qform"] = np.full((4, 4), np.nan)
    forms = {key: _in_mm(form, per_mm) for key, form in forms.items()}
    usable = {key: form for key, form in forms.items() if _is_affine(form)}
    if forms and not usable:
        raise Damaged("has an orientation in its header that describes no volume.", mend=EXPORT, file=name)
    base = np.asarray(header.get_base_affine(), dtype=np.float64)  # type: ignore[no-untyped-call]
    affine = next(iter(usable.values()), _in_mm(base, per_mm))
    if not _is_affine(affine):
        raise WrongDimensions(
            "has voxels without a plausible size.", mend="Correct the voxel size in its header.", file=name
        )
    kept: dict[str, float | tuple[float, ...]] = {"pixdim": tuple(float(x) for x in header["pixdim"][:4])}
    for key in GEOMETRY:
        value = np.asarray(header[key], dtype=np.float64)
        kept[key] = tuple(float(x) for x in value) if value.ndim else float(value)
    x, y, z = shape[:3]
    grid = Grid((x, y, z), affine, kept)
    if not usable:
        return grid, False, grid.b0_direction, "", ""
    # Code 1 is "scanner coordinates"; others may be a template's, where z is no longer along B0 and a
    # millimetre is one of the template's.
    scanner = [key for key in usable if (sform_code if key == "sform" else qform_code) == 1]
    straight = [key for key in usable if not _is_sheared(usable[key])]
    said_by = next(iter([*scanner, *straight, *usable]))
    measured = Grid(grid.shape, usable[said_by])
    if usable[said_by] is not affine:
        grid = replace(grid, scanner_voxel_size=measured.voxel_size)
    doubt: Doubt = ""
    if said_by not in straight:
        doubt = "sheared"
    elif len(scanner) == 2:
        doubt = _contradiction(measured, Grid(grid.shape, usable[scanner[1]]))
    return grid, True, measured.b0_direction, said_by, doubt


def _contradiction(first: Grid, second: Grid) -> Doubt:
    """Of two forms that both claim to be in scanner coordinates. Where the image lies does not matter."""
    if not np.allclose(first.voxel_size, second.voxel_size, rtol=SAME_SIZE):
        return "voxel size"
    # The direction counts as an axis only: up or down, the dipole is the same.
    if abs(float(np.dot(first.b0_direction, second.b0_direction))) < SAME_DIRECTION:
        return "direction"
    return ""


def _is_sheared(affine: NDArray[np.float64]) -> bool:
    edges = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return float(np.abs(edges.T @ edges - np.eye(3)).max()) > SHEAR


def _in_mm(affine: NDArray[np.float64], per_mm: float) -> NDArray[np.float64]:
    scaled = affine.copy()
    scaled[:3] *= per_mm
    return scaled


def _is_affine(affine: NDArray[np.float64]) -> bool:
    if not np.isfinite(affine).all():
        return False
    edges = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if edges.min() < VOXEL_RANGE[0] or edges.max() > VOXEL_RANGE[1]:
        return False
    # The volume of the unit cell relative to its edges: zero for axes in one plane.
    return bool(abs(np.linalg.det(affine[:3, :3] / edges)) > 0.1)


def _read_voxels(reader: BoundedReader, layout: _Layout) -> NDArray[np.float32]:
    """Voxels slab by slab, so that stored and converted numbers never stand side by side in full."""
    x, y, z = layout.shape[:3]
    echoes = layout.shape[3] if len(layout.shape) == 4 else 1
    data = np.empty((echoes, x, y, z), dtype=np.float32)
    thickness = max(1, SLAB // (x * y))
    for echo in range(echoes):
        for first in range(0, z, thickness):
            depth = min(thickness, z - first)
            raw = np.frombuffer(reader.read_exactly(x * y * depth * layout.dtype.itemsize), layout.dtype)
            slab = raw.reshape((x, y, depth), order="F")
            with np.errstate(over="ignore", invalid="ignore"):
                if (layout.slope, layout.inter) != (1.0, 0.0):
                    slab = slab.astype(np.float64) * layout.slope + layout.inter
                data[echo, :, :, first : first + depth] = slab
    return data


def _displacement(first: Grid, second: Grid) -> float:
    """How far apart the corners of two grids lie, in voxels."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in first.shape])).reshape(3, -1)
    apart = (first.affine - second.affine) @ np.vstack([corners, np.ones(8)])
    return float(np.linalg.norm(apart[:3], axis=0).max() / min(first.voxel_size))


def _times(shape: Sequence[int]) -> str:
    return "×".join(str(n) for n in shape)


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
