"""A part that is missing or broken never takes the rest of the command line with it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from qsm_ai.optional_commands import PARTS, Optional, mount


@pytest.fixture
def program() -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def always() -> None:
        """Always there."""
        typer.echo("here")

    return app


def part(module: str, needs: str = "typer") -> Optional:
    return Optional(module, needs, "extra", {"special": "Do something special."})


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module of its own with the content that the test names."""
    name = f"part_{abs(hash(request.node.name)):x}"
    (tmp_path / f"{name}.py").write_text(request.param)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


@pytest.mark.parametrize(
    "module",
    ["import a_package_that_is_not_there", "raise OSError('no library')", "app = 1 / 0", ""],
    indirect=True,
)  # fmt: skip
def test_a_part_that_cannot_be_imported_is_listed_and_says_what_to_install(
    program: typer.Typer, module: str
) -> None:
    mount(program, part(module))
    listed = CliRunner().invoke(program, ["--help"], env={"COLUMNS": "200"})
    assert "special" in listed.output
    assert "Do something special." in listed.output
    assert CliRunner().invoke(program, ["always"]).output == "here\n"
    called = CliRunner().invoke(program, ["special", "--any", "thing", "--help"])
    assert called.exit_code == 1
    assert "pip install 'qsm-ai[extra]'" in called.stderr
    assert "Traceback" not in called.output


WORKING = "import typer\napp = typer.Typer()\n@app.command()\ndef special(): print('it')\n"


@pytest.mark.parametrize("module", [WORKING], indirect=True)
def test_a_part_that_is_there_is_used_and_one_whose_package_is_not_there_is_not_imported(
    program: typer.Typer, module: str
) -> None:
    mount(program, part(module, needs="a_package_that_is_not_there"))
    assert CliRunner().invoke(program, ["special"]).exit_code == 1
    assert module not in sys.modules
    other = typer.Typer()
    other.command("always")(lambda: None)
    mount(other, part(module))
    assert CliRunner().invoke(other, ["special"]).output == "it\n"


@pytest.mark.parametrize("given", PARTS, ids=lambda given: given.module)
def test_what_is_listed_for_a_missing_part_is_what_the_part_has(given: Optional) -> None:
    app = typer.Typer()
    app.command("always")(lambda: None)
    mount(app, given)
    group = typer.main.get_command(app)
    there = set(group.commands) - {"always"}  # type: ignore[attr-defined]
    assert there == set(given.commands)
