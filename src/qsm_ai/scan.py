"""The validated input of a reconstruction, and every reason to refuse one.

::

    Refusal                       code, sentence, mend, file
    ├── FileRefusal               the file itself cannot be read as an image
    │   ├── NotAnImage
    │   ├── Truncated
    │   ├── Damaged               unpacks to something else than its checksum or header promises
    │   ├── TooLarge              also: a gzip bomb
    │   └── WrongDimensions
    ├── GridRefusal               two images do not lie on one grid
    ├── EchoTimeRefusal           missing, miscounted, not increasing, or in the wrong unit
    ├── FieldStrengthRefusal
    ├── DirectionRefusal
    ├── PhaseRefusal              not a phase: a magnitude, all zeros, NaN, a scale that cannot be decided
    ├── MagnitudeRefusal          not a magnitude: negative values, all zeros
    ├── FieldRefusal              a field map that cannot be in ppm
    ├── MaskRefusal               empty, or no mask
    ├── SidecarRefusal            a sidecar that is no JSON object, or belongs to nothing
    └── OutputRefusal             a folder that results cannot be written to
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray


class Refusal(Exception):  # noqa: N818 - a refusal is the caller's to mend, not our error
    """An input that cannot be reconstructed: what is wrong with which file, and how to mend it.

    Parameters
    ----------
    sentence : str
        What is wrong, in one sentence, without any value read from a patient's header.
    mend : str
        What the user can do about it.
    file : str or None
        The name (never the path) of the file concerned.
    """

    code: ClassVar[str] = "refused"

    def __init__(self, sentence: str, *, mend: str, file: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.mend = mend
        self.file = file

    def __str__(self) -> str:
        where = f"{self.file}: " if self.file else ""
        return f"{where}{self.sentence} {self.mend}"


class FileRefusal(Refusal):
    """The file itself cannot be read as an image."""

    code = "file"


class NotAnImage(FileRefusal):
    """Neither NIfTI nor DICOM."""

    code = "not-an-image"


class Truncated(FileRefusal):
    """The file ends before its image does."""

    code = "truncated"


class Damaged(FileRefusal):
    """The bytes contradict their own checksum or header."""

    code = "damaged"


class TooLarge(FileRefusal):
    """Larger than the limit, as stored or when unpacked."""

    code = "too-large"


class WrongDimensions(FileRefusal):
    """Not three or four dimensions, or an axis too short."""

    code = "wrong-dimensions"


class GridRefusal(Refusal):
    """Two images that must lie on one grid do not."""

    code = "grid-mismatch"


class EchoTimeRefusal(Refusal):
    """Echo times missing, miscounted, not increasing, or in the wrong unit."""

    code = "echo-times"


class FieldStrengthRefusal(Refusal):
    """Field strength missing or impossible."""

    code = "field-strength"


class DirectionRefusal(Refusal):
    """The direction of B0 cannot be known."""

    code = "b0-direction"


class PhaseRefusal(Refusal):
    """The image offered as phase is none."""

    code = "not-a-phase"


class MagnitudeRefusal(Refusal):
    """The image offered as magnitude is none."""

    code = "not-a-magnitude"


class FieldRefusal(Refusal):
    """The image offered as a field map cannot be one in ppm."""

    code = "not-a-field"


class MaskRefusal(Refusal):
    """The mask is empty or no mask."""

    code = "mask"


class SidecarRefusal(Refusal):
    """A sidecar that cannot be read, or that belongs to nothing."""

    code = "sidecar"


class OutputRefusal(Refusal):
    """A place that results cannot be written to."""

    code = "output"


@dataclass(frozen=True)
class Grid:
    """Where the voxels lie: shape and affine (voxel indices to scanner coordinates, mm).

    The direction of B0 in voxel axes follows from the affine: the scanner's z axis seen from the voxels,
    which is the third row of the affine's rotation.

    Attributes
    ----------
    shape : (X, Y, Z)
    affine : (4, 4), mm
    header : dict
        The geometric fields of the NIfTI header as they were stored (pixdim, qform, sform, their codes,
        units), so that results can be written with exactly the input's geometry. Nothing else of the
        header is kept.
    scanner_voxel_size : mm
        Edge lengths in the scanner, where the affine leads to a template whose millimetres are others.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    header: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)
    scanner_voxel_size: tuple[float, float, float] | None = None

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel, mm, as it was in the scanner."""
        return self.scanner_voxel_size or self._edges

    @property
    def _edges(self) -> tuple[float, float, float]:
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)

    @property
    def b0_direction(self) -> tuple[float, float, float]:
        """Unit vector of the scanner's z axis in voxel axes."""
        rotation = self.affine[:3, :3] / np.asarray(self._edges)
        x, y, z = rotation[2] / np.linalg.norm(rotation[2])
        return float(x), float(y), float(z)


@dataclass(frozen=True)
class Scan:
    """Everything that a reconstruction needs, checked.

    Exactly one of ``phase``, ``total_field`` and ``local_field`` is given: where the pipeline starts.

    Attributes
    ----------
    name : str
        BIDS-like stem for output files, free of any path.
    grid : Grid
    b0_direction : unit vector in voxel axes
        From the grid unless overridden.
    field_strength : T
    phase : (E, X, Y, Z) float32, rad, wrapped
        Positive where the field is higher (paramagnetic); NaN and infinities already zero.
    magnitude : (E, X, Y, Z) float32 or None
    echo_times : s, increasing; empty when the scan starts from a field
    total_field, local_field : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool or None
        The user's, respected as it is.
    phase_rule : str
        How the stored phase became radians.
    """

    name: str
    grid: Grid
    b0_direction: tuple[float, float, float]
    field_strength: float
    phase: NDArray[np.float32] | None = None
    magnitude: NDArray[np.float32] | None = None
    echo_times: tuple[float, ...] = ()
    total_field: NDArray[np.float32] | None = None
    local_field: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | None = None
    phase_rule: str = ""
    sources: dict[str, str] = field(default_factory=dict)
    """Where each parameter came from: option, sidecar, header or default."""

    def __post_init__(self) -> None:
        starts = [x is not None for x in (self.phase, self.total_field, self.local_field)]
        if sum(starts) != 1:
            raise ValueError("a scan starts from exactly one of phase, total field and local field")
