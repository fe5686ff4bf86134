"""The program can be interrupted from its first moment on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("qsm-ai")


def test_the_installed_program_is_this_one() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"qsm-ai": "qsm_ai.__main__:main"}
    for program in ([PROGRAM], [sys.executable, "-m", "qsm_ai"]):
        done = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("qsm-ai ")


def test_what_comes_before_the_command_line_is_light() -> None:
    program = "import sys, qsm_ai.__main__; print({'numpy', 'typer', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_command_line_is_loaded_without_scipy() -> None:
    program = "import sys, qsm_ai.cli; print('scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.2, 0.4, 0.6, 0.9])
def test_an_interruption_while_it_loads_is_no_traceback(delay: float, tmp_path: Path) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        pytest.skip("these tests run in the background of a script, deaf to it, and so would what they start")
    # Says when it begins, since Python itself needs a moment before anything of ours runs.
    program = "from qsm_ai.__main__ import main; print('begun', flush=True); main()"
    arguments = ["reconstruct", str(tmp_path / "none.nii"), "--te-ms", "4", "--b0", "3", "-o", str(tmp_path)]
    running = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "begun\n"
    time.sleep(0.02 + delay)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert "Traceback" not in said
    assert running.returncode in (130, 2), said
