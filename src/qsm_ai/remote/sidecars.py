"""Of a sidecar, only what physics needs leaves the computer; names, dates and places stay."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qsm_ai.io.sidecars import Sidecar, by_image
from qsm_ai.io.source import SourceFile
from qsm_ai.scan import SidecarRefusal


def write_reduced(
    images: Sequence[Path], root: Path | None, folder: Path, given: Sequence[Path] = ()
) -> list[Path]:
    """Echo times, field strength, manufacturer and units, written into a folder under the images' names.

    Parameters
    ----------
    images : paths
        In the order of the echoes.
    root : Path or None
        How far up sidecars are inherited where the images lie in no BIDS dataset; ``None``: not at all.
    folder : Path
    given : paths
        Sidecars that count more than those on disk.

    Returns
    -------
    list of paths
        None for images of which nothing is said.

    Raises
    ------
    SidecarRefusal
        If one is no JSON object, a value is no number, or a given one belongs to no image.
    """
    written = []
    told = by_image([SourceFile.of(i) for i in images], [SourceFile.of(g) for g in given], root)
    for image, sidecars in zip(images, told, strict=True):
        content = _reduced(sidecars)
        if content:
            path = folder / f"{SourceFile.of(image).stem}.json"
            path.write_text(json.dumps(content))
            written.append(path)
    return written


def _reduced(sidecars: Sequence[Sidecar]) -> dict[str, Any]:
    """What several sidecars say of one image, the echo times one after the other."""
    found: dict[str, Any] = {}
    times: list[float] = []
    for sidecar in sidecars:
        times += sidecar.echo_times
        strength = sidecar.field_strength
        if strength is not None and found.setdefault("MagneticFieldStrength", strength) != strength:
            raise SidecarRefusal(
                "names another field strength than the other sidecars.",
                mend="Correct it, or give --te-ms and --b0 and leave the sidecars out.",
                file=sidecar.file,
            )
        if sidecar.manufacturer:
            found["Manufacturer"] = sidecar.manufacturer
        if sidecar.units:
            found["Units"] = sidecar.units
    if times:
        found["EchoTime"] = times[0] if len(times) == 1 else times
    return found
