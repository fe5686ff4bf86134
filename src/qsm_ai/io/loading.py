"""From files and a few numbers to a scan that can be reconstructed, or to the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite, sqrt
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qsm_ai.io.bids import in_echo_order, scan_name
from qsm_ai.io.nifti import Image, read_image, require_same_grid
from qsm_ai.io.sidecars import Sidecar, sidecars_of
from qsm_ai.io.source import Limits, SourceFile
from qsm_ai.physics.phase import PhaseScaleError, scale_to_radians
from qsm_ai.scan import (
    DirectionRefusal,
    EchoTimeRefusal,
    FieldRefusal,
    FieldStrengthRefusal,
    GridRefusal,
    MagnitudeRefusal,
    MaskRefusal,
    PhaseRefusal,
    Refusal,
    Scan,
)

Given = SourceFile | str | Path
PhaseSign = Literal["auto", "positive", "negative"]

SHORTEST_ECHO, LONGEST_ECHO = 0.0005, 0.2
"""Echo times between which a gradient echo of the head lies, s."""

WEAKEST_FIELD, STRONGEST_FIELD = 0.05, 25.0
"""Field strengths of scanners, T."""

FIELD_STRENGTH_OF_FIELDS = 3.0
"""T, for a scan that starts from a field in ppm, where it changes nothing but the report."""

SMALLEST_MASK = 100
"""Voxels."""

WIDEST_TOTAL_FIELD, WIDEST_LOCAL_FIELD = 5.0, 0.5
"""Robust spreads (ppm) above which a field is in another unit."""


def load_scan(
    phase_files: Sequence[Given] = (),
    magnitude_files: Sequence[Given] = (),
    mask_file: Given | None = None,
    sidecars: Sequence[Given] = (),
    *,
    te_ms: Sequence[float] | None = None,
    b0: float | None = None,
    b0_direction: Sequence[float] | None = None,
    total_field: Given | None = None,
    local_field: Given | None = None,
    phase_sign: PhaseSign = "auto",
    limits: Limits | None = None,
    name: str | None = None,
) -> Scan:
    """Read and check everything a reconstruction needs.

    Parameters
    ----------
    phase_files : one 4D file or one 3D file per echo
        Files whose names carry an ``echo-`` are put in that order.
    magnitude_files : as the phase, optional
        Beside a field, of any number of echoes.
    mask_file : file, optional
        Values up to 1 count from 0.5 on (a probability), whole numbers from 1 on (labels).
    sidecars : JSON files
        Those beside images on disk are found without being given.
    te_ms : echo times, ms
        Override the sidecars.
    b0 : T
    b0_direction : vector in voxel axes, of any length
    total_field, local_field : file, ppm
        Instead of the phase; a mask is needed then.
    phase_sign : {"auto", "positive", "negative"}
        "negative" where the phase falls when the field rises; "auto" takes GE for such a scanner.
    limits : Limits
    name : str
        Stem of the results; from the first file's name when left out.

    Returns
    -------
    Scan

    Raises
    ------
    Refusal
        One of its tree, with a sentence and a mend, before any heavy work.
    """
    limits = limits or Limits()
    starts = [bool(phase_files), total_field is not None, local_field is not None]
    if sum(starts) != 1:
        raise Refusal(
            "Nothing to reconstruct was given." if not any(starts) else "Several starting points were given.",
            mend="Give either phase images, or a total field, or a local field.",
        )
    mask_source = None if mask_file is None else SourceFile.of(mask_file)
    extra = [SourceFile.of(s) for s in sidecars]
    if not phase_files:
        field_source = SourceFile.of(total_field if total_field is not None else local_field)  # type: ignore[arg-type]
        return _field_scan(
            field_source,
            _ordered(magnitude_files),
            mask_source,
            extra,
            b0,
            b0_direction,
            local_field is not None,
            limits,
            name,
        )

    phase_sources = _ordered(phase_files)
    magnitude_sources = _ordered(magnitude_files)
    described = sidecars_of(phase_sources, extra)
    sources: dict[str, str] = {}
    # Cheap questions first: nothing large is read for a scan that lacks a number.
    field_strength = _field_strength(b0, described, sources, default=None)
    sign = _sign(phase_sign, described, sources)
    _check_times_alone(te_ms, described)
    direction = None if b0_direction is None else _unit(b0_direction)

    phase_images = _read_series(phase_sources, limits, "The phase images")
    echoes = sum(image.data.shape[0] for image in phase_images)
    echo_times = _echo_times(te_ms, described, echoes, sources)
    first = phase_images[0]
    stored = _stack(phase_images)
    phase_name = first.name
    _require_content(stored, phase_name, PhaseRefusal, "phase")

    magnitude = _read_magnitude(magnitude_sources, first, limits, "Phase and magnitude", echoes)
    if magnitude is not None:
        _require_different(stored, magnitude, phase_name)
    mask = None if mask_source is None else _read_mask(mask_source, first, limits)

    del phase_images
    try:
        phase, rule = scale_to_radians(stored)
    except PhaseScaleError as error:
        raise PhaseRefusal(
            f"is no phase that can be read. {error.reason}",
            mend="Give the phase in radians, or as the scanner stores it (for example 0 to 4095).",
            file=phase_name,
        ) from None
    del stored
    if sign < 0:
        np.negative(phase, out=phase)
    return Scan(
        name=scan_name(name or phase_name),
        grid=first.grid,
        b0_direction=_direction(direction, first, sources),
        field_strength=field_strength,
        phase=phase,
        magnitude=magnitude,
        echo_times=echo_times,
        mask=mask,
        phase_rule=rule,
        sources=sources,
    )


def _field_scan(
    source: SourceFile,
    magnitude_sources: Sequence[SourceFile],
    mask_source: SourceFile | None,
    sidecars: Sequence[SourceFile],
    b0: float | None,
    b0_direction: Sequence[float] | None,
    is_local: bool,
    limits: Limits,
    name: str | None,
) -> Scan:
    if mask_source is None:
        raise MaskRefusal(
            "A field without a mask cannot be reconstructed.",
            mend="Give the mask with --mask.",
            file=source.name,
        )
    sources: dict[str, str] = {}
    strength = _field_strength(b0, sidecars_of([source], sidecars), sources, default=FIELD_STRENGTH_OF_FIELDS)
    direction = None if b0_direction is None else _unit(b0_direction)
    image = read_image(source, limits)
    if image.data.shape[0] != 1:
        raise FieldRefusal("holds several volumes.", mend="Give one 3D field in ppm.", file=source.name)
    mask = _read_mask(mask_source, image, limits)
    _require_content(image.data, source.name, FieldRefusal, "field")
    values = np.nan_to_num(image.data[0], nan=0.0, posinf=0.0, neginf=0.0)
    inside = values[mask]
    if not inside.any():
        raise FieldRefusal("is zero everywhere in the mask.", mend="Give the field in ppm.", file=source.name)
    spread = 1.4826 * float(np.median(np.abs(inside - np.median(inside))))
    if spread > (WIDEST_LOCAL_FIELD if is_local else WIDEST_TOTAL_FIELD):
        raise FieldRefusal(
            f"varies by {spread:.3g} in the mask, far too much for a field in ppm (is it in Hz or radians?).",
            mend="Divide a field in Hz by 42.576 and by the field strength in tesla.",
            file=source.name,
        )
    return Scan(
        name=scan_name(name or source.name),
        grid=image.grid,
        b0_direction=_direction(direction, image, sources),
        field_strength=strength,
        magnitude=_read_magnitude(magnitude_sources, image, limits, "Field and magnitude"),
        total_field=None if is_local else values,
        local_field=values if is_local else None,
        mask=mask,
        sources=sources,
    )


def _ordered(files: Sequence[Given]) -> list[SourceFile]:
    sources = [SourceFile.of(f) for f in files]
    return [sources[i] for i in in_echo_order([s.name for s in sources])]


def _read_series(files: Sequence[SourceFile], limits: Limits, what: str) -> list[Image]:
    images: list[Image] = []
    taken = 0
    for file in files:
        image = read_image(file, limits, taken)
        taken += image.data.nbytes
        if images:
            require_same_grid(images[0], [image], what)
        images.append(image)
    counts = {image.data.shape[0] for image in images}
    if len(images) > 1 and counts != {1}:
        raise GridRefusal(
            f"{what} mix 3D and 4D files.",
            mend="Give one 4D file, or one 3D file per echo.",
            file=next(image.name for image in images if image.data.shape[0] > 1),
        )
    return images


def _stack(images: list[Image]) -> NDArray[np.float32]:
    if len(images) == 1:
        return images[0].data
    return np.concatenate([image.data for image in images])


def _require_content(values: NDArray[np.float32], file: str, kind: type[Refusal], what: str) -> None:
    for echo, volume in enumerate(values, start=1):
        where = f" in echo {echo}" if len(values) > 1 else ""
        finite = np.isfinite(volume)
        mend = f"Check the export: give an image of the {what} that holds values."
        if not finite.any():
            raise kind(
                f"holds no number at all{where}: every voxel is NaN or infinite.", mend=mend, file=file
            )
        low, high = float(volume[finite].min()), float(volume[finite].max())
        if low == high:
            raise kind(
                f"is all zeros{where}." if low == 0 else f"has the same value everywhere{where}.",
                mend=mend,
                file=file,
            )


def _read_magnitude(
    sources: Sequence[SourceFile], reference: Image, limits: Limits, what: str, echoes: int | None = None
) -> NDArray[np.float32] | None:
    """Magnitude of every echo, the largest value one; of any number of echoes beside a field."""
    if not sources:
        return None
    images = _read_series(sources, limits, "The magnitude images")
    require_same_grid(reference, images, what)
    magnitude = _stack(images)
    file = images[0].name
    if echoes is not None and magnitude.shape[0] != echoes:
        raise GridRefusal(
            f"Phase and magnitude have different numbers of echoes: {magnitude.shape[0]} here, "
            f"{echoes} in {reference.name}.",
            mend="Give the magnitude of every echo, or none.",
            file=file,
        )
    _require_content(magnitude, file, MagnitudeRefusal, "magnitude")
    magnitude[~np.isfinite(magnitude)] = 0.0
    # Interpolation and denoising leave a little below zero; a phase or a field lies there by half.
    low, high = float(magnitude.min()), float(magnitude.max())
    if high <= 0 or (low < -0.05 * high and np.count_nonzero(magnitude < 0) > 0.01 * magnitude.size):
        raise MagnitudeRefusal(
            "has negative values and cannot be a magnitude.",
            mend="Check whether phase and magnitude were swapped.",
            file=file,
        )
    np.clip(magnitude, 0.0, None, out=magnitude)
    magnitude /= np.float32(high)
    return magnitude


def _require_different(stored: NDArray[np.float32], magnitude: NDArray[np.float32], file: str) -> None:
    """A phase that rises and falls with the magnitude is that magnitude."""
    step = max(1, stored[0].size // 200_000)
    a = stored[0].ravel()[::step].astype(np.float64)
    b = magnitude[0].ravel()[::step].astype(np.float64)
    both = np.isfinite(a)
    a, b = a[both] - a[both].mean(), b[both] - b[both].mean()
    scale = sqrt(float(a @ a) * float(b @ b))
    if scale > 0 and abs(float(a @ b)) > 0.98 * scale:
        raise PhaseRefusal(
            "is the magnitude once more, not a phase.", mend="Give the phase images.", file=file
        )


def _read_mask(source: SourceFile, reference: Image, limits: Limits) -> NDArray[np.bool_]:
    image = read_image(source, limits)
    require_same_grid(reference, [image], "The mask and the images")
    if image.data.shape[0] != 1:
        raise MaskRefusal("holds several volumes.", mend="Give one 3D mask.", file=source.name)
    values = np.nan_to_num(image.data[0], nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    is_whole = bool((values == np.round(values)).all())
    if low < -1e-3 or (high > 1.001 and not is_whole):
        raise MaskRefusal(
            "is no mask: its values are neither 0 and 1, nor a probability, nor labels.",
            mend="Give an image with 1 in the brain and 0 elsewhere.",
            file=source.name,
        )
    mask: NDArray[np.bool_] = values > 0.5
    count = int(np.count_nonzero(mask))
    if count < SMALLEST_MASK:
        raise MaskRefusal(
            "is empty." if count == 0 else f"holds {count} voxels only.",
            mend="Give a mask of the brain, or leave it out.",
            file=source.name,
        )
    return mask


def _check_times_alone(te_ms: Sequence[float] | None, described: Sequence[Sidecar]) -> None:
    """What can be said about echo times before any image is read."""
    if te_ms is not None:
        _plausible_times([t / 1000 for t in te_ms], "ms", "the given echo times")
    elif times := [t for sidecar in described for t in sidecar.echo_times]:
        _plausible_times(times, "s", described[0].file)
    else:
        raise EchoTimeRefusal(
            "The echo times are missing.",
            mend="Give them with --te-ms (for example --te-ms 4 12 20 28), or the JSON sidecars.",
        )


def _echo_times(
    te_ms: Sequence[float] | None, described: Sequence[Sidecar], echoes: int, sources: dict[str, str]
) -> tuple[float, ...]:
    if te_ms is not None:
        times = [float(t) / 1000 for t in te_ms]
        sources["echo_times"] = "option"
    else:
        lists = [sidecar.echo_times for sidecar in described]
        # Sidecars of several files may each repeat the whole list of the acquisition.
        repeated = len(lists) > 1 and len(set(lists)) == 1 and len(lists[0]) == echoes > 1
        times = list(lists[0]) if repeated else [t for some in lists for t in some]
        sources["echo_times"] = "sidecar"
    if len(times) != echoes:
        raise EchoTimeRefusal(
            f"{_count(len(times), 'echo time')} for {_count(echoes, 'echo', 'es')}.",
            mend="Give one echo time per echo with --te-ms.",
        )
    if any(b <= a for a, b in pairwise(times)):
        raise EchoTimeRefusal(
            "The echo times do not increase: " + ", ".join(f"{1000 * t:g}" for t in times) + " ms.",
            mend="Give images and echo times in the order of the echoes.",
        )
    return tuple(times)


def _plausible_times(seconds: Sequence[float], unit: Literal["ms", "s"], where: str) -> None:
    """Refuse times outside 0.5 to 200 ms, and say what they look like."""
    if not seconds or not all(isfinite(t) and t > 0 for t in seconds):
        raise EchoTimeRefusal(
            "Echo times must be positive numbers.", mend="Give them with --te-ms, in milliseconds."
        )

    def fits(factor: float) -> bool:
        return all(SHORTEST_ECHO <= factor * t <= LONGEST_ECHO for t in seconds)

    if fits(1.0):
        return
    shown = ", ".join(f"{t * (1000 if unit == 'ms' else 1):g}" for t in seconds)
    if fits(1000.0):
        meaning = "they look like seconds where milliseconds are expected" if unit == "ms" else ""
    elif fits(1e-3):
        meaning = (
            "they look like milliseconds where seconds are expected"
            if unit == "s"
            else "they look like microseconds where milliseconds are expected"
        )
    else:
        meaning = ""
    likely = [t * (1000.0 if fits(1000.0) else 1e-3) for t in seconds] if meaning else []
    mend = "Give them in milliseconds with --te-ms"
    mend += f": --te-ms {' '.join(f'{1000 * t:g}' for t in likely)}." if likely else "."
    raise EchoTimeRefusal(
        f"Echo times of {shown} {unit} ({where}) are not those of a gradient echo"
        + (f"; {meaning}." if meaning else "."),
        mend=mend,
    )


def _field_strength(
    b0: float | None, described: Sequence[Sidecar], sources: dict[str, str], default: float | None
) -> float:
    found = {round(s.field_strength, 3) for s in described if s.field_strength is not None}
    if b0 is not None:
        strength, said_by = float(b0), "option"
    elif len(found) > 1:
        raise FieldStrengthRefusal(
            "The sidecars name different field strengths.", mend="Give the right one in tesla with --b0."
        )
    elif found:
        strength, said_by = found.pop(), "sidecar"
    elif default is not None:
        strength, said_by = default, "default"
    else:
        raise FieldStrengthRefusal(
            "The field strength is missing.", mend="Give it in tesla with --b0 (for example --b0 3.0)."
        )
    if not (isfinite(strength) and WEAKEST_FIELD <= strength <= STRONGEST_FIELD):
        raise FieldStrengthRefusal(
            f"A field strength of {strength:g} T is impossible"
            + (" (is it in gauss or MHz?)." if strength > STRONGEST_FIELD else "."),
            mend="Give it in tesla with --b0 (for example --b0 3.0).",
        )
    sources["field_strength"] = said_by
    return strength


def _sign(wanted: PhaseSign, described: Sequence[Sidecar], sources: dict[str, str]) -> int:
    if wanted != "auto":
        sources["phase_sign"] = f"option ({wanted})"
        return -1 if wanted == "negative" else 1
    if any(s.manufacturer.startswith("ge") for s in described):
        sources["phase_sign"] = "sidecar (negative, a GE scanner)"
        return -1
    sources["phase_sign"] = "default (positive)"
    return 1


def _unit(vector: Sequence[float]) -> tuple[float, float, float]:
    values = [float(v) for v in vector]
    length = sqrt(sum(v * v for v in values)) if all(isfinite(v) for v in values) else 0.0
    if len(values) != 3 or not 1e-6 < length < 1e6:
        raise DirectionRefusal(
            "The direction of B0 must be three numbers, not all zero.",
            mend="Give the scanner's axis in voxel axes, for example --b0-direction 0 0 1.",
        )
    x, y, z = (v / length for v in values)
    return x, y, z


def _direction(
    wanted: tuple[float, float, float] | None, image: Image, sources: dict[str, str]
) -> tuple[float, float, float]:
    if wanted is not None:
        sources["b0_direction"] = "option"
        return wanted
    if not image.oriented:
        raise DirectionRefusal(
            "does not say how its voxels lie in the scanner (neither qform nor sform), so that the direction "
            "of B0 is unknown.",
            mend="Give it in voxel axes, --b0-direction 0 0 1 for a scan that is not tilted.",
            file=image.name,
        )
    sources["b0_direction"] = f"header ({image.b0_source})"
    return image.b0_direction


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"


__all__ = ["Given", "Limits", "PhaseSign", "SourceFile", "load_scan"]
