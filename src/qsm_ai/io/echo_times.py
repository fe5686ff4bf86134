"""Echo times, as options or sidecars tell them: enough, plausible, and the same in phase and magnitude."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite
from typing import Literal

from qsm_ai.io.bids import parse
from qsm_ai.io.sidecars import Sidecar, beside, read_sidecar
from qsm_ai.io.source import SourceFile
from qsm_ai.scan import EchoTimeRefusal, GridRefusal, Refusal

SHORTEST_ECHO, LONGEST_ECHO = 0.0005, 0.2
"""Echo times between which a gradient echo of the head lies, s."""

SAME_ECHO = 0.0003
"""Less than the time between two echoes, more than any rounding of one, s."""


def check_times_alone(te_ms: Sequence[float] | None, described: Sequence[Sidecar]) -> None:
    """What can be said about echo times before any image is read.

    Parameters
    ----------
    te_ms : ms, optional
        Override the sidecars.
    described : sidecars
        Of the phase images.

    Raises
    ------
    EchoTimeRefusal
        If there are none, or one is not that of a gradient echo.
    """
    if te_ms is not None:
        _require_plausible([t / 1000 for t in te_ms], "ms")
        return
    timed = [sidecar for sidecar in described if sidecar.echo_times]
    if not timed:
        raise EchoTimeRefusal(
            "The echo times are missing.",
            mend="Give them with --te-ms (for example --te-ms 4 12 20 28), or the JSON sidecars.",
        )
    odd = [sidecar for sidecar in timed if not _fits(sidecar.echo_times)]
    # All of them in one wrong unit are mended by one option; a single one is mended where it stands.
    together = [t for sidecar in odd for t in sidecar.echo_times]
    if odd and len(odd) == len(timed):
        _require_plausible(together, "s", odd[0].file)
    for sidecar in odd:
        _require_plausible(sidecar.echo_times, "s", sidecar.file, is_one_of_many=True)


def find_echo_times(
    te_ms: Sequence[float] | None,
    told: Sequence[Sequence[Sidecar]],
    images: Sequence[SourceFile],
    echoes: int,
    sources: dict[str, str],
) -> tuple[float, ...]:
    """Echo times of a series of phase images.

    Parameters
    ----------
    te_ms : ms, optional
    told : sidecars of each image
    images : files
        In the order of their echoes.
    echoes : int
        Volumes in all files together.
    sources : dict
        Told where the times came from.

    Returns
    -------
    tuple of float, s

    Raises
    ------
    EchoTimeRefusal
        If they are too few, too many, or do not increase.
    """
    described = [sidecar for some in told for sidecar in some]
    if te_ms is not None:
        times = [float(t) / 1000 for t in te_ms]
        sources["echo_times"] = "option"
    else:
        times = _listed([sidecar.echo_times for sidecar in described], echoes)
        sources["echo_times"] = "sidecar"
    if len(times) != echoes:
        lacking = None if te_ms is not None else _image_without_time(images, told)
        raise EchoTimeRefusal(
            f"{_count(len(times), 'echo time')} for {_count(echoes, 'echo', 'es')}."
            if lacking is None
            else f"has no sidecar with an echo time: {_count(len(times), 'echo time')} "
            f"for {_count(echoes, 'echo', 'es')}.",
            mend="Give one echo time per echo with --te-ms."
            if lacking is None
            else "Give its JSON sidecar, or one echo time per echo with --te-ms.",
            file=lacking,
        )
    for echo, (before, after) in enumerate(pairwise(times), start=1):
        if after <= before:
            raise EchoTimeRefusal(
                "The echo times do not increase: " + ", ".join(f"{1000 * t:g}" for t in times) + " ms.",
                mend="Give images and echo times in the order of the echoes.",
                file=_file_of(echo, described, echoes) if te_ms is None else None,
            )
    return tuple(times)


def require_same_echoes(
    phase: Sequence[SourceFile],
    magnitude: Sequence[SourceFile],
    told: Sequence[Sequence[Sidecar]],
    sidecars: Sequence[SourceFile] = (),
) -> None:
    """Refuse a magnitude of other echoes than those of the phase, by names and by sidecars.

    Parameters
    ----------
    phase, magnitude : files
        In the order of their echoes.
    told : sidecars of each phase image
        None where options override them.
    sidecars : JSON files
        That were given, among which may be some of the magnitude.

    Raises
    ------
    GridRefusal
        Naming both files.
    """
    if len(phase) != len(magnitude):
        return
    for one, other in zip(phase, magnitude, strict=True):
        numbers = parse(one.name).echo, parse(other.name).echo
        if None not in numbers and numbers[0] != numbers[1]:
            raise GridRefusal(
                f"is echo {numbers[1]} by its name, and would stand beside echo {numbers[0]} of the phase, "
                f"{one.name}.",
                mend="Give phase and magnitude of the same echoes.",
                file=other.name,
            )
    by_stem = {sidecar.stem: sidecar for sidecar in sidecars}
    for one, some, other in zip(phase, told, magnitude, strict=False):
        times = tuple(t for sidecar in some for t in sidecar.echo_times)
        own = _times_in(by_stem.get(other.stem) or beside(other))
        if len(own) == len(times) and any(abs(a - b) > SAME_ECHO for a, b in zip(own, times, strict=True)):
            raise GridRefusal(
                f"has other echo times than the phase by its sidecar: {_milliseconds(own)} here, "
                f"{_milliseconds(times)} in {one.name}.",
                mend="Give phase and magnitude of the same echoes, or correct the sidecar.",
                file=other.name,
            )


def _times_in(sidecar: SourceFile | None) -> tuple[float, ...]:
    """Echo times in the sidecar of a magnitude, which may also be broken: nothing else needs it."""
    if sidecar is None:
        return ()
    try:
        return read_sidecar(sidecar).echo_times
    except Refusal:
        return ()


def _listed(lists: Sequence[tuple[float, ...]], echoes: int) -> list[float]:
    # Sidecars of several files may each repeat the whole list of the acquisition.
    repeated = len(lists) > 1 and len(set(lists)) == 1 and len(lists[0]) == echoes > 1
    return list(lists[0]) if repeated else [t for some in lists for t in some]


def _image_without_time(images: Sequence[SourceFile], told: Sequence[Sequence[Sidecar]]) -> str | None:
    """The first image, of one for each echo, of which no sidecar says the echo time."""
    lacking = [
        image.name
        for image, some in zip(images, told, strict=True)
        if not any(sidecar.echo_times for sidecar in some)
    ]
    return lacking[0] if 0 < len(lacking) < len(images) else None


def _file_of(echo: int, described: Sequence[Sidecar], echoes: int) -> str | None:
    """The sidecar that says the time of an echo, counted from 0."""
    timed = [sidecar for sidecar in described if sidecar.echo_times]
    if len(timed) == echoes:
        return timed[echo].file
    return timed[0].file if len(timed) == 1 else None


def _fits(seconds: Sequence[float], factor: float = 1.0) -> bool:
    return all(SHORTEST_ECHO <= factor * t <= LONGEST_ECHO for t in seconds)


def _require_plausible(
    seconds: Sequence[float], unit: Literal["ms", "s"], file: str | None = None, is_one_of_many: bool = False
) -> None:
    """Refuse times outside 0.5 to 200 ms, and say what they look like."""
    if not seconds or not all(isfinite(t) and t > 0 for t in seconds):
        raise EchoTimeRefusal(
            "Echo times must be positive numbers.",
            mend="Give them with --te-ms, in milliseconds."
            if file is None
            else "Correct EchoTime there, in seconds, or give all echo times with --te-ms, in milliseconds.",
            file=file,
        )
    if _fits(seconds):
        return
    shown = ", ".join(f"{t * (1000 if unit == 'ms' else 1):g}" for t in seconds)
    if _fits(seconds, 1000.0):
        meaning = "they look like seconds where milliseconds are expected" if unit == "ms" else ""
    elif _fits(seconds, 1e-3):
        meaning = (
            "they look like milliseconds where seconds are expected"
            if unit == "s"
            else "they look like microseconds where milliseconds are expected"
        )
    else:
        meaning = ""
    likely = [t * (1000.0 if _fits(seconds, 1000.0) else 1e-3) for t in seconds] if meaning else []
    if is_one_of_many:
        mend = "Correct EchoTime there, in seconds, or give all echo times with --te-ms, in milliseconds."
    else:
        mend = "Give them in milliseconds with --te-ms"
        mend += f": --te-ms {' '.join(f'{1000 * t:g}' for t in likely)}." if likely else "."
    where = "the given echo times" if file is None else file
    raise EchoTimeRefusal(
        f"Echo times of {shown} {unit} ({where}) are not those of a gradient echo"
        + (f"; {meaning}." if meaning else "."),
        mend=mend,
    )


def _milliseconds(seconds: Sequence[float]) -> str:
    return ", ".join(f"{1000 * t:g}" for t in seconds) + " ms"


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"
