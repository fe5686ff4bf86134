"""What can be told wrong before anything is sent. The API checks everything again, and more."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from qsm_ai.ui.uploads import Header

WEAKEST_FIELD, STRONGEST_FIELD = 0.05, 25.0
"""T. The service takes these and all between, and so must this page."""

Image = tuple[str, Header | None]
"""Name of a file, and its header if that could be read."""


@dataclass(frozen=True)
class Objection:
    """A reason not to send yet: what is wrong, and how to mend it."""

    sentence: str
    mend: str


def parse_times(text: str) -> tuple[float, ...]:
    """Echo times in ms out of what a person typed: numbers between commas, semicolons or blanks.

    Raises
    ------
    ValueError
        Something in it is not a number.
    """
    times = tuple(float(word) for word in re.split(r"[\s,;]+", text.strip()) if word)
    if not all(map(math.isfinite, times)):
        raise ValueError(text)
    return times


def format_times(times_ms: Sequence[float]) -> str:
    """Echo times as a person would type them."""
    return ", ".join(f"{time:g}" for time in times_ms)


def check_echo_times(text: str, echoes: int | None) -> list[Objection]:
    """Objections to typed echo times.

    Parameters
    ----------
    text : str
        As typed, ms.
    echoes : int or None
        Number of phase volumes, if the headers told.
    """
    mend = "Write them in ms, one per echo, for example 4, 12, 20, 28."
    try:
        times = parse_times(text)
    except ValueError:
        return [Objection("The echo times contain something that is not a number.", mend)]
    if not times:
        return [
            Objection(
                "The echo times are missing.", "Add the JSON sidecars, or " + mend[0].lower() + mend[1:]
            )
        ]
    objections = []
    if echoes is not None and len(times) != echoes:
        objections.append(
            Objection(
                f"There {_are(len(times), 'echo time')} for {_count(echoes, 'phase volume')}.",
                "Give one echo time for each phase volume.",
            )
        )
    if any(later <= earlier for earlier, later in pairwise(times)):
        objections.append(
            Objection("The echo times do not increase.", "Put them in the order of the phase volumes.")
        )
    if times[0] <= 0:
        objections.append(Objection("An echo time is zero or negative.", mend))
    elif times[-1] < 0.5:
        guess = format_times([time * 1000 for time in times])
        objections.append(Objection("The echo times look like seconds.", f"Should they be {guess} ms?"))
    elif times[-1] > 500:
        guess = format_times([time / 1000 for time in times])
        objections.append(
            Objection("The echo times are a thousand times too long.", f"Should they be {guess} ms?")
        )
    return objections


def check_field_strength(tesla: float | None) -> list[Objection]:
    """Objections to a field strength in T."""
    if tesla is None:
        return [Objection("The field strength is missing.", "Enter it in tesla, for example 3.")]
    if not WEAKEST_FIELD <= tesla <= STRONGEST_FIELD:
        return [Objection(f"No scanner has a field of {tesla:g} T.", "Enter it in tesla, for example 3.")]
    return []


def check_direction(direction: Sequence[float]) -> list[Objection]:
    """Objections to a direction of B0 in voxel axes; it need not have length one."""
    if sum(component**2 for component in direction) < 1e-6:
        return [Objection("The direction of B0 has no length.", "For an axial scan it is 0, 0, 1.")]
    return []


def check_files(
    phase: Sequence[Image],
    magnitude: Sequence[Image] = (),
    mask: Sequence[Image] = (),
    field: Sequence[Image] = (),
) -> list[Objection]:
    """Objections to the choice of files, as far as their headers tell; unreadable ones are left to the API.

    Parameters
    ----------
    phase, magnitude, mask : (file name, header or None), in echo order
    field : likewise, total or local fields to start from instead of a phase
    """
    if not phase and not field:
        return [Objection("No file is marked as phase.", "Say which of your files are phase images.")]
    objections = []
    if len(field) + bool(phase) > 1:
        objections.append(
            Objection(
                "There are several starting points.",
                "Keep the phase, or one field, and leave the others unused.",
            )
        )
    if field and not mask:
        objections.append(Objection("A field needs a brain mask.", "Drop the mask that belongs to it."))
    if len(mask) > 1:
        objections.append(
            Objection("Several files are marked as mask.", "Keep one; leave the others unused.")
        )
    phase_echoes, magnitude_echoes = count_echoes(phase), count_echoes(magnitude)
    if magnitude and phase_echoes and magnitude_echoes and phase_echoes != magnitude_echoes:
        objections.append(
            Objection(
                f"There {_are(phase_echoes, 'phase volume')} "
                f"and {_count(magnitude_echoes, 'magnitude volume')}.",
                "Give one magnitude for each phase, or none at all.",
            )
        )
    known = [(name, header) for name, header in (*phase, *field, *magnitude, *mask) if header is not None]
    for name, header in known[1:]:
        first_name, first = known[0]
        if header.shape != first.shape:
            objections.append(
                Objection(
                    f"{name} has {_shape(header)} voxels, {first_name} has {_shape(first)}.",
                    "All images of a scan must lie on one grid.",
                )
            )
            break
    return objections


def count_echoes(images: Sequence[Image]) -> int | None:
    """Number of volumes in some images together, None if a header could not be read."""
    headers = [header for _, header in images]
    if any(header is None for header in headers):
        return None
    return sum(header.echoes for header in headers if header is not None)


def _shape(header: Header) -> str:
    return " × ".join(str(n) for n in header.shape)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _are(number: int, noun: str) -> str:
    return f"{'is' if number == 1 else 'are'} {_count(number, noun)}"
