"""DICOM folders and zips, turned into NIfTI and sidecars by dcm2niix in a temporary folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsm_ai.io.source import Limits, SourceFile
from qsm_ai.io.unzipping import MAKE_ROOM, unzip
from qsm_ai.scan import FileRefusal, NotAnImage

LONGEST_CONVERSION = 600
"""Seconds."""

CONVERTED, NOTHING_FOUND = 0, 2
"""What dcm2niix returns when it has left nothing out; the second one where there is no DICOM at all."""

IMAGES = (".nii", ".nii.gz")

_NAMED = "study%k_series%j_s%s_e%e"
_STEM = re.compile(r"study(.*?)_series(.*?)_s\d+_e(\d*)")
_WRITTEN = re.compile(r"Convert \d+ DICOM as (.+) \(\d+x\d+")
_UNEVEN = "Interslice distance varies"


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
    study: str
    uid: str
    series: int
    kind: str
    echo: int
    echo_time: float
    is_whole: bool

    @property
    def key(self) -> tuple[str, str, int]:
        """Of its series: scanners count from one again for the next patient."""
        return self.study, self.uid, self.series

    @property
    def order(self) -> tuple[float, int]:
        """Among the echoes: by time; some exports leave it out and keep the number."""
        return self.echo_time, 0 if self.echo_time else self.echo


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
        If dcm2niix is not installed, anything is left out of the conversion, slices are missing, or no single
        phase series is found.
    """
    limits = limits or Limits()
    source = SourceFile.of(given)
    try:
        held = tempfile.TemporaryDirectory(prefix="qsm-ai-dicom-")
    except OSError:
        raise FileRefusal("cannot be unpacked for now.", mend=MAKE_ROOM, file=source.name) from None
    with held as scratch:
        folder = source.path
        names: list[str] | None = None
        if folder is None or not folder.is_dir():
            folder = Path(scratch) / "in"
            folder.mkdir()
            names = unzip(source, folder, limits)
        out = Path(scratch) / "out"
        out.mkdir()
        uneven = _dcm2niix(folder, out, source.name)
        converted = _converted(out, uneven)
        if not converted:
            raise _nothing_converted(folder, names, source.name)
        yield _named(*_choose(converted, source.name), Path(scratch))


def refuse_single_files(files: Sequence[SourceFile | Path]) -> None:
    """Refuse DICOM files that are given one by one: a slice alone says nothing about the others.

    Raises
    ------
    NotAnImage
    """
    for file in files:
        source = SourceFile.of(file)
        if source.path is not None and _is_dicom(source.path, source.name):
            raise NotAnImage(
                "is a single DICOM file.",
                mend="Give qsm-ai reconstruct the folder of the series or a zip of it, or NIfTI files.",
                file=source.name,
            )


def _is_dicom(path: Path, name: str) -> bool:
    # Nothing but a plain file may be opened: a pipe would wait for its other end.
    if not os.path.isfile(path):  # noqa: PTH113
        return False
    try:
        with path.open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or name.lower().endswith((".dcm", ".ima"))


def _nothing_converted(folder: Path, names: list[str] | None, name: str) -> NotAnImage:
    if names is None:
        inside = [p.name for p in folder.rglob("*.nii*") if not p.name.startswith(".")]
    else:
        inside = [Path(n).name for n in names]
    if any(n.lower().endswith(IMAGES) for n in inside):
        return NotAnImage(
            "holds its NIfTI images in folders of its own." if names is None else "is a zip of NIfTI images.",
            mend="Give one of these folders (in BIDS, anat), or all of them to qsm-ai batch."
            if names is None
            else "Unpack it, and give the folder or the files.",
            file=name,
        )
    return NotAnImage(
        "holds no DICOM images that can be converted.", mend="Give the folder of the series.", file=name
    )


def _dcm2niix(folder: Path, out: Path, name: str) -> set[str]:
    """Convert all of it, and return the stems of images whose slices are not equally far apart."""
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
        _NAMED,
        "-o",
        str(out),
        str(folder),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=LONGEST_CONVERSION, check=False, text=True, errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise FileRefusal(
            "takes too long to convert.", mend="Give the multi-echo series alone.", file=name
        ) from None
    if "disk full" in done.stderr:
        raise FileRefusal("could not be converted completely.", mend=MAKE_ROOM, file=name)
    if done.returncode not in (CONVERTED, NOTHING_FOUND):
        raise FileRefusal(
            "could not be converted completely: files are damaged or missing.",
            mend="Export the series again, and give its phase and magnitude without other series.",
            file=name,
        )
    return _uneven(done.stdout)


def _uneven(told: str) -> set[str]:
    """Stems of images of which dcm2niix says that their slices are not equally far apart."""
    found = set()
    is_uneven = False
    for line in told.splitlines():
        is_uneven = is_uneven or _UNEVEN in line
        # What it says about an image comes before the line that it is written.
        if match := _WRITTEN.match(line):
            if is_uneven:
                found.add(Path(match[1]).name)
            is_uneven = False
    return found


def _program() -> str | None:
    try:
        import dcm2niix
    except ImportError:
        return shutil.which("dcm2niix")
    return str(dcm2niix.bin)


def _converted(out: Path, uneven: set[str]) -> list[_Converted]:
    found = []
    for sidecar in sorted(out.glob("*.json")):
        image = sidecar.with_suffix(".nii")
        if not image.is_file():
            continue
        content = json.loads(sidecar.read_text(encoding="utf-8", errors="replace"))
        echo_time = content.get("EchoTime")
        told = _STEM.match(image.stem)
        study, uid, echo = told.groups() if told else ("", "", "")
        found.append(
            _Converted(
                image,
                study,
                uid,
                int(content.get("SeriesNumber", 0)),
                _kind(image.stem, content),
                int(echo or 0),
                float(echo_time) if isinstance(echo_time, int | float) else 0.0,
                # Beside an image with gaps lies one that fills them by interpolation.
                image.stem not in uneven and not image.with_name(f"{image.stem}_Eq_1.nii").exists(),
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


def _choose(converted: list[_Converted], name: str) -> tuple[list[_Converted], list[_Converted]]:
    """The one series with phase, and the magnitude of the same echoes."""
    series: dict[tuple[str, str, int], list[_Converted]] = {}
    for image in converted:
        if image.kind == "phase":
            series.setdefault(image.key, []).append(image)
    if not series:
        only_complex = any(image.kind == "complex" for image in converted)
        raise FileRefusal(
            "holds real and imaginary images, but no phase." if only_complex else "holds no phase images.",
            mend="Export the phase of the multi-echo series too.",
            file=name,
        )
    if len({study for study, _, _ in series}) > 1:
        raise FileRefusal(
            "holds the phase of several examinations.",
            mend="Give a folder with one phase series and its magnitude.",
            file=name,
        )
    most = max(len(images) for images in series.values())
    fullest = [key for key, images in series.items() if len(images) == most]
    if len(fullest) > 1:
        numbers = ", ".join(map(str, sorted(number for _, _, number in fullest)))
        raise FileRefusal(
            f"holds several phase series (numbers {numbers}).",
            mend="Give a folder with one of them and its magnitude.",
            file=name,
        )
    phase = sorted(series[fullest[0]], key=lambda image: image.order)
    echoes = [image.order for image in phase]
    if len(set(echoes)) < len(echoes):
        raise FileRefusal(
            f"holds an echo of series {phase[0].series} more than once.",
            mend="Give a folder with one acquisition of the series and its magnitude.",
            file=name,
        )
    magnitude = _magnitude(converted, phase[0], echoes)
    for image in (*phase, *magnitude):
        if not image.is_whole:
            raise FileRefusal(
                f"lacks slices of series {image.series}: they are not equally far apart.",
                mend="Export the series again, with all its slices.",
                file=name,
            )
    return phase, magnitude


def _magnitude(
    converted: list[_Converted], phase: _Converted, echoes: list[tuple[float, int]]
) -> list[_Converted]:
    """Of this examination's series with the same echoes the nearest before: magnitude comes first."""
    series: dict[tuple[str, str, int], list[_Converted]] = {}
    for image in converted:
        if image.kind == "magnitude" and image.study == phase.study:
            series.setdefault(image.key, []).append(image)
    candidates = []
    for (_, uid, number), images in series.items():
        images.sort(key=lambda image: image.order)
        if [image.order for image in images] == echoes:
            order = (abs(phase.series - number), number > phase.series, uid != phase.uid)
            candidates.append((order, images))
    return min(candidates, key=lambda c: c[0])[1] if candidates else []


def _named(phase: list[_Converted], magnitude: list[_Converted], scratch: Path) -> DicomSeries:
    """The chosen images under names without the numbers by which an examination can be found again."""
    chosen = scratch / "chosen"
    chosen.mkdir()
    named: dict[str, list[Path]] = {}
    for images, ending in ((phase, "_ph"), (magnitude, "")):
        for echo, image in enumerate(images, start=1):
            path = chosen / f"s{image.series}_e{echo}{ending}.nii"
            image.image.rename(path)
            image.image.with_suffix(".json").rename(path.with_suffix(".json"))
            named.setdefault(ending, []).append(path)
    return DicomSeries(
        f"series-{phase[0].series}",
        tuple(SourceFile.of(path) for path in named["_ph"]),
        tuple(SourceFile.of(path) for path in named.get("", [])),
        tuple(SourceFile.of(path.with_suffix(".json")) for path in named["_ph"]),
    )
