"""Starting tritonserver for real: values, not readiness; neighbours; and nothing left behind."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import pytest
from known_network import write_known_network
from numpy.typing import NDArray
from triton_processes import processes_of, stub_of, tritonserver_of

from qsm_ai.inference.environment import ensure
from qsm_ai.inference.errors import (
    ModelFileMissing,
    TritonModelDied,
    TritonStartFailed,
    TritonUnavailable,
)
from qsm_ai.inference.openvino import resolve_precision
from qsm_ai.inference.ports import any_free
from qsm_ai.inference.repository import weights_digest
from qsm_ai.inference.server import Ports, TritonServer
from qsm_ai.inference.triton import TritonNetwork

Patches = NDArray[np.float32]
About = Callable[[TritonServer], dict[str, str]]
PROC = Path("/proc")


def regions_of(server_port: int) -> list[str]:
    shared = Path("/dev/shm")  # noqa: S108 - only looked at
    return [entry.name for entry in shared.iterdir() if f"qsm_ai_{server_port}_" in entry.name]


def gone(server_port: int, within: float = 15.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not processes_of(server_port):
            return True
        time.sleep(0.1)
    return False


def listening_addresses(pid: int) -> set[str]:
    """Local addresses (hexadecimal) on which a process listens."""
    inodes = set()
    for descriptor in (PROC / str(pid) / "fd").iterdir():
        try:
            match = re.match(r"socket:\[(\d+)\]", str(descriptor.readlink()))
        except OSError:
            continue
        if match:
            inodes.add(match[1])
    rows = [
        line.split() for table in ("tcp", "tcp6") for line in (PROC / f"net/{table}").read_text().splitlines()
    ]
    return {row[1].split(":")[0] for row in rows[1:] if row[3] == "0A" and row[9] in inodes}


def test_it_listens_on_this_machine_only(server: TritonServer) -> None:
    assert listening_addresses(tritonserver_of(server.ports.grpc)) <= {
        "0100007F",
        "0000000000000000FFFF00000100007F",
    }


def test_it_says_what_runs(server: TritonServer, about: About, repository: Path) -> None:
    said = about(server)
    assert said["precision"] == "f32"
    assert said["runtime"].startswith("openvino 2026.4")
    assert said["weights"] == weights_digest(repository / "qsm_vit/1/model.onnx")[:12]


def test_ports_are_below_those_of_outgoing_connections() -> None:
    ports = Ports.free()
    assert len({ports.http, ports.grpc, ports.metrics}) == 3
    assert all(1024 < port < 32768 for port in (ports.http, ports.grpc, ports.metrics))


def test_a_second_server_lives_beside_it_and_leaves_nothing(
    server: TritonServer,
    repository: Path,
    patches: Patches,
    known: Callable[[Patches], Patches],
    about: About,
) -> None:
    with TritonServer(repository, precision="bf16") as second:
        port, log = second.ports.grpc, second.log
        assert about(second)["precision"] == "bf16"
        assert len(processes_of(port)) == 3
        with TritonNetwork(second.grpc_url) as one, TritonNetwork(server.grpc_url) as other:
            coarse, exact = one.predict(patches[:1]), other.predict(patches[:1])
    np.testing.assert_allclose(exact, known(patches[:1]), rtol=1e-5, atol=1e-5)
    spread = np.abs(known(patches[:1])).max()
    assert np.abs(coarse - exact).max() < 0.02 * spread
    if resolve_precision(openvino.Core(), "auto") == "bf16":
        # Asked for bf16, a CPU without it computes in float32.
        assert np.abs(coarse - exact).max() > 1e-5 * spread
    assert second.exit_status == 0
    assert processes_of(port) == set()
    assert regions_of(port) == []
    assert not log.exists()
    second.stop()


def test_killed_in_the_middle_is_told_at_once_and_leaves_no_stub(repository: Path) -> None:
    with TritonServer(repository, models=("sleeper",)) as server:
        port = server.ports.grpc
        victim = tritonserver_of(port)
        threading.Timer(1.0, os.kill, args=(victim, signal.SIGKILL)).start()
        with TritonNetwork(server.grpc_url, model="sleeper") as network:
            start = time.monotonic()
            with pytest.raises(TritonUnavailable, match="No Triton server answers"):
                network.predict(np.full((1, 1, 2, 2, 2), 30, np.float32))
            assert time.monotonic() - start < 6
        assert gone(port)
        assert server.exit_status == 128 + signal.SIGKILL
        assert regions_of(port) == []


def test_a_model_that_died_is_told_though_the_server_stays_ready(repository: Path) -> None:
    with (
        TritonServer(repository, models=("sleeper",)) as server,
        TritonNetwork(server.grpc_url, model="sleeper") as network,
    ):
        ask = np.full((1, 1, 2, 2, 2), 0.01, np.float32)
        network.predict(ask)
        assert not server.dead_models()
        os.kill(stub_of(server.ports.grpc), signal.SIGKILL)
        with pytest.raises(TritonModelDied, match=r"sleeper .* has died\. Restart the server"):
            network.predict(ask)
        assert server.is_ready()
        assert server.dead_models()
    assert regions_of(server.ports.grpc) == []


def test_it_does_not_outlive_a_killed_owner(repository: Path, tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from qsm_ai.inference.server import TritonServer\n"
        f"server = TritonServer(Path({str(repository)!r}), models=('sleeper',)).start()\n"
        f"Path({str(tmp_path / 'log')!r}).write_text(str(server.log))\n"
        "print(server.ports.grpc, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        port = int(owner.stdout.readline())
        assert len(processes_of(port)) == 3
        owner.kill()
    assert gone(port)
    assert regions_of(port) == []
    Path((tmp_path / "log").read_text()).unlink()


class TestWhatCannotStart:
    def test_without_weights(self, repository: Path, tmp_path: Path) -> None:
        shutil.copytree(repository / "qsm_vit", tmp_path / "qsm_vit")
        (tmp_path / "qsm_vit/1/model.onnx").unlink()
        with pytest.raises(TritonStartFailed, match=r"model\.onnx is missing beside model\.py"):
            TritonServer(tmp_path, log=tmp_path / "log").start()

    def test_with_a_network_of_other_channels(self, repository: Path, tmp_path: Path) -> None:
        shutil.copytree(repository / "qsm_vit", tmp_path / "qsm_vit")
        write_known_network(tmp_path / "qsm_vit/1/model.onnx", channels=4)
        with pytest.raises(TritonStartFailed, match=r"takes \(4, 96, 96, 96\).*says \(6, 96, 96, 96\)"):
            TritonServer(tmp_path, log=tmp_path / "log").start()

    def test_under_numpy_2_it_never_becomes_ready(
        self, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = ensure()
        wrong = replace(right, folder=tmp_path / "env")
        base = Path(sys.base_prefix) / "bin" / f"python{right.python_version}"
        subprocess.run([base, "-m", "venv", "--without-pip", wrong.folder], check=True)
        theirs = [p for p in right.site_packages.iterdir() if not p.name.startswith("numpy")]
        for package in [*theirs, *Path(np.__file__).parents[1].glob("numpy*")]:
            (wrong.site_packages / package.name).symlink_to(package)
        shutil.copy(right.folder / "made-from", wrong.folder)
        monkeypatch.setenv("QSM_TRITON_ENV", str(wrong.folder))
        with pytest.raises(TritonStartFailed, match=r"numpy 2\..* is installed"):
            TritonServer(repository, log=tmp_path / "log").start()

    def test_with_an_unknown_precision(self, repository: Path, tmp_path: Path) -> None:
        with pytest.raises(TritonStartFailed, match="it must be auto, f32 or bf16"):
            TritonServer(repository, log=tmp_path / "log", precision="f8").start()

    def test_on_a_taken_port(self, repository: Path, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", any_free())) as taken:
            free = Ports.free()
            ports = Ports(free.http, taken.getsockname()[1], free.metrics)
            with pytest.raises(TritonStartFailed, match=r"(?s)ended before it was ready.*ddress"):
                TritonServer(repository, models=("sleeper",), ports=ports, log=tmp_path / "log").start()
        assert gone(ports.grpc)

    def test_without_the_model(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFileMissing, match="holds no qsm_vit"):
            TritonServer(tmp_path).start()

    def test_too_slowly(self, repository: Path, tmp_path: Path) -> None:
        slow = TritonServer(repository, log=tmp_path / "log", start_timeout=0.2)
        with pytest.raises(TritonStartFailed, match="not ready within 0 s"):
            slow.start()
        assert gone(slow.ports.grpc, within=0.1)
        assert regions_of(slow.ports.grpc) == []
