"""DICOM folders and zips, turned into NIfTI and sidecars by dcm2niix in a temporary folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsm_ai.io.source import Limits, SourceFile
from qsm_ai.io.unpacking import SEND_AGAIN
from qsm_ai.scan import Damaged, FileRefusal, NotAnImage, TooLarge

LONGEST_CONVERSION = 600
"""Seconds."""

MOST_FILES = 50_000
CHUNK = 1 << 20


@dataclass(frozen=True)
class DicomSeries:
    """The multi-echo series found in a DICOM folder.

    Attributes
    ----------
    name : str
        For the results; made of the series number alone, because folders are named after patients.
    phase, magnitude, sidecars : files in the order of the echoes
        They are gone when the conversion's ``with`` block ends.
    """

    name: str
    phase: tuple[SourceFile, ...]
    magnitude: tuple[SourceFile, ...]
    sidecars: tuple[SourceFile, ...]


@dataclass(frozen=True)
class _Converted:
    image: Path
    series: int
    kind: str
    echo_time: float


@contextmanager
def convert_dicom(given: SourceFile | str | Path, limits: Limits | None = None) -> Iterator[DicomSeries]:
    """Convert a DICOM folder or zip and find the phase in it.

    Parameters
    ----------
    given : folder, or zip file
    limits : Limits
        Of the zip, as it is stored and unpacked.

    Yields
    ------
    DicomSeries

    Raises
    ------
    FileRefusal
        If dcm2niix is not installed, nothing can be converted, or no single phase series is found.
    """
    limits = limits or Limits()
    source = SourceFile.of(given)
    with tempfile.TemporaryDirectory(prefix="qsm-ai-dicom-") as scratch:
        folder = source.path
        if folder is None or not folder.is_dir():
            folder = Path(scratch) / "in"
            folder.mkdir()
            _unzip(source, folder, limits)
        out = Path(scratch) / "out"
        out.mkdir()
        _dcm2niix(folder, out, source.name)
        yield _choose(_converted(out), source.name)


def _unzip(source: SourceFile, folder: Path, limits: Limits) -> None:
    """Unpack a zip under names of our own, so that no name in it can lead anywhere."""
    with source.open() as (stream, size):
        if size > limits.stored:
            raise TooLarge(
                f"is larger than the limit of {limits.stored >> 20:,} MiB.",
                mend="Give the multi-echo series alone.",
                file=source.name,
            )
        if not zipfile.is_zipfile(stream):
            raise NotAnImage(
                "is neither a NIfTI image nor a zip of DICOM files.",
                mend="Give NIfTI files, or a folder or zip of DICOM files.",
                file=source.name,
            )
        room = limits.unpacked
        try:
            with zipfile.ZipFile(stream) as archive:
                members = [m for m in archive.infolist() if not m.is_dir()]
                if len(members) > MOST_FILES:
                    raise TooLarge(
                        f"holds more than {MOST_FILES} files.", mend="Give the multi-echo series alone.",
                        file=source.name,
                    )  # fmt: skip
                for number, member in enumerate(members):
                    with archive.open(member) as packed, (folder / f"{number:06d}").open("wb") as file:
                        # Counted as it unfolds: what the zip says about itself may be wrong.
                        while piece := packed.read(CHUNK):
                            room -= len(piece)
                            if room < 0:
                                raise TooLarge(
                                    f"unpacks to more than the limit of {limits.unpacked >> 20:,} MiB.",
                                    mend="Give the multi-echo series alone.",
                                    file=source.name,
                                )
                            file.write(piece)
        except (zipfile.BadZipFile, EOFError, NotImplementedError):
            raise Damaged("is a damaged zip file.", mend=SEND_AGAIN, file=source.name) from None
        except RuntimeError:
            raise FileRefusal(
                "is a zip file with a password.", mend="Give it without one.", file=source.name
            ) from None


def _dcm2niix(folder: Path, out: Path, name: str) -> None:
    program = _program()
    if program is None:
        raise FileRefusal(
            "is DICOM, for which dcm2niix is needed.",
            mend="Install qsm-ai[dicom], or give NIfTI files.",
            file=name,
        )
    # Its defaults file is ignored, identifying fields are left out of the sidecars, nothing is compressed.
    command = [
        program,
        "-g",
        "i",
        "-b",
        "y",
        "-ba",
        "y",
        "-z",
        "n",
        "-f",
        "s%s_e%e",
        "-o",
        str(out),
        str(folder),
    ]
    try:
        subprocess.run(command, capture_output=True, timeout=LONGEST_CONVERSION, check=False)
    except subprocess.TimeoutExpired:
        raise FileRefusal(
            "takes too long to convert.", mend="Give the multi-echo series alone.", file=name
        ) from None


def _program() -> str | None:
    try:
        import dcm2niix
    except ImportError:
        return shutil.which("dcm2niix")
    return str(dcm2niix.bin)


def _converted(out: Path) -> list[_Converted]:
    found = []
    for sidecar in sorted(out.glob("*.json")):
        image = sidecar.with_suffix(".nii")
        if not image.is_file():
            continue
        content = json.loads(sidecar.read_text(encoding="utf-8", errors="replace"))
        echo_time = content.get("EchoTime")
        found.append(
            _Converted(
                image,
                int(content.get("SeriesNumber", 0)),
                _kind(image.stem, content),
                float(echo_time) if isinstance(echo_time, int | float) else 0.0,
            )
        )
    return found


def _kind(stem: str, sidecar: dict[str, Any]) -> str:
    types = {str(t).upper() for t in sidecar.get("ImageType", [])}
    endings = set(stem.split("_"))
    if endings & {"real", "imaginary"} or types & {"REAL", "IMAGINARY"}:
        return "complex"
    if "ph" in endings or types & {"P", "PHASE", "PHASE MAP"}:
        return "phase"
    return "magnitude" if not types or types & {"M", "MAGNITUDE", "FFE"} else "other"


def _choose(converted: list[_Converted], name: str) -> DicomSeries:
    """The one series with phase, and the magnitude of the same echoes."""
    if not converted:
        raise NotAnImage(
            "holds no DICOM images that can be converted.", mend="Give the folder of the series.", file=name
        )
    series: dict[int, list[_Converted]] = {}
    for image in converted:
        if image.kind == "phase":
            series.setdefault(image.series, []).append(image)
    if not series:
        only_complex = any(image.kind == "complex" for image in converted)
        raise FileRefusal(
            "holds real and imaginary images, but no phase." if only_complex else "holds no phase images.",
            mend="Export the phase of the multi-echo series too.",
            file=name,
        )
    most = max(len(images) for images in series.values())
    fullest = [number for number, images in series.items() if len(images) == most]
    if len(fullest) > 1:
        raise FileRefusal(
            f"holds several phase series (numbers {', '.join(map(str, sorted(fullest)))}).",
            mend="Give a folder with one of them and its magnitude.",
            file=name,
        )
    phase = sorted(series[fullest[0]], key=lambda image: image.echo_time)
    times = [image.echo_time for image in phase]
    return DicomSeries(
        f"series-{fullest[0]}",
        tuple(SourceFile.of(image.image) for image in phase),
        tuple(SourceFile.of(image.image) for image in _magnitude(converted, fullest[0], times)),
        tuple(SourceFile.of(image.image.with_suffix(".json")) for image in phase),
    )


def _magnitude(converted: list[_Converted], phase_series: int, times: list[float]) -> list[_Converted]:
    """Of the series whose echo times agree, the nearest before (scanners number magnitude first)."""
    series: dict[int, list[_Converted]] = {}
    for image in converted:
        if image.kind == "magnitude":
            series.setdefault(image.series, []).append(image)
    candidates = []
    for number, images in series.items():
        images.sort(key=lambda image: image.echo_time)
        if [image.echo_time for image in images] == times:
            candidates.append((abs(phase_series - number), number > phase_series, images))
    return min(candidates, key=lambda c: c[:2])[2] if candidates else []
