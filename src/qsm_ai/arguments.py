"""Options that take several values after one flag, as in ``--te-ms 4 12 20 28``.

The parser below Typer gives every option a fixed number of values. Here the arguments are rewritten
before it sees them: ``--te-ms 4 12`` becomes ``--te-ms 4 --te-ms 12``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from qsm_ai.io.bids import kind_of

Takes = Callable[[str], bool]


def is_number(word: str) -> bool:
    """A number, or several with commas between them."""
    try:
        return bool([float(part) for part in word.split(",") if part.strip()])
    except ValueError:
        return False


def is_value(word: str) -> bool:
    """Anything that is no option."""
    return not word.startswith("-") or word == "-"


def is_sidecar(word: str) -> bool:
    """A JSON file: an image behind it is the phase."""
    return word.lower().endswith(".json")


SEVERAL: Mapping[str, Takes] = {"--te-ms": is_number, "--magnitude": is_value, "--sidecar": is_sidecar}
"""Options of any number of values, and which of the arguments that follow are theirs."""

NUMBERS = {"--te-ms"}
"""Of those: values that may also be separated by commas."""

TRIPLES = {"--b0-direction"}
"""Options of three values, which may be one argument with commas."""


def spread(arguments: Sequence[str]) -> list[str]:
    """Rewrite arguments so that every option carries one value (or three).

    >>> spread(["p.nii", "--te-ms", "4", "12", "--b0", "3"])
    ['p.nii', '--te-ms', '4', '--te-ms', '12', '--b0', '3']
    >>> spread(["--te-ms=4,12", "p.nii"])
    ['--te-ms', '4', '--te-ms', '12', 'p.nii']
    >>> spread(["--b0-direction=0,0,1"])
    ['--b0-direction', '0', '0', '1']
    """
    given = list(arguments)
    rewritten: list[str] = []
    while given:
        word = given.pop(0)
        if word == "--":
            return [*rewritten, word, *given]
        option, has_value, value = word.partition("=")
        if option in SEVERAL:
            values = [value] if has_value else []
            while not has_value and given and SEVERAL[option](given[0]):
                values.append(given.pop(0))
            if not values and given and is_value(given[0]):
                # No number and no sidecar: left to others, who say so.
                values.append(given.pop(0))
            if option in NUMBERS:
                values = [part for v in values for part in _parts(v)]
            rewritten += [piece for v in values for piece in (option, v)] or [option]
        elif option in TRIPLES:
            first = value if has_value else (given.pop(0) if given else "")
            values = _parts(first)
            while len(values) < 3 and given and is_number(given[0]):
                values.append(given.pop(0))
            rewritten += [option, *values]
        else:
            rewritten.append(word)
    return rewritten


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


class SeveralValues(TyperCommand):
    """A command whose options may take several values after one flag."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Spread the values, then parse."""
        return super().parse_args(ctx, spread(args))


def give_back(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Phase and magnitude out of ``--magnitude MAG PHASE``, where the flag has swallowed everything.

    Names that say phase are taken as such; of two files without telling names the last one is the phase,
    as it would be if the flag took one value. Otherwise nothing is guessed.

    Returns
    -------
    phase, magnitude : lists of paths
    """
    phase = [file for file in files if kind_of(file.name) == "phase"]
    if not phase and len(files) == 2:
        phase = [files[1]]
    return phase, [file for file in files if file not in phase]
