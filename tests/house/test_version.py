"""The version: decided in one place, and named alike wherever it must be named."""

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from qsm_ai import __version__

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci/set-version"


def places() -> list[Path]:
    patterns = [pattern for pattern, _ in runpy.run_path(str(SCRIPT))["PLACES"]]
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the script reads and writes, elsewhere."""
    for path in [SCRIPT, ROOT / "CHANGELOG.md", *places()]:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / ".ci/set-version"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_program_says_what_the_project_says() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert __version__ == project["version"]


def test_every_place_names_it() -> None:
    known = runpy.run_path(str(SCRIPT))
    named = known["say"](__version__)
    assert {path for path, text in named.items() if path.read_text() != text} == set()
    assert len(named) >= 7


def test_the_deployment_names_it_nowhere_else(copy: Path) -> None:
    """Otherwise a release would leave an old one behind."""
    assert run(copy, "97.98.99").returncode == 0
    left = {
        str(path.relative_to(copy))
        for path in copy.rglob("*")
        if path.is_file()
        and path.name != "CHANGELOG.md"
        and re.search(rf"(?<![\d.]){re.escape(__version__)}(?![\d.])", path.read_text())
    }
    assert left == set()


def test_a_release_has_a_dated_section_and_leaves_room_for_the_next(copy: Path) -> None:
    before = (copy / "CHANGELOG.md").read_text()
    assert "## [Unreleased]\n" in before
    refused = run(copy, "--check", "97.98.99")
    assert refused.returncode != 0
    assert refused.stderr
    run(copy, "97.98.99")
    assert run(copy, "--check", "97.98.99").stdout == "97.98.99\n"
    notes = run(copy, "--notes", "97.98.99").stdout
    assert notes.strip()
    assert "## " not in notes.replace("### ", "")
    assert (copy / "CHANGELOG.md").read_text().index("[Unreleased]") < before.index("##") + 20


@pytest.mark.parametrize("wrong", ["", "1", "v1.0.0", "1.0", "latest"])
def test_what_is_no_version_changes_nothing(copy: Path, wrong: str) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert run(copy, wrong).returncode != 0
    assert {path: path.read_bytes() for path in before} == before


def test_sections_of_the_changelog_are_of_known_kinds() -> None:
    headings = re.findall(r"(?m)^### (.+)$", (ROOT / "CHANGELOG.md").read_text())
    assert headings
    assert set(headings) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
