"""Which sidecars speak of an image: BIDS lets those of folders above hold for all images below."""

from __future__ import annotations

import os
import re
from pathlib import Path

from qsm_ai.io.bids import parse
from qsm_ai.io.source import stem

_SUBJECT = re.compile(r"sub-[a-zA-Z0-9+]+")


def applies(sidecar: str, image: str) -> bool:
    """Whether a sidecar of this name speaks of an image of that name.

    It does if both are called the same, or if both have BIDS names with the same suffix and the sidecar's
    entities are among the image's.

    >>> applies("echo-1_MEGRE.json", "sub-01_echo-1_part-phase_MEGRE.nii.gz")
    True
    >>> applies("bob_phase.json", "ann_phase.nii.gz")
    False
    """
    return stem(sidecar) == stem(image) or _is_inherited(sidecar, image)


def _is_inherited(sidecar: str, image: str) -> bool:
    told, name = parse(sidecar), parse(image)
    # Words that are no entities may be all that tells two scans apart.
    if not name.suffix or not name.entities or not (told.is_plain and name.is_plain):
        return False
    return told.suffix == name.suffix and told.entities.items() <= name.entities.items()


def dataset_of(image: Path) -> Path | None:
    """The BIDS dataset an image lies in: the folder with its description, or the one with its subject."""
    for folder in image.parents:
        if os.path.isfile(folder / "dataset_description.json"):  # noqa: PTH113
            return folder
        if _SUBJECT.fullmatch(folder.name):
            return folder.parent
    return None


def applicable(image: Path, root: Path | None = None) -> list[Path]:
    """The sidecars on disk that speak of an image, the most general one first.

    Parameters
    ----------
    image : Path
    root : Path, optional
        Up to which folder sidecars count, where the image lies in no BIDS dataset; its own when left out.
    """
    # Lexically absolute: the images of a dataset may be links into a store that has no sidecars.
    image = Path(os.path.abspath(image))  # noqa: PTH100
    top = dataset_of(image) or Path(os.path.abspath(root or image.parent))  # noqa: PTH100
    own = image.with_name(f"{stem(image.name)}.json")
    found: list[Path] = []
    for folder in reversed(image.parents):
        if folder != top and top not in folder.parents:
            continue
        matching = [
            path for path in _sidecars_in(folder) if path != own and _is_inherited(path.name, image.name)
        ]
        found += sorted(matching, key=lambda path: (len(parse(path.name).entities), path.name))
    return [*found, own] if os.path.isfile(own) else found  # noqa: PTH113


def _sidecars_in(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.glob("*.json") if not path.name.startswith(".")]
    except OSError:
        return []
