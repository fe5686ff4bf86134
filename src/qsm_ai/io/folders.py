"""Phase, magnitude and sidecars from what people point at: files, a BIDS folder, a DICOM folder, a zip."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qsm_ai.io.bids import acquisition, parse, sort_files
from qsm_ai.io.dicom import convert_dicom, refuse_single_files
from qsm_ai.io.source import Limits, SourceFile
from qsm_ai.scan import FileRefusal, PhaseRefusal

MOST_NAMED = 4
"""Scans that a refusal lists."""


@dataclass(frozen=True)
class Gathered:
    """Files for ``load_scan``.

    Attributes
    ----------
    phase, magnitude, sidecars : sequences of paths or sources
        Sidecars beside the images are found without being listed here.
    name : str or None
        For the results, where the files' own names are not to be used.
    """

    phase: Sequence[SourceFile | Path]
    magnitude: Sequence[SourceFile | Path]
    sidecars: Sequence[SourceFile | Path]
    name: str | None = None


@contextmanager
def open_given(
    phase: Sequence[Path], magnitude: Sequence[Path], sidecars: Sequence[Path], limits: Limits | None = None
) -> Iterator[Gathered]:
    """Resolve a folder or zip given as the phase; anything else stays as it is.

    Parameters
    ----------
    phase : paths
        Files; or one folder (NIfTI files sorted by their names, else DICOM); or one zip of DICOM files.
    magnitude, sidecars : paths
        Count more than those found in the folder.
    limits : Limits

    Yields
    ------
    Gathered
        Converted files are gone when the ``with`` block ends.

    Raises
    ------
    Refusal
        If no phase can be found, or that of several scans.
    """
    # Unlike Path.is_dir, a plain no for names that no file can have.
    is_folder = len(phase) == 1 and os.path.isdir(phase[0])  # noqa: PTH112
    if is_folder and (images := _images_in(phase[0])):
        found_phase, found_magnitude = _scan_among(images, phase[0].name)
        yield Gathered(found_phase, magnitude or found_magnitude, sidecars)
    elif is_folder or (len(phase) == 1 and phase[0].suffix.lower() == ".zip"):
        with convert_dicom(phase[0], limits) as series:
            yield Gathered(series.phase, magnitude or series.magnitude, sidecars, series.name)
    else:
        refuse_single_files(phase)
        yield Gathered(phase, magnitude, sidecars)


def _scan_among(images: Sequence[Path], folder: str) -> tuple[list[Path], list[Path]]:
    """Phase and magnitude of the one scan that the images of a folder are of."""
    by_name = {path.name: path for path in images}
    found = sort_files(by_name)
    if not found.phase:
        parts = {parse(name).entities.get("part") for name in by_name}
        if parts & {"real", "imag"}:
            raise PhaseRefusal(
                "holds real and imaginary images, but no phase.",
                mend="Give the phase: the angle of real + i · imaginary.",
                file=folder,
            )
        raise PhaseRefusal(
            "holds NIfTI images, but none whose name says that it is a phase.",
            mend="Name them as BIDS does (part-phase), or give the files themselves.",
            file=folder,
        )
    scans = sorted({acquisition(name, as_one=True) for name in found.phase})
    if len(scans) > 1:
        listed = ", ".join(name or "without a name" for name in scans[:MOST_NAMED])
        raise PhaseRefusal(
            f"holds several scans ({listed}{', …' if len(scans) > MOST_NAMED else ''}).",
            mend="Give the files of one of them, or use qsm-ai batch.",
            file=folder,
        )
    return [by_name[n] for n in found.phase], [by_name[n] for n in _matching(found.magnitude, scans[0])]


def _matching(magnitude: Sequence[str], scan: str) -> list[str]:
    """The magnitude of a scan: by its name, or the only one there is where names follow no rule."""
    same = [name for name in magnitude if acquisition(name, as_one=True) == scan]
    if same or any("sub" in parse(name).entities for name in magnitude):
        return same
    return list(magnitude) if len({acquisition(name, as_one=True) for name in magnitude}) == 1 else []


def _images_in(folder: Path) -> list[Path]:
    """NIfTI files; those that begin with a dot are notes of a file system about others."""
    try:
        files = sorted(folder.iterdir())
    except OSError:
        raise FileRefusal("cannot be opened.", mend="Check that you may read it.", file=folder.name) from None
    return [p for p in files if p.name.lower().endswith((".nii", ".nii.gz")) and not p.name.startswith(".")]
