"""Writing results: all of them or none, on the input's grid, with nothing of its header but geometry."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray

from qsm_ai.io.picture import three_planes
from qsm_ai.io.quality_page import PICTURED, quality_page
from qsm_ai.io.report import make_report
from qsm_ai.reconstruction.pipeline import Reconstruction
from qsm_ai.reconstruction.stages import ARTEFACTS
from qsm_ai.scan import Grid, OutputRefusal, Scan

REPORT_SUFFIX = "qsm.json"
PICTURE_SUFFIX = "Chimap.png"
PAGE_SUFFIX = "qsm.html"


def encode_nifti(volume: NDArray[Any], grid: Grid, window: tuple[float, float] = (0.0, 0.0)) -> bytes:
    """A gzipped NIfTI-1 file with the geometry that the input's header had.

    Parameters
    ----------
    volume : (X, Y, Z) array
        bool is written as 8-bit integers, 16-bit integers as they are, everything else as 32-bit floats.
    grid : Grid
        A grid without stored header fields is written by its affine, as scanner coordinates.
    window : (low, high)
        Suggested to viewers; (0, 0) suggests nothing.

    Returns
    -------
    bytes
        The same for the same input, whenever it is written.
    """
    kind = {"b": np.uint8, "i": np.dtype("<i2")}.get(volume.dtype.kind, np.dtype("<f4"))
    stored: NDArray[Any] = volume.astype(kind, copy=False)  # type: ignore[call-overload]
    header: Any = Nifti1Header(endianness="<")  # type: ignore[no-untyped-call]
    header.set_data_shape(stored.shape)
    header.set_data_dtype(stored.dtype)
    if grid.header:
        for key, value in grid.header.items():
            if key == "pixdim":
                header["pixdim"][: len(value)] = value  # type: ignore[arg-type]
            else:
                header[key] = value
    else:
        header.set_qform(grid.affine, code=1)
        header.set_sform(grid.affine, code=1)
        header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header["cal_min"], header["cal_max"] = window
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    content = header.binaryblock + b"\0\0\0\0" + stored.tobytes(order="F")
    return gzip.compress(content, compresslevel=1, mtime=0)


def picture(scan: Scan, reconstruction: Reconstruction, name: str = "chi") -> bytes:
    """A PNG of three planes of one artefact."""
    artefact = ARTEFACTS[name]
    volume = reconstruction.artefacts[name].astype(np.float32, copy=False)
    codes = (scan.grid.header.get("qform_code", 1), scan.grid.header.get("sform_code", 1))
    return three_planes(
        volume, scan.grid, artefact.window, artefact.title, artefact.unit, oriented=any(codes)
    )


def write_outputs(
    scan: Scan,
    reconstruction: Reconstruction,
    folder: str | Path,
    file_timings: Mapping[str, float] | None = None,
) -> dict[str, Path]:
    """Write every artefact, the report, the picture and the quality page into a folder.

    Everything is written beside its place first and moved there at the end, so that a failure leaves the
    folder as it was. Results of an earlier run under the same name are replaced.

    Parameters
    ----------
    scan : Scan
    reconstruction : Reconstruction
    folder : path
        Made if it does not exist.
    file_timings : dict
        Seconds spent on files before, for the report.

    Returns
    -------
    dict
        Artefact name, "report", "picture" or "page" to the file's path.

    Raises
    ------
    OutputRefusal
        If the folder cannot be made or written.
    """
    started = time.perf_counter()
    with _all_or_nothing(Path(folder)) as (staging, final):
        files: dict[str, str] = {}
        for name, volume in reconstruction.artefacts.items():
            files[name] = f"{scan.name}_{ARTEFACTS[name].suffix}.nii.gz"
            content = encode_nifti(volume, scan.grid, ARTEFACTS[name].window)
            (staging / files[name]).write_bytes(content)
        files["picture"] = f"{scan.name}_{PICTURE_SUFFIX}"
        shown = {n: picture(scan, reconstruction, n) for n in PICTURED if n in reconstruction.artefacts}
        (staging / files["picture"]).write_bytes(shown["chi"])
        files["report"] = f"{scan.name}_{REPORT_SUFFIX}"
        timings = {**(file_timings or {}), "writing": time.perf_counter() - started}
        report = make_report(scan, reconstruction, timings)
        (staging / files["report"]).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        files["page"] = f"{scan.name}_{PAGE_SUFFIX}"
        page = quality_page(report, shown, reconstruction.chi, reconstruction.artefacts["mask"])
        (staging / files["page"]).write_text(page, encoding="utf-8")
        _require_files(final / file for file in files.values())
        written = {name: final / file for name, file in files.items()}
        with in_place_of_older(written["report"], files.values()):
            for path in written.values():
                os.replace(staging / path.name, path)  # noqa: PTH105 - one call for files on one disk
    return written


@contextmanager
def in_place_of_older(report: Path, new: Iterable[str]) -> Iterator[None]:
    """Remove :func:`older_results` once the new ones are written; none if that fails.

    Parameters
    ----------
    report, new
        See :func:`older_results`.
    """
    older = older_results(report, new)
    yield
    for path in older:
        path.unlink(missing_ok=True)


def older_results(report: Path, new: Iterable[str]) -> list[Path]:
    """Volumes of an earlier run that the new one does not replace: they would pass for its own.

    Parameters
    ----------
    report : Path
        Of the earlier run, before it is replaced; need not exist. No other files are named than it lists.
    new : names of files
        That the new run makes.

    Returns
    -------
    list of Path
    """
    try:
        told = json.loads(report.read_text(encoding="utf-8"))
        listed = [str(artefact["file"]) for artefact in told["artefacts"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    stem = report.name.removesuffix(REPORT_SUFFIX)
    ours = {f"{stem}{artefact.suffix}.nii.gz" for artefact in ARTEFACTS.values()}
    return [report.with_name(name) for name in sorted((ours & set(listed)) - set(new))]


def require_writable(folder: str | Path, scan: str | None = None, inputs: Iterable[Path | None] = ()) -> None:
    """Refuse a folder into which results could not be written, before any work is done for them.

    Parameters
    ----------
    folder : path
        Need not exist.
    scan : str, optional
        Name of a scan: the places of its results are looked at, too.
    inputs : paths
        That no result may replace.

    Raises
    ------
    OutputRefusal
    """
    path = Path(folder)
    try:
        if any(p.is_symlink() and not p.exists() for p in (path, *path.parents)):
            raise OutputRefusal(
                "The output is a link that leads nowhere.", mend="Give a folder with --output."
            )
        existing = next((p for p in (path, *path.parents) if p.exists()), path)
        if not existing.is_dir():
            raise OutputRefusal("The output is no folder.", mend="Give a folder with --output.")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise _not_writable()
        if scan is not None:
            suffixes = [
                *(f"{a.suffix}.nii.gz" for a in ARTEFACTS.values()),
                PICTURE_SUFFIX,
                REPORT_SUFFIX,
                PAGE_SUFFIX,
            ]
            places = [path / f"{scan}_{suffix}" for suffix in suffixes]
            _require_files(places)
            require_apart(places, inputs)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise OutputRefusal(
                "The output has a longer name than a folder can have.",
                mend="Give a shorter one with --output.",
            ) from None
        raise _not_writable() from None


def _not_writable() -> OutputRefusal:
    return OutputRefusal(
        "The output folder cannot be written.", mend="Give a folder of your own with --output."
    )


def _require_files(places: Iterable[Path]) -> None:
    """Refuse a folder that stands where a result would."""
    for place in places:
        if place.is_dir():
            raise OutputRefusal(
                "is a folder in the output, where a result would be written.",
                mend="Move it away, or give another folder with --output.",
                file=place.name,
            )


def require_apart(places: Iterable[Path], inputs: Iterable[Path | None]) -> None:
    """Refuse results that would be written over what was given.

    Parameters
    ----------
    places : paths
        Of results.
    inputs : paths
        None for what was not given.

    Raises
    ------
    OutputRefusal
    """
    given = [path for path in inputs if path is not None and path.exists()]
    for place in places:
        if place.exists() and any(place.samefile(path) for path in given):
            raise OutputRefusal(
                "was given, and a result of the same name would replace it.",
                mend="Give another folder with --output.",
                file=place.name,
            )


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A place to write and the final folder; both gone if anything fails and they were not there before."""
    made: list[Path] = []
    try:
        made = [p for p in (folder, *folder.parents) if not p.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".qsm-ai-", dir=folder))
    except OSError:
        _remove_empty(made)
        raise _not_writable() from None
    try:
        yield staging, folder
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(made)
        if isinstance(error, OSError):
            raise OutputRefusal(
                "The results could not be written.", mend="Check the space left on the disk."
            ) from error
        raise
    staging.rmdir()


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
