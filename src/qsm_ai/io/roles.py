"""Whether an image is what it is given as: by its name, by its sidecar and by its values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import pi, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qsm_ai.io.bids import parse
from qsm_ai.io.sidecars import Sidecar
from qsm_ai.io.source import SourceFile
from qsm_ai.reconstruction.stages import ARTEFACTS
from qsm_ai.scan import FieldRefusal, MagnitudeRefusal, PhaseRefusal, Refusal

PARTS = {"real": "real", "imag": "imaginary", "mag": "magnitude", "phase": "phase"}
"""What BIDS' entity ``part`` says of an image."""

ENDINGS = {"_real": "real", "_imag": "imaginary", "_imaginary": "imaginary"}
"""How the names of converted complex images end."""

OTHER_UNITS = {"ppm", "hz", "khz", "rad/s", "t", "mt", "ut", "µt", "nt"}
"""Units in which a field is stored, never a phase."""

FIELDS = {ARTEFACTS["total_field"].suffix: "--total-field", ARTEFACTS["local_field"].suffix: "--local-field"}
"""Suffixes of fields, and the option that takes them."""

COMPLEX = "Save the phase as an image of its own: the angle of real + i·imaginary."

SAMPLE = 200_000
"""Voxels of an echo that are enough to compare it by."""

SELDOM = 0.03
"""Share of steps at the end of the range that pass it; a phase passes with a sixth of them or more."""

UNEQUAL_BRIGHTNESS = 1.15
"""Ratio of bright to dark voxels from which a bound that moves with the magnitude can be told."""


def require_role(sources: Sequence[SourceFile], role: Literal["phase", "magnitude"]) -> None:
    """Refuse an image whose name says that it is something else.

    Raises
    ------
    PhaseRefusal, MagnitudeRefusal
        Naming the file.
    """
    kind: type[Refusal] = PhaseRefusal if role == "phase" else MagnitudeRefusal
    for source in sources:
        name = parse(source.name)
        ending = next((said for end, said in ENDINGS.items() if source.stem.lower().endswith(end)), None)
        said = PARTS.get(name.entities.get("part", "").lower(), ending)
        if said in ("real", "imaginary"):
            mend = COMPLEX if role == "phase" else "Give the magnitude images, or none."
            raise kind(f"is the {said} part by its name, not the {role}.", mend=mend, file=source.name)
        if said is not None and said != role:
            raise kind(
                f"is the {said} by its name, not the {role}.",
                mend="Check whether phase and magnitude were swapped, or name the file for what it is.",
                file=source.name,
            )
        if role == "phase" and name.suffix in FIELDS:
            raise PhaseRefusal(
                "is a field by its name, not a phase.",
                mend=f"Give it with {FIELDS[name.suffix]}, and a mask with --mask.",
                file=source.name,
            )


def require_phase_units(described: Sequence[Sidecar]) -> None:
    """Refuse a phase whose sidecar gives the units of a field.

    Raises
    ------
    PhaseRefusal
        Naming the sidecar.
    """
    for sidecar in described:
        if sidecar.units in OTHER_UNITS:
            raise PhaseRefusal(
                "says by its Units that the image is a field, not a phase.",
                mend="Give a field in ppm with --total-field or --local-field, or correct the sidecar.",
                file=sidecar.file,
            )


def require_field_units(described: Sequence[Sidecar]) -> None:
    """Refuse a field whose sidecar gives it in anything but ppm.

    Raises
    ------
    FieldRefusal
        Naming the sidecar.
    """
    for sidecar in described:
        if sidecar.units not in {"", "ppm"}:
            raise FieldRefusal(
                "says by its Units that the field is not in ppm.",
                mend="Divide a field in Hz by 42.576 and by the field strength in tesla, then correct this.",
                file=sidecar.file,
            )


def require_different_echoes(stored: NDArray[np.float32], files: Sequence[str]) -> None:
    """Refuse a phase in which one echo stands twice: no two have the same noise.

    Parameters
    ----------
    stored : (E, X, Y, Z)
    files : str
        One for all echoes, or one for each.

    Raises
    ------
    PhaseRefusal
        Naming the later file.
    """
    step = max(1, stored[0].size // SAMPLE)
    few = [volume.ravel()[::step] for volume in stored]
    for a, b in combinations(range(len(stored)), 2):
        if np.array_equal(few[a], few[b], equal_nan=True) and np.array_equal(
            stored[a], stored[b], equal_nan=True
        ):
            several = len(files) == len(stored)
            raise PhaseRefusal(
                f"is the same image as {files[a]} (echoes {a + 1} and {b + 1})."
                if several
                else f"holds the same image as echoes {a + 1} and {b + 1}.",
                mend="Give every echo once.",
                file=files[b] if several else files[0],
            )


def require_no_magnitude(stored: NDArray[np.float32], magnitude: NDArray[np.float32], file: str) -> None:
    """Refuse a phase that rises and falls with the magnitude, or never exceeds a multiple of it.

    The one is the magnitude once more; the other the real or imaginary part, which is the magnitude times
    a cosine: its bound grows with the magnitude, and many voxels lie at it.

    Parameters
    ----------
    stored : (E, X, Y, Z)
    magnitude : (E, X, Y, Z), the largest value one
    file : str

    Raises
    ------
    PhaseRefusal
    """
    step = max(1, stored[0].size // SAMPLE)
    a, b = stored[0].ravel()[::step].astype(np.float64), magnitude[0].ravel()[::step].astype(np.float64)
    both = np.isfinite(a)
    a, b = a[both] - a[both].mean(), b[both] - b[both].mean()
    scale = sqrt(float(a @ a) * float(b @ b))
    if scale > 0 and abs(float(a @ b)) > 0.98 * scale:
        raise PhaseRefusal(
            "is the magnitude once more, not a phase.", mend="Give the phase images.", file=file
        )
    if _is_bounded(
        np.concatenate([volume.ravel()[::step] for volume in stored]),
        np.concatenate([volume.ravel()[::step] for volume in magnitude]),
    ):
        raise PhaseRefusal(
            "never exceeds a multiple of the magnitude, as a real or imaginary part does.",
            mend=COMPLEX,
            file=file,
        )


def require_circle(phase: NDArray[np.float32], rule: str, file: str) -> None:
    """Refuse what was read as a full range, but does not go on at the upper end where it reaches the lower.

    So it is with the air of a magnitude that was scaled to both sides of zero. A phase that lies within one
    of its own steps of the end passes it about every second time along the way it changes.

    Parameters
    ----------
    phase : (E, X, Y, Z), rad
    rule : str
        How it became radians. Known scales have shown that they are one.
    file : str

    Raises
    ------
    PhaseRefusal
    """
    if not rule.startswith("full range"):
        return
    volume = phase[0]
    low = float(volume.min())
    at_the_end = passed = 0
    for axis in range(3):
        first, second = (np.moveaxis(volume, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        # What lies exactly at the end may be a filled background.
        near = (first < -0.75 * pi) & (first > low)
        if not near.any():
            continue
        here, there = first[near], second[near]
        step = float(np.median(np.abs(np.angle(np.exp(1j * (there - here))))))
        end = here < -pi + step
        at_the_end += int(np.count_nonzero(end))
        passed += int(np.count_nonzero(there[end] > 0.5 * pi))
    if at_the_end > 0.03 * volume.size and passed < SELDOM * at_the_end:
        raise PhaseRefusal(
            "reaches the lower end of its range without a wrap, as a magnitude does, and is no phase.",
            mend="Give the phase in radians, or as the scanner stores it (for example 0 to 4095).",
            file=file,
        )


def require_phase_in_mask(stored: NDArray[np.float32], mask: NDArray[np.bool_], files: Sequence[str]) -> None:
    """Refuse a phase that says nothing where the mask is.

    Parameters
    ----------
    stored : (E, X, Y, Z)
    mask : (X, Y, Z) bool
    files : str
        One for all echoes, or one for each.

    Raises
    ------
    PhaseRefusal
    """
    for echo, volume in enumerate(stored):
        inside = np.nan_to_num(volume[mask], nan=0.0, posinf=0.0, neginf=0.0)
        if inside.min() == inside.max():
            where = f" in echo {echo + 1}" if len(stored) > 1 else ""
            what = "is zero" if inside[0] == 0 else "has one value"
            raise PhaseRefusal(
                f"{what} everywhere in the mask{where}.",
                mend="Give a mask of what the phase shows, or a phase that was not masked.",
                file=files[echo] if len(files) == len(stored) else files[0],
            )


def _is_bounded(stored: NDArray[np.float32], magnitude: NDArray[np.float32]) -> bool:
    there = np.isfinite(stored) & (magnitude > 0.1)
    size, brightness = np.abs(stored[there]), magnitude[there]
    if brightness.size < 1000:
        return False
    dark, bright = (float(x) for x in np.percentile(brightness, (25, 75)))
    if bright < UNEQUAL_BRIGHTNESS * dark:
        return False
    ratios = [size[part] / brightness[part] for part in (brightness <= dark, brightness >= bright)]
    bounds = [float(np.percentile(ratio, 99.5)) for ratio in ratios]
    piled = [float(np.mean(r > 0.95 * bound)) for r, bound in zip(ratios, bounds, strict=True)]
    return bounds[1] > 0 and abs(bounds[0] / bounds[1] - 1) < 0.03 and min(piled) > 0.05
