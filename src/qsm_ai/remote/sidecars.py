"""Of a sidecar, only what physics needs leaves the computer; names, dates and places stay."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from qsm_ai.io.bids import parse
from qsm_ai.io.sidecars import read_sidecar
from qsm_ai.io.source import SourceFile, stem


def reduced(files: Iterable[Path]) -> dict[str, Any]:
    """Echo times, field strength and manufacturer of sidecars; later ones count more.

    Raises
    ------
    SidecarRefusal
        If one is no JSON object, or a value is no number.
    """
    found: dict[str, Any] = {}
    for file in files:
        sidecar = read_sidecar(SourceFile.of(file))
        if sidecar.echo_times:
            times = sidecar.echo_times
            found["EchoTime"] = times[0] if len(times) == 1 else list(times)
        if sidecar.field_strength is not None:
            found["MagneticFieldStrength"] = sidecar.field_strength
        if sidecar.manufacturer:
            found["Manufacturer"] = sidecar.manufacturer
    return found


def applicable(image: Path, root: Path) -> list[Path]:
    """The sidecars that speak of an image by BIDS' inheritance, the most general one first.

    Parameters
    ----------
    image : Path
        Below ``root``.
    root : Path
        Of the dataset; sidecars above the image count if their entities are among the image's.
    """
    name = parse(image.name)
    own = image.with_name(f"{stem(image.name)}.json")
    folders = [folder for folder in reversed(image.parents) if folder == root or root in folder.parents]
    found: list[Path] = []
    for folder in folders:
        matching = []
        for candidate in sorted(folder.glob("*.json")):
            given = parse(candidate.name)
            if candidate == own:
                continue
            if (
                name.suffix
                and given.suffix == name.suffix
                and given.entities.items() <= name.entities.items()
            ):
                matching.append((len(given.entities), candidate))
        found += [candidate for _, candidate in sorted(matching)]
    return [*found, own] if own.is_file() else found


def write_reduced(images: Sequence[Path], root: Path | None, folder: Path) -> list[Path]:
    """Reduced sidecars of some images, written into a folder under the images' names.

    Parameters
    ----------
    images : paths
    root : Path or None
        Of the dataset; ``None``: only the sidecar beside each image.
    folder : Path

    Returns
    -------
    list of paths
        None for images of which nothing is said.
    """
    written = []
    for image in images:
        content = reduced(applicable(image, root or image.parent))
        if content:
            path = folder / f"{stem(image.name)}.json"
            path.write_text(json.dumps(content))
            written.append(path)
    return written


def write_given(sidecars: Sequence[Path], folder: Path) -> list[Path]:
    """Given sidecars, reduced, under their own names."""
    written = []
    for sidecar in sidecars:
        path = folder / sidecar.name
        path.write_text(json.dumps(reduced([sidecar])))
        written.append(path)
    return written
