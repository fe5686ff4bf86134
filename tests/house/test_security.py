"""The threat model names its tests; here is whether they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)*)`", TEXT)))


def rows() -> list[list[str]]:
    """The table of threats."""
    table = TEXT.split("## Threats", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names_in(body: list[ast.stmt]) -> dict[str, ast.AST]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name: node for node in body if isinstance(node, kinds)}


def test_every_threat_has_an_answer_and_a_test() -> None:
    assert len(rows()) > 20
    for threat, answer, tests in rows():
        assert threat
        assert answer
        assert re.fullmatch(r"(`tests/[\w/]+\.py(::\w+)*`(, )?)+", tests), threat


@pytest.mark.parametrize("named", NAMED)
def test_a_named_test_exists(named: str) -> None:
    path, *inner = named.split("::")
    assert (ROOT / path).is_file()
    found: ast.AST = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    for name in inner:
        assert name in names_in(getattr(found, "body")), f"{path} has no {name}"  # noqa: B009
        found = names_in(getattr(found, "body"))[name]  # noqa: B009
