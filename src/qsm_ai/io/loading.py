"""From files and a few numbers to a scan that can be reconstructed, or to the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, sqrt
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qsm_ai.io.bids import in_echo_order, scan_name
from qsm_ai.io.dicom import refuse_single_files
from qsm_ai.io.echo_times import check_times_alone, find_echo_times, require_same_echoes
from qsm_ai.io.masks import read_mask, require_inside_out
from qsm_ai.io.nifti import Image, read_image, require_same_grid
from qsm_ai.io.roles import (
    require_circle,
    require_different_echoes,
    require_field_units,
    require_no_magnitude,
    require_phase_in_mask,
    require_phase_units,
    require_role,
)
from qsm_ai.io.sidecars import Sidecar, by_image, sidecars_of
from qsm_ai.io.source import Limits, SourceFile
from qsm_ai.physics.phase import PhaseScaleError, scale_to_radians
from qsm_ai.physics.robust import robust_spread
from qsm_ai.scan import (
    Damaged,
    DirectionRefusal,
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

WEAKEST_FIELD, STRONGEST_FIELD = 0.05, 25.0
"""Field strengths of scanners, T."""

FIELD_STRENGTH_OF_FIELDS = 3.0
"""T, for a scan that starts from a field in ppm, where it changes nothing but the report."""

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
        Values up to 1 count from 0.5 on (a probability), whole numbers from 1 on (labels). An image in whole
        numbers is refused, as is a mask of the air around the head.
    sidecars : JSON files
        Those beside images on disk are found without being given.
    te_ms : echo times, ms
        Override the sidecars.
    b0 : T
    b0_direction : vector in voxel axes, of any length
    total_field, local_field : file, ppm
        Instead of the phase; a mask is needed then. A sidecar's ``Units`` must be ppm.
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
    refuse_single_files(phase_sources)
    require_role(phase_sources, "phase")
    require_role(magnitude_sources, "magnitude")
    told = by_image(phase_sources, extra)
    described = [sidecar for some in told for sidecar in some]
    require_phase_units(described)
    sources: dict[str, str] = {}
    # Cheap questions first: nothing large is read for a scan that lacks a number.
    field_strength = _field_strength(b0, described, sources, default=None)
    sign = _sign(phase_sign, described, sources)
    check_times_alone(te_ms, described)
    require_same_echoes(phase_sources, magnitude_sources, [] if te_ms is not None else told, extra)
    direction = None if b0_direction is None else _unit(b0_direction)

    phase_images = _read_series(phase_sources, limits, "The phase images")
    echoes = sum(image.data.shape[0] for image in phase_images)
    echo_times = find_echo_times(te_ms, told, phase_sources, echoes, sources)
    first = phase_images[0]
    found_direction = _direction(direction, first, sources)
    stored = _stack(phase_images)
    phase_name = first.name
    phase_names = [image.name for image in phase_images]
    _require_content(stored, phase_name, PhaseRefusal, "phase")
    require_different_echoes(stored, phase_names)

    magnitude = _read_magnitude(magnitude_sources, first, limits, "Phase and magnitude", echoes)
    if magnitude is not None:
        require_no_magnitude(stored, magnitude, phase_name)
    mask = None if mask_source is None else read_mask(mask_source, first, limits)
    if mask is not None:
        require_phase_in_mask(stored, mask, phase_names)

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
    require_circle(phase, rule, phase_name)
    if mask_source is not None and mask is not None:
        require_inside_out(mask, mask_source.name, magnitude=magnitude, phase=phase)
    if sign < 0:
        np.negative(phase, out=phase)
    return Scan(
        name=scan_name(name or phase_name),
        grid=first.grid,
        b0_direction=found_direction,
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
    require_role(magnitude_sources, "magnitude")
    described = sidecars_of([source], sidecars)
    require_field_units(described)
    strength = _field_strength(b0, described, sources, default=FIELD_STRENGTH_OF_FIELDS)
    direction = None if b0_direction is None else _unit(b0_direction)
    image = read_image(source, limits)
    if image.data.shape[0] != 1:
        raise FieldRefusal("holds several volumes.", mend="Give one 3D field in ppm.", file=source.name)
    found_direction = _direction(direction, image, sources)
    mask = read_mask(mask_source, image, limits)
    _require_content(image.data, source.name, FieldRefusal, "field")
    values = np.nan_to_num(image.data[0], nan=0.0, posinf=0.0, neginf=0.0)
    magnitude = _read_magnitude(magnitude_sources, image, limits, "Field and magnitude")
    require_inside_out(mask, mask_source.name, magnitude=magnitude, field=values)
    inside = values[mask]
    if not inside.any():
        raise FieldRefusal("is zero everywhere in the mask.", mend="Give the field in ppm.", file=source.name)
    spread = robust_spread(inside)
    if spread > (WIDEST_LOCAL_FIELD if is_local else WIDEST_TOTAL_FIELD):
        raise FieldRefusal(
            f"varies by {spread:.3g} in the mask, far too much for a field in ppm (is it in Hz or radians?).",
            mend="Divide a field in Hz by 42.576 and by the field strength in tesla.",
            file=source.name,
        )
    return Scan(
        name=scan_name(name or source.name),
        grid=image.grid,
        b0_direction=found_direction,
        field_strength=strength,
        magnitude=magnitude,
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
    if image.doubt == "sheared":
        raise DirectionRefusal(
            "has sheared axes: its voxels are no boxes, as after an affine registration.",
            mend="Give the image before its registration, or resample it onto perpendicular axes.",
            file=image.name,
        )
    if image.doubt == "voxel size":
        raise Damaged(
            "names two voxel sizes: its qform and its sform, both in scanner coordinates, differ.",
            mend="Correct its header, or set the code of the form that is not the scanner's to 2.",
            file=image.name,
        )
    if wanted is not None:
        sources["b0_direction"] = "option"
        return wanted
    if image.doubt == "direction":
        raise DirectionRefusal(
            "names two directions of B0: its qform and its sform, both in scanner coordinates, differ.",
            mend="Give the right one in voxel axes with --b0-direction, or correct its header.",
            file=image.name,
        )
    if not image.oriented:
        raise DirectionRefusal(
            "does not say how its voxels lie in the scanner (neither qform nor sform), so that the direction "
            "of B0 is unknown.",
            mend="Give it in voxel axes, --b0-direction 0 0 1 for a scan that is not tilted.",
            file=image.name,
        )
    sources["b0_direction"] = f"header ({image.b0_source})"
    return image.b0_direction


__all__ = ["Given", "Limits", "PhaseSign", "SourceFile", "load_scan"]
