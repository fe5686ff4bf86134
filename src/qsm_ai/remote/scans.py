"""The scans of a BIDS dataset, or of a folder whose layout nobody planned."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qsm_ai.io.bids import derivatives_folder, kind_of, scan_name, sort_files
from qsm_ai.io.source import stem
from qsm_ai.remote.sidecars import applicable

RESULTS = Path("derivatives/qsm-ai")
IMAGES = (".nii", ".nii.gz")
DICOM = (".dcm", ".ima", "")

_WORDS = re.compile(
    r"(?i)(^|[_\-. ])(part-)?(phases?|phs|pha|ph|magnitude|magn|mag|(brain_?|bet_)?mask)\d*(?=$|[_\-. ])"
)
_ECHO = re.compile(r"(?i)(^|[_\-. ])(echo|e)-?\d+(?=$|[_\-. ])")


@dataclass(frozen=True)
class FoundScan:
    """A scan on disk.

    Attributes
    ----------
    name : str
        Unique in the dataset.
    results : Path
        Folder of its results, below the dataset.
    phase, magnitude : tuples of paths
        Echoes in order.
    mask : Path or None
    sidecars : tuple of paths
        That speak of the phase images.
    source : Path or None
        A folder of DICOM files, which is to be converted, in place of images.
    """

    name: str
    results: Path
    phase: tuple[Path, ...] = ()
    magnitude: tuple[Path, ...] = ()
    mask: Path | None = None
    sidecars: tuple[Path, ...] = ()
    source: Path | None = None


def find_scans(root: Path) -> list[FoundScan]:
    """All scans below a folder, in order of their names; results of earlier runs are left out.

    A folder with ``sub-*`` folders is a BIDS dataset. Otherwise images whose names differ in nothing but the
    words for phase, magnitude, mask and echo are one scan, and a folder of DICOM files is one.
    """
    found = list(_bids(root) if any(root.glob("sub-*/")) else _folders(root))
    return sorted(found, key=lambda scan: scan.name)


def _bids(root: Path) -> Iterator[FoundScan]:
    for anat in sorted([*root.glob("sub-*/anat"), *root.glob("sub-*/ses-*/anat")]):
        groups: dict[str, list[Path]] = {}
        for image in _images_in(anat):
            groups.setdefault(scan_name(image.name), []).append(image)
        for name, images in groups.items():
            scan = _scan(root, name, Path(derivatives_folder(name)), images)
            if scan is not None:
                yield scan


def _folders(root: Path) -> Iterator[FoundScan]:
    for folder in [root, *sorted(path for path in root.rglob("*/") if _counts(path, root))]:
        groups: dict[str, list[Path]] = {}
        for image in _images_in(folder):
            groups.setdefault(_ECHO.sub("", _WORDS.sub("", stem(image.name))).strip("_-. "), []).append(image)
        where = ["" if folder == root else "_".join(folder.relative_to(root).parts)]
        for group, images in groups.items():
            name = scan_name("_".join(part for part in (*where, group) if part) or root.name)
            scan = _scan(root, name, RESULTS / name, images)
            if scan is not None:
                yield scan
    for folder in sorted(path for path in root.glob("*/") if _counts(path, root)):
        files = [path for path in folder.rglob("*") if path.is_file()]
        if any(path.name.lower().endswith(IMAGES) for path in files):
            continue
        if any(path.suffix.lower() in DICOM for path in files):
            name = scan_name(folder.name)
            yield FoundScan(name, RESULTS / name, source=folder)


def _scan(root: Path, name: str, results: Path, images: list[Path]) -> FoundScan | None:
    by_name = {image.name: image for image in images}
    found = sort_files(name for name in by_name if kind_of(name) != "other")
    if not found.phase:
        return None
    phase = tuple(by_name[n] for n in found.phase)
    return FoundScan(
        name,
        results,
        phase,
        tuple(by_name[n] for n in found.magnitude),
        by_name[found.mask[0]] if found.mask else None,
        tuple(dict.fromkeys(path for image in phase for path in applicable(image, root))),
    )


def _images_in(folder: Path) -> list[Path]:
    return [
        path for path in sorted(folder.iterdir()) if path.name.lower().endswith(IMAGES) and path.is_file()
    ]


def _counts(folder: Path, root: Path) -> bool:
    parts = folder.relative_to(root).parts
    return folder.is_dir() and parts[0] != "derivatives" and not any(part.startswith(".") for part in parts)
