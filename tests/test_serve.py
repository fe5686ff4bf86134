"""One command starts all three tiers, says what happens to them, and leaves nothing behind."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qsm_ai.cli import app
from qsm_ai.inference.ports import any_free, is_free
from qsm_ai.inference.server import Ports
from qsm_ai.serve import Addresses, CannotServe, ask, only_one

PATIENCE = 180.0
PROC = Path("/proc")


class Running:
    """``qsm-ai serve`` as a process, with what it says."""

    def __init__(self, data: Path, arguments: list[str], variables: dict[str, str]) -> None:
        self.output = data.with_name(f"{data.name}.output")
        with self.output.open("w") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "qsm_ai.serve", "--data", str(data), *arguments],
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={k: v for k, v in os.environ.items() if not k.startswith("QSM_")} | variables,
            )

    def said(self) -> str:
        return self.output.read_text()

    def wait_until_said(self, pattern: str) -> str:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.said()):
                return found[0]
            assert self.process.poll() is None, self.said()
            time.sleep(0.1)
        raise AssertionError(f"never said {pattern}:\n{self.said()}")


def children(pid: int) -> list[int]:
    return [
        int(p) for t in (PROC / str(pid) / "task").iterdir() for p in (t / "children").read_text().split()
    ]


def family(pid: int) -> set[int]:
    """All descendants of a process."""
    below = set(children(pid))
    return below.union(*(family(child) for child in below))


def runs(pid: int, word: str) -> bool:
    """Whether a process runs a program, or a Python module, whose name ends so; its leash does not count."""
    arguments = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    program = arguments[2] if arguments[1] == b"-m" else arguments[0]
    return program.endswith(word.encode())


def all_gone(pids: set[int], within: float = 30.0) -> bool:
    def living(pid: int) -> bool:
        try:
            return (PROC / str(pid) / "stat").read_text().split(") ")[1][0] != "Z"
        except OSError:
            return False

    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not any(living(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


@contextmanager
def serving(
    data: Path, *, page: int | None = None, api: int | None = None, **variables: str
) -> Iterator[Running]:
    triton = Ports.free()
    arguments = {
        "--port": page or any_free(),
        "--api-port": api or any_free(),
        "--triton-http-port": triton.http,
        "--triton-grpc-port": triton.grpc,
        "--triton-metrics-port": triton.metrics,
        "--patience": PATIENCE,
    }
    running = Running(data, [f"{name}={value}" for name, value in arguments.items()], variables)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.terminate()
        running.process.wait(60)


def test_all_three_come_up_on_free_ports_and_go_down_on_ctrl_c(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", any_free())) as taken:
        port = taken.getsockname()[1]
        with serving(tmp_path / "data", page=port) as running:
            running.wait_until_said("QSM-AI is ready")
            page, api = (
                int(running.wait_until_said(rf"{name} +http://127\.0\.0\.1:\d+").rpartition(":")[2])
                for name in ("Page", "API")
            )
            assert f"Port {port} is taken; the page listens on {page}." in running.said()
            assert ask(page, "/_stcore/health")[0] == http.client.OK
            assert ask(api, "/readyz")[0] == http.client.OK
            everything = family(running.process.pid)
            for word in ("tritonserver", "qsm_ai.api", "qsm_ai.ui", "python_backend_stub"):
                assert any(runs(pid, word) for pid in everything)

            with serving(tmp_path / "data") as second:
                assert second.process.wait(60) == 1
                assert f"runs already on this data folder, at http://127.0.0.1:{page}" in second.said()

            everything = family(running.process.pid)
            running.process.send_signal(signal.SIGINT)
            assert running.process.wait(60) == 0
            assert all_gone(everything, within=1.0)
    assert {p.name for p in (tmp_path / "data" / "log").iterdir()} == {
        "triton.log",
        "backend.log",
        "page.log",
    }


@pytest.mark.parametrize(
    ("victim", "said"),
    [
        ("qsm_ai.ui", "Page ended by itself (killed by signal 9). Its log ends:"),
        ("tritonserver", "Triton ended by itself (killed by signal 9). Its log ends:"),
        ("python_backend_stub", "The process that runs the network in Triton was killed"),
    ],
)
def test_when_one_dies_it_says_which_and_stops_the_others(tmp_path: Path, victim: str, said: str) -> None:
    with serving(tmp_path / "data") as running:
        running.wait_until_said("QSM-AI is ready")
        everything = family(running.process.pid)
        (chosen,) = (pid for pid in everything if runs(pid, victim))
        os.kill(chosen, signal.SIGKILL)
        assert running.process.wait(60) == 1
        assert said in running.said()
        assert all_gone(everything, within=1.0)


def test_none_outlives_it_when_it_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as running:
        running.wait_until_said("Page: ready")
        everything = family(running.process.pid)
        assert len(everything) >= 6
        running.process.kill()
        assert all_gone(everything)


def test_a_tier_that_cannot_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with serving(tmp_path / "data", QSM_CORS_ORIGINS="*") as running:
        assert running.process.wait(PATIENCE) == 1
        assert re.search(r"(?s)Backend ended by itself \(exit status 2\).*is no origin", running.said())


def test_without_weights_it_says_so_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with serving(tmp_path / "data", QSM_MODEL_REPOSITORY=str(tmp_path / "empty")) as running:
        assert running.process.wait(60) == 1
        assert "The weights of qsm_vit are not there" in running.said()
        assert "Traceback" not in running.said()


class TestAddresses:
    def test_free_ports_are_taken_as_wanted(self) -> None:
        wanted = Ports.free()
        page, api = any_free(but={*vars(wanted).values()}), any_free(but={*vars(wanted).values()})
        chosen = Addresses.choose(page=page, api=api, triton=wanted)
        assert (chosen.page, chosen.api, chosen.triton, chosen.moved) == (page, api, wanted, ())

    def test_nobody_is_moved_onto_the_port_of_another(self) -> None:
        # Servers of tests beside this one may hold the ports that follow: then look elsewhere.
        for _ in range(50):
            with socket.create_server(("127.0.0.1", any_free())) as taken:
                port = taken.getsockname()[1]
                wanted = Ports(port + 2, port + 3, port + 4)
                others_free = all(is_free(port + k) for k in range(1, 5))
                chosen = Addresses.choose(page=port, api=port + 1, triton=wanted)
            if others_free and len(chosen.moved) == 1:
                break
        assert chosen.api == port + 1
        assert chosen.triton == Ports(port + 2, port + 3, port + 4)
        assert chosen.page >= port + 5
        assert chosen.moved == (f"Port {port} is taken; the page listens on {chosen.page}.",)


@pytest.mark.parametrize("below", ["", "below"])
def test_a_data_folder_that_cannot_be_is_one_sentence(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotServe, match="cannot be written"), only_one(tmp_path / "file" / below, "here"):
        pass


@pytest.mark.parametrize("port", ["-5", "0", "65536"])
@pytest.mark.parametrize("command", [["serve", "--port"], ["serve", "--triton-grpc-port"],
                                     ["triton", "run", "--http-port"]])  # fmt: skip
def test_a_port_that_does_not_exist_is_refused(command: list[str], port: str) -> None:
    refused = CliRunner().invoke(app, [*command, port])
    assert refused.exit_code == 2
    assert command[-1] in refused.stderr
