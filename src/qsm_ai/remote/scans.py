"""The scans of a BIDS dataset, or of a folder whose layout nobody planned."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qsm_ai.io.bids import acquisition, derivatives_folder, kind_of, parse, scan_name, sort_files
from qsm_ai.io.inheritance import applicable

RESULTS = Path("derivatives/qsm-ai")
IMAGES = (".nii", ".nii.gz")
DICOM = (".dcm", ".ima", "")


@dataclass(frozen=True)
class FoundScan:
    """A scan on disk.

    Attributes
    ----------
    name : str
        Unique in the dataset, also where capitals and small letters are not told apart.
    results : Path
        Folder of its results, below the dataset; no other scan's results have the same names there.
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

    A folder with ``sub-*`` folders is a BIDS dataset. Otherwise a folder of DICOM files is one scan. Images
    whose names differ in nothing but the words for phase, magnitude, mask and echo are one.
    """
    found = list(_bids(root) if any(root.glob("sub-*/")) else _folders(root))
    return sorted(_told_apart(found, root), key=lambda scan: scan.name)


def _told_apart(found: Sequence[FoundScan], root: Path) -> Iterator[FoundScan]:
    """The scans, with a suffix or a few letters in their names where those would be the same."""
    groups: dict[str, list[FoundScan]] = {}
    for scan in found:
        groups.setdefault(scan.name.casefold(), []).append(scan)
    for scans in groups.values():
        if len(scans) == 1:
            yield scans[0]
            continue
        suffixes = [parse(scan.phase[0].name).suffix if scan.phase else "" for scan in scans]
        is_enough = all(suffixes) and len({suffix.casefold() for suffix in suffixes}) == len(scans)
        for scan, suffix in zip(scans, suffixes, strict=True):
            if is_enough and _is_of_bids(scan):
                yield replace(scan, name=f"{scan.name}_{suffix}", results=scan.results / suffix)
                continue
            mark = _mark(scan, root)
            name = f"{scan.name[:80]}-{mark}"
            yield replace(
                scan, name=name, results=scan.results / mark if _is_of_bids(scan) else RESULTS / name
            )


def _is_of_bids(scan: FoundScan) -> bool:
    """Whether other scans share the folder of its results."""
    return scan.results.name == "anat"


def _mark(scan: FoundScan, root: Path) -> str:
    """Six letters that stay the same when scans are added, and tell nothing of the names on disk."""
    first = scan.source or scan.phase[0]
    return hashlib.sha256(first.relative_to(root).as_posix().encode(errors="surrogateescape")).hexdigest()[:6]


def _bids(root: Path) -> Iterator[FoundScan]:
    for anat in sorted([*root.glob("sub-*/anat"), *root.glob("sub-*/ses-*/anat")]):
        groups: dict[str, list[Path]] = {}
        masks: dict[str, list[Path]] = {}
        for image in _images_in(anat):
            among = masks if kind_of(image.name) == "mask" else groups
            among.setdefault(acquisition(image.name), []).append(image)
        for group, images in groups.items():
            name = scan_name(group)
            masked = masks.get(group) or masks.get(name, [])
            scan = _scan(root, name, Path(derivatives_folder(name)), [*images, *masked])
            if scan is not None:
                yield scan


def _folders(root: Path) -> Iterator[FoundScan]:
    for folder in [root, *sorted(path for path in root.rglob("*/") if _counts(path, root))]:
        groups: dict[str, list[Path]] = {}
        for image in _images_in(folder):
            groups.setdefault(acquisition(image.name), []).append(image)
        where = ["" if folder == root else "_".join(folder.relative_to(root).parts)]
        for group, images in groups.items():
            name = scan_name("_".join(part for part in (*where, group) if part) or root.name)
            scan = _scan(root, name, RESULTS / name, images)
            if scan is not None:
                yield scan
    for folder in sorted(path for path in root.glob("*/") if _counts(path, root)):
        files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
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
    """NIfTI files; those that begin with a dot are notes of a file system about others."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith(IMAGES) and path.is_file() and not path.name.startswith(".")
    ]


def _counts(folder: Path, root: Path) -> bool:
    parts = folder.relative_to(root).parts
    return folder.is_dir() and parts[0] != "derivatives" and not any(part.startswith(".") for part in parts)
