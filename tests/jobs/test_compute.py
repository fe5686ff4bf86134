"""What the computing process makes of a job's parameters."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from qsm_ai.jobs import compute
from qsm_ai.reconstruction.options import Options

if TYPE_CHECKING:
    from tests.conftest import Files

CHOICES = [choice.name for choice in fields(Options)]


def sources(files: Files) -> list[dict[str, str]]:
    given = {"local_field": files.local_field, "mask": files.mask}
    return [{"role": role, "name": path.name, "path": str(path)} for role, path in given.items()]


def validate(files: Files, **parameters: Any) -> dict[str, Any]:
    task = {"sources": sources(files), "parameters": parameters}
    return compute.validate(task, lambda _: None, [])


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_of_a_reconstruction_is_heeded(files: Files, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} 'another' does not exist"):
        validate(files, **{name: "another"})


def test_what_was_not_chosen_and_what_is_no_choice_is_left_alone(files: Files) -> None:
    assert validate(files, **dict.fromkeys(CHOICES), te_ms=None, trace={})["voxels"] > 0
