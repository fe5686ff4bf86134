"""The form fields of a reconstruction: read, checked, and refused by name when wrong."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qsm_ai.api.problems import ProblemError
from qsm_ai.api.uploads import FILE_ROLES, unknown_field
from qsm_ai.jobs.problem import Problem
from qsm_ai.reconstruction.options import BACKGROUNDS, METHODS, REFERENCES, UNWRAPPINGS, Options

CHOICES = {
    "method": METHODS,
    "reference": REFERENCES,
    "unwrapping": UNWRAPPINGS,
    "background": BACKGROUNDS,
}
SIGNS = {
    "auto": "auto",
    "positive": "positive",
    "negative": "negative",
    "1": "positive",
    "+1": "positive",
    "-1": "negative",
}
PRIORITIES = {"low": -1, "normal": 0, "high": 1}
"""Jobs of a higher one come first, whoever they belong to; only administrators may ask for the highest."""

FIELDS = ("te_ms", "b0", "b0_direction", *CHOICES, "phase_sign", "priority", "deadline", "wait")
MOST_ECHOES = 64


@dataclass(frozen=True)
class Parameters:
    """What was asked.

    Attributes
    ----------
    values : dict
        For the job's record: only what was given, and the method and the reference in any case.
    wait : s
        How long the client waits for the result.
    priority : int
    deadline : s or None
        After which nobody needs the result any more.
    """

    values: dict[str, Any]
    wait: float
    priority: int = 0
    deadline: float | None = None


def parse(fields: Mapping[str, Sequence[str]], *, max_wait: float) -> Parameters:
    """Check the form fields.

    Parameters
    ----------
    fields : name: values in order
    max_wait : s

    Raises
    ------
    ProblemError
        422, naming the field.
    """
    for name in fields:
        if name in FILE_ROLES:
            raise ProblemError(
                invalid(
                    f"The field '{name}' must be a file.", "Send it with a file name, as a form upload does."
                )
            )
        if name not in FIELDS:
            shown = "".join(c for c in name[:40] if c.isalnum() or c == "_")
            raise ProblemError(unknown_field(f"The field '{shown}' does not exist.", FIELDS + FILE_ROLES))
    values: dict[str, Any] = {"method": Options.method, "reference": Options.reference}
    for name, choices in CHOICES.items():
        if name in fields:
            values[name] = _choice(name, _single(fields, name), choices)
    if "phase_sign" in fields:
        values["phase_sign"] = SIGNS[_choice("phase_sign", _single(fields, "phase_sign"), tuple(SIGNS))]
    if "te_ms" in fields:
        values["te_ms"] = _numbers("te_ms", fields["te_ms"], most=MOST_ECHOES)
    if "b0" in fields:
        values["b0"] = _numbers("b0", [_single(fields, "b0")], most=1)[0]
    if "b0_direction" in fields:
        direction = _numbers("b0_direction", fields["b0_direction"], most=3)
        if len(direction) != 3:
            raise ProblemError(
                invalid("b0_direction has not three numbers.", "Give x, y and z, such as 0 0 1.")
            )
        values["b0_direction"] = direction
    wait = _numbers("wait", [_single(fields, "wait")], most=1)[0] if "wait" in fields else 0.0
    if wait < 0:
        raise ProblemError(invalid("wait is negative.", "Give it in seconds."))
    return Parameters(values, min(wait, max_wait), _priority(fields), _deadline(fields))


def _priority(fields: Mapping[str, Sequence[str]]) -> int:
    if "priority" not in fields:
        return 0
    return PRIORITIES[_choice("priority", _single(fields, "priority"), tuple(PRIORITIES))]


def _deadline(fields: Mapping[str, Sequence[str]]) -> float | None:
    if "deadline" not in fields:
        return None
    deadline = _numbers("deadline", [_single(fields, "deadline")], most=1)[0]
    if deadline <= 0:
        raise ProblemError(invalid("deadline is over already.", "Give it in seconds from now."))
    return deadline


def invalid(detail: str, mend: str) -> Problem:
    """A form field with a value that cannot be."""
    return Problem("invalid-parameter", "A parameter is not valid", 422, detail, mend)


def _single(fields: Mapping[str, Sequence[str]], name: str) -> str:
    values = fields[name]
    if len(values) > 1:
        raise ProblemError(invalid(f"{name} was given {len(values)} times.", "Give it once."))
    return values[0]


def _choice(name: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise ProblemError(invalid(f"There is no such {name}.", f"Choose one of: {', '.join(choices)}."))
    return value


def _numbers(name: str, values: Sequence[str], *, most: int) -> list[float]:
    """Numbers from ``4 12 20``, ``4, 12, 20``, ``[4, 12, 20]`` or a repeated field."""
    found: list[float] = []
    for value in values:
        try:
            if value.startswith("["):
                found += [float(number) for number in json.loads(value)]
            else:
                found += [float(part) for part in re.split(r"[\s,;]+", value) if part]
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise ProblemError(
                invalid(f"{name} is not a number.", "Give plain numbers, separated by blanks or commas.")
            ) from None
    if not found or len(found) > most or not all(math.isfinite(number) for number in found):
        raise ProblemError(
            invalid(
                f"{name} must be 1 to {most} finite number(s).", "Give plain numbers, separated by blanks."
            )
        )
    return found
