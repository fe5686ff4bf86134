"""Children on a leash: they end when told, and when their owner ends, with all that they started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qsm_ai.inference.processes import Child

PATIENT = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {PATIENT}"
FAMILY = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True); time.sleep(600)"
)


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def wait_for_line(child: Child) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if "\n" in child.log.read_text():
            return child.log.read_text().splitlines()[0]
        time.sleep(0.02)
    raise AssertionError("it said nothing")


def status_of(child: Child) -> int | None:
    """Its exit status, once it has ended by itself."""
    deadline = time.monotonic() + 20
    while child.exit_status is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return child.exit_status


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


def is_gone(pid: int, within: float = 10.0) -> bool:
    deadline = time.monotonic() + within
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log" / "child.log"


def test_its_output_and_its_exit_status_are_kept(log: Path) -> None:
    child = Child(
        "x", python("import sys; print(1); print(2); print(3, file=sys.stderr); sys.exit(7)"), log=log
    )
    assert status_of(child) == 7
    assert set(child.tail().split()) == {"1", "2", "3"}
    assert len(child.tail(2).splitlines()) == 2
    child.stop()
    assert child.exit_status == 7


def test_a_signal_that_ended_it_is_told(log: Path) -> None:
    with Child("x", python("import os; os.kill(os.getpid(), 11)"), log=log) as child:
        assert status_of(child) == 128 + signal.SIGSEGV


def test_it_ends_when_asked(log: Path) -> None:
    with Child("x", python(PATIENT), log=log) as child:
        wait_for_line(child)
    assert child.exit_status == 128 + signal.SIGTERM


def test_one_that_will_not_end_is_killed_after_its_grace(log: Path) -> None:
    with Child("x", python(STUBBORN), log=log, grace=0.3) as child:
        wait_for_line(child)
    assert child.exit_status == 128 + signal.SIGKILL


def test_what_a_killed_one_left_behind_is_removed(log: Path, tmp_path: Path) -> None:
    mine, other = tmp_path / "region_1_a", tmp_path / "region_2_a"
    mine.touch()
    other.touch()
    with Child("x", python(STUBBORN), log=log, grace=0.1, litter=f"{tmp_path}/region_1_*") as child:
        wait_for_line(child)
    assert not mine.exists()
    assert other.exists()


def test_what_it_started_ends_too(log: Path) -> None:
    with Child("x", python(FAMILY), log=log) as child:
        grandchild = int(wait_for_line(child))
        assert is_running(grandchild)
    assert is_gone(grandchild)


def test_what_it_left_behind_ends_when_it_ends_by_itself(log: Path) -> None:
    child = Child("x", python(FAMILY.replace('time.sleep(600)"', "")), log=log)
    grandchild = int(wait_for_line(child))
    parent = int(Path(f"/proc/{grandchild}/stat").read_text().split(") ")[1].split()[1])
    os.kill(parent, signal.SIGKILL)
    assert is_gone(grandchild)
    assert status_of(child) == 128 + signal.SIGKILL
    child.stop()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_none_outlives_an_owner_that_is_killed(tmp_path: Path, how: int) -> None:
    log = tmp_path / "child.log"
    program = (
        "import time; from pathlib import Path; from qsm_ai.inference.processes import Child\n"
        f"child = Child('x', {python(FAMILY)!r}, log=Path({str(log)!r}))\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(python(program), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        leash = int(owner.stdout.readline())
        while not log.read_text().strip():
            time.sleep(0.02)
        grandchild = int(log.read_text())
        owner.send_signal(how)
    assert is_gone(leash)
    assert is_gone(grandchild)


def test_killing_the_leash_kills_the_program(log: Path) -> None:
    child = Child("x", python("import os, time; print(os.getpid(), flush=True); time.sleep(600)"), log=log)
    program = int(wait_for_line(child))
    os.kill(child.pid, signal.SIGKILL)
    assert is_gone(program)
    child.stop()


def test_ctrl_c_in_the_terminal_does_not_reach_it(log: Path) -> None:
    with Child("x", python(PATIENT), log=log) as child:
        wait_for_line(child)
        assert os.getpgid(child.pid) != os.getpgid(0)


def test_a_program_that_does_not_exist(log: Path) -> None:
    with Child("x", ["/nonexistent/program"], log=log) as child:
        assert status_of(child) not in (None, 0)
    assert "nonexistent" in child.tail()
