"""Sidecars: the JSON beside an image, of which only the few values that physics needs are read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import isfinite
from pathlib import Path

from qsm_ai.io.bids import echo_number, in_echo_order, kind_of, parse
from qsm_ai.io.inheritance import applicable, applies
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
        Of several merged ones, the one with the echo times.
    echo_times : tuple of float
        As written: seconds, if it follows BIDS.
    field_strength : T or None
    manufacturer : str
        In lower case, for the sign of the phase.
    units : str
        Of the image, in lower case: a field may be in Hz.
    """

    file: str
    echo_times: tuple[float, ...] = ()
    field_strength: float | None = None
    manufacturer: str = ""
    units: str = ""


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
        str(content.get("Manufacturer") or "").strip().lower(),
        str(content.get("Units") or "").strip().lower(),
    )


def beside(source: SourceFile) -> SourceFile | None:
    """The sidecar next to an image on disk, where there is one."""
    if source.path is None:
        return None
    candidate: Path = source.path.with_name(source.stem + ".json")
    # Unlike Path.is_file, a plain no for names that no file can have.
    return SourceFile.of(candidate) if os.path.isfile(candidate) else None  # noqa: PTH113


def sidecars_of(images: Sequence[SourceFile], given: Sequence[SourceFile]) -> list[Sidecar]:
    """The sidecars that belong to some images, in the order of the images; see ``by_image``.

    Raises
    ------
    SidecarRefusal
        If a given sidecar would change nothing, or one cannot be read.
    """
    return [sidecar for told in by_image(images, given) for sidecar in told]


def by_image(
    images: Sequence[SourceFile], given: Sequence[SourceFile], root: Path | None = None
) -> list[list[Sidecar]]:
    """What sidecars say of each image, value by value.

    The sidecar beside an image counts more than those it inherits from folders above, and a given one more
    than either. A given sidecar belongs to the images that its name fits, else to the image of the same echo;
    one without a partner speaks for all images, several for the echoes of a single image.

    Parameters
    ----------
    images : files in the order of their echoes
    given : JSON files
        Those found on disk are not among them.
    root : Path, optional
        How far up sidecars are inherited where the images lie in no BIDS dataset.

    Returns
    -------
    list of lists of Sidecar
        For each image none, one, or one for each of its echoes. What one given sidecar says of the echo times
        of several images stands with the first.

    Raises
    ------
    SidecarRefusal
        If a given sidecar would change nothing, or one cannot be read.
    """
    found = [[read_sidecar(s) for s in _on_disk(image, root)] for image in images]
    by_name = [_by_name(image, given) for image in images]
    fitting = {id(sidecar) for some in by_name for sidecar in some}
    rest = [sidecar for sidecar in given if id(sidecar) not in fitting]
    if not fitting:
        return _without_names(images, found, rest)
    _require_needless(rest, are_all_told=all(by_name))
    return [
        _merged([*some, *(read_sidecar(sidecar) for sidecar in own)])
        for some, own in zip(found, by_name, strict=True)
    ]


def _on_disk(image: SourceFile, root: Path | None) -> list[SourceFile]:
    """Sidecars of an image, the most general one first; an upload has none but those that came with it."""
    path, own = image.path, beside(image)
    if path is None or path.name != image.name:
        return [] if own is None else [own]
    return [SourceFile.of(sidecar) for sidecar in applicable(path, root)]


def _by_name(image: SourceFile, given: Sequence[SourceFile]) -> list[SourceFile]:
    """Given sidecars whose name fits an image, the most general one first."""
    fitting = [sidecar for sidecar in given if applies(sidecar.name, image.name)]
    return sorted(fitting, key=lambda s: (s.stem == image.stem, len(parse(s.name).entities)))


def _merged(told: Sequence[Sidecar]) -> list[Sidecar]:
    """One sidecar out of several of the same image, of which the later ones count more; none out of none."""
    if not told:
        return []
    one = told[0]
    for other in told[1:]:
        values = {f.name: getattr(other, f.name) for f in fields(other) if f.name != "file"}
        said = {name: value for name, value in values.items() if value not in (None, "", ())}
        file = other.file if other.echo_times or not one.echo_times else one.file
        one = replace(one, file=file, **said)
    return [one]


def _without_names(
    images: Sequence[SourceFile], found: list[list[Sidecar]], given: Sequence[SourceFile]
) -> list[list[Sidecar]]:
    """Given sidecars none of which is named like an image."""
    others = [sidecar for sidecar in given if not _is_of_another_kind(sidecar)]
    given = others or given
    told = [read_sidecar(given[i]) for i in in_echo_order([s.name for s in given])]
    for sidecar in told:
        if not _says_something(sidecar) and any(found):
            raise SidecarRefusal(
                "says neither echo time nor field strength nor manufacturer and would change nothing.",
                mend="Correct it, or leave it out.",
                file=sidecar.file,
            )
    if not told:
        return [_merged(some) for some in found]
    if len(images) == 1:
        if any(sidecar.echo_times for sidecar in told):
            found = [[replace(sidecar, echo_times=()) for sidecar in found[0]]]
        return [[*_merged([*found[0], told[0]]), *told[1:]]]
    if len(told) == 1:
        merged = [_merged([*some, told[0]]) for some in found]
        if not told[0].echo_times:
            return merged
        return [merged[0], *([replace(s, echo_times=()) for s in some] for some in merged[1:])]
    numbers = [echo_number(image.name) for image in images]
    by_number = {echo_number(sidecar.file): sidecar for sidecar in told}
    matching = None not in by_number and len(by_number) == len(told)
    if not matching or set(numbers) != set(by_number):
        lost = next((s for s in told if echo_number(s.file) not in {*numbers} - {None}), told[0])
        raise _belongs_to_nothing(lost.file)
    return [_merged([*some, by_number[number]]) for some, number in zip(found, numbers, strict=True)]


def _require_needless(rest: Sequence[SourceFile], *, are_all_told: bool) -> None:
    """Refuse sidecars that fit no phase image beside others that do, unless they are of other images."""
    for sidecar in rest:
        is_named = are_all_told and "sub" in parse(sidecar.name).entities
        if not (is_named or _is_of_another_kind(sidecar)) and _says_something(read_sidecar(sidecar)):
            raise _belongs_to_nothing(sidecar.name)


def _is_of_another_kind(sidecar: SourceFile) -> bool:
    return kind_of(f"{sidecar.stem}.nii") in {"magnitude", "mask"}


def _says_something(sidecar: Sidecar) -> bool:
    return sidecar != Sidecar(sidecar.file)


def _belongs_to_nothing(file: str) -> SidecarRefusal:
    return SidecarRefusal(
        "does not belong to any of the phase images.",
        mend="Name each sidecar like its image, leave out the others, or give --te-ms and --b0.",
        file=file,
    )


def _number(value: object, key: str, file: str) -> float:
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and isfinite(value):
            return float(value)
    except OverflowError:  # an integer of hundreds of digits
        pass
    raise SidecarRefusal(f"has an {key} that is no number.", mend="Correct it in the sidecar.", file=file)
