"""Phase, magnitude and sidecars from what people point at: files, a BIDS folder, a DICOM folder, a zip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qsm_ai.io.bids import kind_of, sort_files
from qsm_ai.io.dicom import convert_dicom
from qsm_ai.io.source import Limits, SourceFile
from qsm_ai.scan import PhaseRefusal


@dataclass(frozen=True)
class Gathered:
    """Files for ``load_scan``.

    Attributes
    ----------
    phase, magnitude, sidecars : sequences of paths or sources
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
        If no phase can be found.
    """
    if len(phase) != 1 or not (phase[0].is_dir() or kind_of(phase[0].name) == "dicom"):
        yield Gathered(phase, magnitude, sidecars)
    elif images := _images_in(phase[0]):
        found = sort_files(path.name for path in images)
        if not found.phase:
            raise PhaseRefusal(
                "holds NIfTI images, but none whose name says that it is a phase.",
                mend="Name them as BIDS does (part-phase), or give the files themselves.",
                file=phase[0].name,
            )
        folder = phase[0]
        yield Gathered(
            [folder / name for name in found.phase],
            magnitude or [folder / name for name in found.magnitude],
            sidecars,
        )
    else:
        with convert_dicom(phase[0], limits) as series:
            yield Gathered(
                series.phase, magnitude or series.magnitude, [*series.sidecars, *sidecars], series.name
            )


def _images_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if path.name.lower().endswith((".nii", ".nii.gz"))]
