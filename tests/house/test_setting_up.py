"""`make` and `.ci/run`: what a newcomer and CI call."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
PROMISED = ["install", "up", "demo", "test", "test-all", "bench", "lint", "format", "lock", "clean"]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | environment
    )


def test_help_explains_every_target() -> None:
    targets = re.findall(r"^\.PHONY: ([a-z-]+)$", MAKEFILE, re.MULTILINE)
    listing = run("make", "help").stdout
    assert [t for t in targets if not re.search(rf"^  {t} +\S", listing, re.MULTILINE)] == []


@pytest.mark.parametrize("target", PROMISED)
def test_a_promised_target_exists_and_its_recipe_can_be_made(target: str) -> None:
    plan = run("make", "--dry-run", target)
    assert plan.returncode == 0, plan.stderr


def test_installing_needs_no_pytorch() -> None:
    # A copy without .venv, so that the plan is the one of a fresh clone.
    plan = run("make", "--dry-run", "VENV=.venv-of-nobody", "install").stdout
    assert "requirements/runtime.txt" in plan
    assert "torch" not in plan


def test_starting_up_needs_no_pytorch() -> None:
    plan = run("make", "--dry-run", "VENV=.venv-of-nobody", "up").stdout
    assert "qsm-ai serve" in plan
    assert "torch" not in plan


def test_an_unsuitable_python_is_refused_with_the_mend(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    answer = run(".ci/find-python", PYTHON=str(old))
    assert answer.returncode == 1
    assert "Python 3.11 or 3.12" in answer.stderr


def test_without_a_suitable_python_nobody_is_sent_for_its_venv_module(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    answer = run("make", f"VENV={venv}", f"{venv}/.stamps/venv", PYTHON="no-such-python")
    assert answer.returncode != 0
    assert "Python 3.11 or 3.12" in answer.stderr
    assert "venv module" not in answer.stderr


@pytest.mark.parametrize("script", sorted((ROOT / ".ci").iterdir()), ids=lambda p: p.name)
def test_scripts_are_executable_and_parse(script: Path) -> None:
    assert os.access(script, os.X_OK)
    if "python" in script.read_text().splitlines()[0]:
        compile(script.read_text(), script.name, "exec")
    else:
        assert run("bash", "-n", str(script)).returncode == 0


def test_packages_that_cannot_be_installed_are_named_and_fatal_only_in_ci(tmp_path: Path) -> None:
    # No apt-get on this PATH, as on a machine that is not Debian.
    for tool in ("bash", "id", "env", "sudo"):
        if found := shutil.which(tool):
            (tmp_path / tool).symlink_to(found)
    for ci, code in (("", 0), ("true", 1)):
        answer = run(
            "bash", ".ci/system-packages", "no-such-command=no-such-package", PATH=str(tmp_path), CI=ci
        )
        assert answer.returncode == code
        assert "no-such-package" in answer.stderr
