"""Imports go one way, and the contracts that say so really hold the tree."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lint_imports(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_every_contract_is_kept() -> None:
    report = lint_imports("--no-cache")
    assert report.returncode == 0, report.stdout
    assert "0 broken" in report.stdout


def test_a_forbidden_import_would_be_seen(tmp_path: Path) -> None:
    package = tmp_path / "src/qsm_ai"
    for room in ("", "physics", "scan", "ui"):
        (package / room).mkdir(parents=True, exist_ok=True)
        (package / room / "__init__.py").write_text("")
    (package / "physics/__init__.py").write_text("import qsm_ai.scan\n")
    (tmp_path / "contracts.toml").write_text(
        "[tool.importlinter]\nroot_package = 'qsm_ai'\n"
        "[[tool.importlinter.contracts]]\nname = 'one way'\ntype = 'layers'\n"
        "layers = ['qsm_ai.scan', 'qsm_ai.physics']\n"
    )
    program = (
        "import sys; sys.path.insert(0, 'src')\n"
        "from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    report = subprocess.run(
        [sys.executable, "-c", program, "--config", "contracts.toml", "--no-cache"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.returncode != 0
    assert "qsm_ai.physics -> qsm_ai.scan" in report.stdout
