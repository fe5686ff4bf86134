"""BIDS names: what a file name says, and what results are called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from qsm_ai.io.source import stem
from qsm_ai.reconstruction.stages import ARTEFACTS

Kind = Literal["phase", "magnitude", "mask", "sidecar", "dicom", "other"]

_ENTITY = re.compile(r"^([a-zA-Z]+)-([a-zA-Z0-9+]+)$")
_DROPPED = {"echo", "part"}
_RAW_SUFFIXES = {"MEGRE", "T2starw", "GRE", "MESWI", "bold", "mask"}
_RESULTS = {artefact.suffix for artefact in ARTEFACTS.values()} - {"mask"}
"""Of what was made of a scan, whatever word for phase the scan's own name holds."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")

_PHASE_WORD = re.compile(r"(^|[_\-. ])(ph|pha|phase|phases|phs|ph\d*|phase\d+)([_\-. ]|$)", re.IGNORECASE)
_MAGNITUDE_WORD = re.compile(r"(^|[_\-. ])(mag|magn|magnitude|mag\d+|magnitude\d+)([_\-. ]|$)", re.IGNORECASE)
_MASK_WORD = re.compile(r"(^|[_\-. ])(mask|brainmask|bet_mask|brain_mask)([_\-. ]|$)", re.IGNORECASE)

_IMAGE_WORD = r"phases?|phs|pha|ph|magnitude|magn|mag"
_ANY_WORD = re.compile(
    rf"(?i)(^|[_\-. ])(part-)?({_IMAGE_WORD}|(brain_?|bet_)?mask)\d*(?=$|[_\-. ])",
)
_ECHO = re.compile(r"(?i)(?:^|[_\-. ])(?:echo|e)-?(\d+)(?=$|[_\-. ])")
_ECHO_TIME = re.compile(r"(?i)(?:^|[_\-. ])te-?(\d+(?:\.\d+)?)(?:ms)?(?=$|[_\-. ])")
_NUMBERED = re.compile(rf"(?i)((?:^|[_\-. ])(?:{_IMAGE_WORD}))[_\-. ]?(\d+)(?=$|[_\-. ])")


@dataclass(frozen=True)
class Name:
    """A file name taken apart.

    Attributes
    ----------
    entities : dict
        ``{"sub": "01", "echo": "2", "part": "phase"}``; empty for a name that is not BIDS.
    suffix : str
        What follows the last entity: ``MEGRE``, ``mask``.
    is_plain : bool
        Whether there is nothing else in the name.
    """

    entities: dict[str, str] = field(default_factory=dict)
    suffix: str = ""
    is_plain: bool = True

    @property
    def echo(self) -> int | None:
        """Number of the echo, where the name gives one."""
        number = self.entities.get("echo", "")
        return int(number) if number.isdigit() else None


def parse(name: str) -> Name:
    """Take a file name apart.

    >>> parse("sub-01_echo-2_part-phase_MEGRE.nii.gz").entities["part"]
    'phase'
    """
    *parts, last = stem(name).split("_")
    entities = {}
    for part in parts:
        if match := _ENTITY.match(part):
            entities[match[1]] = match[2]
    is_plain = all(_ENTITY.match(part) for part in parts)
    if match := _ENTITY.match(last):
        entities[match[1]] = match[2]
        return Name(entities, is_plain=is_plain)
    return Name(entities, last, is_plain)


def scan_name(name: str) -> str:
    """Stem of the results of an input file: entities of single files dropped, safe for any file system.

    >>> scan_name("sub-01_ses-a_echo-1_part-phase_MEGRE.nii.gz")
    'sub-01_ses-a'
    >>> scan_name("my phase.nii")
    'my_phase'
    """
    parts = stem(name).split("_")
    if any(_ENTITY.match(p) for p in parts):
        if parts[-1] in _RAW_SUFFIXES:
            parts.pop()
        parts = [p for p in parts if not ((m := _ENTITY.match(p)) and m[1] in _DROPPED)]
    safe = _UNSAFE.sub("_", "_".join(parts)).strip("._-")
    return safe[:100] or "scan"


def acquisition(name: str, *, as_one: bool = False) -> str:
    """What the names of all files of one acquisition share: no word for phase, magnitude or mask, no echo.

    Parameters
    ----------
    name : str
    as_one : bool
        For files that are given as one scan: a number behind such a word (``phase_2``) and an echo time
        (``te8``) tell echoes apart. Among many scans they may as well tell patients apart.

    Returns
    -------
    str
        With the suffix of a BIDS name, because ``MEGRE`` and ``T2starw`` are two acquisitions.

    >>> acquisition("sub-01_echo-2_part-phase_MEGRE.nii.gz")
    'sub-01_MEGRE'
    >>> acquisition("ann_mag_e1.nii")
    'ann'
    """
    base = stem(name)
    parts = base.split("_")
    if parts[0].startswith("sub-") and _ENTITY.match(parts[0]):
        entities = [m for part in parts if (m := _ENTITY.match(part))]
        kept = [m[0] for m in entities if m[1] not in _DROPPED]
        loose = [_bare(part, as_one) for part in parts if not _ENTITY.match(part)]
        return "_".join(part for part in (*kept, *loose) if part)
    return _bare(base, as_one)


def _bare(text: str, as_one: bool) -> str:
    if as_one:
        text = _ECHO_TIME.sub("", _NUMBERED.sub(r"\1", text))
    return _ECHO.sub("", _ANY_WORD.sub("", text)).strip("_-. ")


def echo_number(name: str) -> float | None:
    """Where a file stands among the echoes, as far as its name tells.

    The number behind ``echo-``, ``e`` or ``te``, or the one behind the word for phase or magnitude.

    >>> [echo_number(name) for name in ("scan_e10_ph.nii", "phase3.nii.gz", "phase.nii")]
    [10.0, 3.0, None]
    """
    entity = parse(name).echo
    if entity is not None:
        return float(entity)
    base = stem(name)
    for pattern in (_ECHO, _ECHO_TIME, _NUMBERED):
        if match := pattern.search(base):
            return float(match[match.lastindex or 0])
    return None


def kind_of(name: str) -> Kind:
    """What a file is for, as far as its name tells.

    >>> kind_of("sub-01_echo-1_part-mag_MEGRE.nii.gz")
    'magnitude'
    """
    lower = name.lower()
    if lower.endswith(".json"):
        return "sidecar"
    if lower.endswith((".zip", ".dcm", ".ima")):
        return "dicom"
    if not lower.endswith((".nii", ".nii.gz")):
        return "other"
    parsed = parse(name)
    part = parsed.entities.get("part")
    if part in {"phase", "mag"}:
        return "phase" if part == "phase" else "magnitude"
    base = "" if parsed.suffix in _RESULTS else stem(name)
    for word, kind in (
        (_MASK_WORD, "mask"),
        (_PHASE_WORD, "phase"),
        (_MAGNITUDE_WORD, "magnitude"),
    ):
        if word.search(base):
            return kind  # type: ignore[return-value]
    return "other"


def in_echo_order(names: Sequence[str]) -> list[int]:
    """Indices that put files into the order of their echoes.

    A shell sorts ``echo-10`` before ``echo-2``, and ``phase10`` before ``phase2``. Where every name carries a
    number of its own, that order counts; otherwise the given one.
    """
    echoes = [echo_number(name) for name in names]
    known = [echo for echo in echoes if echo is not None]
    if len(set(known)) < len(names):
        return list(range(len(names)))
    return sorted(range(len(names)), key=lambda i: known[i])


@dataclass(frozen=True)
class Sorted:
    """Dropped files, each where it belongs."""

    phase: tuple[str, ...] = ()
    magnitude: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    sidecars: tuple[str, ...] = ()
    other: tuple[str, ...] = ()


def sort_files(names: Iterable[str]) -> Sorted:
    """Sort dropped files by their names alone; echoes in order.

    A single image without a telling name, where no phase was found, is taken as the phase.
    """
    groups: dict[Kind, list[str]] = {}
    for name in names:
        groups.setdefault(kind_of(name), []).append(name)
    images = [n for n in groups.get("other", []) if n.lower().endswith((".nii", ".nii.gz"))]
    if "phase" not in groups and len(images) == 1:
        groups["phase"] = images
        groups["other"] = [n for n in groups["other"] if n not in images]

    def ordered(kind: Kind) -> tuple[str, ...]:
        found = groups.get(kind, [])
        return tuple(found[i] for i in in_echo_order(found))

    return Sorted(
        phase=ordered("phase"),
        magnitude=ordered("magnitude"),
        mask=tuple(groups.get("mask", [])),
        sidecars=tuple(groups.get("sidecar", [])),
        other=tuple(groups.get("other", []) + groups.get("dicom", [])),
    )


def derivatives_folder(name: str) -> str:
    """Where BIDS keeps the results of a scan.

    >>> derivatives_folder("sub-01_ses-a")
    'derivatives/qsm-ai/sub-01/ses-a/anat'
    """
    entities = parse(name + "_x").entities
    levels = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    return "/".join(["derivatives", "qsm-ai", *(levels or ["sub-unknown"]), "anat"])
