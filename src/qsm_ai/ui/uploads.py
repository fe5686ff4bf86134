"""What was dropped into the page: which file is which, in which order, and what the sidecars say."""

from __future__ import annotations

import json
import math
import re
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What a file is sent as; the values are the API's field names."""

    PHASE = "phase"
    MAGNITUDE = "magnitude"
    MASK = "mask"
    SIDECAR = "sidecar"
    TOTAL_FIELD = "total_field"
    LOCAL_FIELD = "local_field"
    UNUSED = "unused"


@dataclass(frozen=True)
class File:
    """A dropped file, its bytes shared with whoever holds them."""

    name: str
    content: bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content)


@dataclass(frozen=True)
class Header:
    """What the first bytes of a NIfTI say.

    Attributes
    ----------
    shape : voxels along x, y, z
    echoes : volumes along the fourth axis, 1 if there is none
    voxel_size : mm
    """

    shape: tuple[int, int, int]
    echoes: int
    voxel_size: tuple[float, float, float]


@dataclass(frozen=True)
class Acquisition:
    """What the sidecars know about the scan.

    Attributes
    ----------
    echo_times_ms : ms, one per echo; empty if unknown
    field_strength : T, or None if unknown
    notes : sentences for the reader where sidecars are silent or disagree
    """

    echo_times_ms: tuple[float, ...] = ()
    field_strength: float | None = None
    notes: tuple[str, ...] = ()


_EXTENSION = re.compile(r"\.(nii\.gz|nii|json)$", re.IGNORECASE)
_PHASE = re.compile(r"(^|[^a-z])(ph|pha|phase|phs)\d*([^a-z]|$)")
_MAGNITUDE = re.compile(r"(^|[^a-z])(m|mag|magn|magnitude)\d*([^a-z]|$)")
_MASK = re.compile(r"mask\d*([^a-z]|$)")
_TOTAL_FIELD = re.compile(r"(^|[^a-z])total_?field([^a-z]|$)")
_LOCAL_FIELD = re.compile(r"(^|[^a-z])(local_?field|tissue_?field)([^a-z]|$)")
_RESULT = re.compile(
    r"(^|[^a-z])(chi|chimap|chierror|truth|r2starmap|t2starmap|fielderror|residual)([^a-z]|$)"
)


def stem(name: str) -> str:
    """File name without ``.nii.gz``, ``.nii`` or ``.json``."""
    return _EXTENSION.sub("", name)


def natural_key(name: str) -> tuple[tuple[int, str | int], ...]:
    """Sort key under which ``echo-2`` comes before ``echo-10``."""
    parts = re.split(r"(\d+)", name.lower())
    return tuple((1, int(part)) if part.isdecimal() else (0, part) for part in parts if part)


def sort_files(files: Iterable[File]) -> dict[str, Role]:
    """Role of every file, by its name first and its sidecar second.

    BIDS entities (``part-phase``, ``part-mag``), the suffixes of dcm2niix (``_ph``), and plain words are
    understood. A lone image is a phase; an image named like a phase without its ``_ph`` is its magnitude. The
    reconstruction starts as early as it can: a local field counts only without a total field, and either only
    without a phase.

    Returns
    -------
    dict
        File name to role; what cannot be told is :attr:`Role.UNUSED`, to be corrected by the user.
    """
    files = list(files)
    sidecars = {stem(f.name): _parse(f.content) or {} for f in files if f.name.lower().endswith(".json")}
    roles: dict[str, Role] = {}
    undecided: list[str] = []
    for file in files:
        role = _role_by_name(file.name) or _role_by_sidecar(sidecars.get(stem(file.name), {}))
        if role is None:
            undecided.append(file.name)
        roles[file.name] = role or Role.UNUSED

    starts = [r for r in (Role.PHASE, Role.TOTAL_FIELD, Role.LOCAL_FIELD) if r in roles.values()]
    for name, role in roles.items():
        if role in starts[1:]:
            roles[name] = Role.UNUSED
    phase_stems = {_PHASE.sub("", stem(name).lower()) for name, role in roles.items() if role is Role.PHASE}
    for name in undecided:
        if stem(name).lower() in phase_stems:
            roles[name] = Role.MAGNITUDE
        elif not starts and len(undecided) == 1:
            roles[name] = Role.PHASE
    return roles


def in_role(files: Iterable[File], roles: Mapping[str, Role], role: Role) -> list[File]:
    """Files of one role, in echo order."""
    chosen = [file for file in files if roles.get(file.name) is role]
    return sorted(chosen, key=lambda file: natural_key(file.name))


def readable(sidecars: Iterable[File]) -> list[File]:
    """Those that are JSON objects."""
    return [file for file in sidecars if _parse(file.content) is not None]


def read_acquisition(phase: Sequence[File], sidecars: Sequence[File]) -> Acquisition:
    """Echo times and field strength from JSON sidecars.

    BIDS gives ``EchoTime`` in seconds, one file per echo or a list for a 4D file; a sidecar belongs to the
    image of the same name. Where the names do not match, all distinct echo times are taken, in order.

    Parameters
    ----------
    phase, sidecars : files, in echo order
    """
    parsed: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for file in sidecars:
        content = _parse(file.content)
        if content is None:
            notes.append(f"{file.name} is not readable as JSON and was left aside.")
        else:
            parsed[stem(file.name)] = content

    own = [_numbers(parsed.get(stem(file.name), {}).get("EchoTime")) for file in phase]
    if own and all(own):
        seconds = [time for times in own for time in times]
    else:
        seconds = sorted({time for content in parsed.values() for time in _numbers(content.get("EchoTime"))})

    strengths = {
        strength
        for content in parsed.values()
        for strength in _numbers(content.get("MagneticFieldStrength"))[:1]
        if strength > 0
    }
    if len(strengths) > 1:
        notes.append("The sidecars give different field strengths.")
    return Acquisition(
        echo_times_ms=tuple(round(time * 1000, 6) for time in seconds),
        field_strength=next(iter(strengths)) if len(strengths) == 1 else None,
        notes=tuple(notes),
    )


def read_header(content: bytes) -> Header | None:
    """Shape and voxel size from the first bytes of a NIfTI, gzipped or not; None if it is none."""
    start = content[:4096]
    if start[:2] == b"\x1f\x8b":
        try:
            start = zlib.decompressobj(31).decompress(content[:65536], 4096)
        except zlib.error:
            return None
    for order in "<>":
        if len(start) >= 348 and struct.unpack_from(f"{order}i", start)[0] == 348:
            dims = struct.unpack_from(f"{order}8h", start, 40)
            sizes = struct.unpack_from(f"{order}8f", start, 76)
        elif len(start) >= 540 and struct.unpack_from(f"{order}i", start)[0] == 540:
            dims = struct.unpack_from(f"{order}8q", start, 16)
            sizes = struct.unpack_from(f"{order}8d", start, 104)
        else:
            continue
        if not 3 <= dims[0] <= 7 or min(dims[1:4]) < 1:
            return None
        return Header(
            shape=(dims[1], dims[2], dims[3]),
            echoes=max(1, dims[4]) if dims[0] >= 4 else 1,
            voxel_size=(float(abs(sizes[1])), float(abs(sizes[2])), float(abs(sizes[3]))),
        )
    return None


def _role_by_name(name: str) -> Role | None:
    lowered = name.lower()
    if lowered.endswith(".json"):
        return Role.SIDECAR
    base = stem(lowered)
    if "part-phase" in base:
        return Role.PHASE
    if "part-mag" in base:
        return Role.MAGNITUDE
    for pattern, role in (
        (_MASK, Role.MASK),
        # Results are named after the phase that they were made from.
        (_TOTAL_FIELD, Role.TOTAL_FIELD),
        (_LOCAL_FIELD, Role.LOCAL_FIELD),
        (_RESULT, Role.UNUSED),
        (_PHASE, Role.PHASE),
        (_MAGNITUDE, Role.MAGNITUDE),
    ):
        if pattern.search(base):
            return role
    return None


def _role_by_sidecar(content: Mapping[str, Any]) -> Role | None:
    image_type = content.get("ImageType")
    kinds = {str(kind).upper() for kind in image_type} if isinstance(image_type, list) else set()
    if kinds & {"P", "PHASE"}:
        return Role.PHASE
    if kinds & {"M", "MAGNITUDE"}:
        return Role.MAGNITUDE
    return None


def _parse(content: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _numbers(value: object) -> list[float]:
    values: list[object] = value if isinstance(value, list) else [value]
    try:
        numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    except OverflowError:
        return []
    # JSON as Python reads it knows NaN and Infinity.
    return numbers if len(numbers) == len(values) and all(map(math.isfinite, numbers)) else []
