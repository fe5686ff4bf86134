"""Sidecars: the JSON beside an image, of which only the few values that physics needs are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from qsm_ai.io.bids import in_echo_order, parse
from qsm_ai.io.source import SourceFile
from qsm_ai.physics.dipole import GYROMAGNETIC_RATIO
from qsm_ai.scan import SidecarRefusal

LARGEST = 1 << 22
"""Bytes; a sidecar is a page of text."""


@dataclass(frozen=True)
class Sidecar:
    """What a sidecar says about physics. Everything else in it (names, dates, places) is never read.

    Attributes
    ----------
    file : str
    echo_times : tuple of float
        As written: seconds, if it follows BIDS.
    field_strength : T or None
    manufacturer : str
        In lower case, for the sign of the phase.
    """

    file: str
    echo_times: tuple[float, ...] = ()
    field_strength: float | None = None
    manufacturer: str = ""


def read_sidecar(source: SourceFile) -> Sidecar:
    """Read one sidecar.

    Raises
    ------
    SidecarRefusal
        If it is no JSON object, or a value that is needed is no number.
    """
    with source.open() as (stream, size):
        if size > LARGEST:
            raise SidecarRefusal("is too large for a sidecar.", mend="Give the JSON file of the image.",
                                 file=source.name)  # fmt: skip
        raw = stream.read(LARGEST)
    try:
        content = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise SidecarRefusal(
            "is not a JSON object.",
            mend="Correct it, or leave it out and give --te-ms and --b0.",
            file=source.name,
        )
    given = content.get("EchoTime")
    if given is None:
        numbered: list[object] = []
        while (value := content.get(f"EchoTime{len(numbered) + 1}")) is not None:
            numbered.append(value)
        given = numbered
    times = given if isinstance(given, list) else [given]
    strength = content.get("MagneticFieldStrength")
    if strength is None and (frequency := content.get("ImagingFrequency")) is not None:
        strength = _number(frequency, "ImagingFrequency", source.name) / GYROMAGNETIC_RATIO
    return Sidecar(
        source.name,
        tuple(_number(t, "EchoTime", source.name) for t in times),
        None if strength is None else _number(strength, "MagneticFieldStrength", source.name),
        str(content.get("Manufacturer", "")).lower(),
    )


def beside(source: SourceFile) -> SourceFile | None:
    """The sidecar next to an image on disk, where there is one."""
    if source.path is None:
        return None
    candidate: Path = source.path.with_name(source.stem + ".json")
    return SourceFile.of(candidate) if candidate.is_file() else None


def sidecars_of(images: Sequence[SourceFile], given: Sequence[SourceFile]) -> list[Sidecar]:
    """The sidecars that belong to some images, in the order of the images.

    A given sidecar belongs to the image of the same name, else to the one of the same echo; one sidecar
    without a partner speaks for all images. Without any given one, those lying beside the images are read.

    Raises
    ------
    SidecarRefusal
        If sidecars were given that belong to none of several images.
    """
    by_stem = {sidecar.stem: sidecar for sidecar in given}
    own = [by_stem.get(image.stem) or beside(image) for image in images]
    if not any(own) and given:
        own = _by_echo(images, given)
    return [read_sidecar(sidecar) for sidecar in own if sidecar is not None]


def _by_echo(images: Sequence[SourceFile], given: Sequence[SourceFile]) -> list[SourceFile | None]:
    ordered = [given[i] for i in in_echo_order([s.name for s in given])]
    if len(images) == 1 or len(given) == 1:
        return list(ordered)
    by_number = {parse(s.name).echo: s for s in given}
    matched = [by_number.get(parse(image.name).echo) for image in images]
    if None in by_number or not all(matched):
        raise SidecarRefusal(
            "does not belong to any of the phase images.",
            mend="Name each sidecar like its image, or give --te-ms and --b0.",
            file=given[0].name,
        )
    return list(matched)


def _number(value: object, key: str, file: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise SidecarRefusal(f"has an {key} that is no number.", mend="Correct it in the sidecar.", file=file)
    return float(value)
