"""The CPU image's way of starting Triton, with the real server: it answers, and ends when it must."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from qsm_ai.inference.environment import ensure
from qsm_ai.inference.errors import RuntimeMissing
from qsm_ai.inference.openvino import OpenVinoNetwork
from qsm_ai.inference.triton import TritonNetwork

ROOT = Path(__file__).parents[2]
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton puts tensors


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/health/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class Container:
    """What the image starts, on this machine's own environment of Triton."""

    process: subprocess.Popen[bytes]
    http: int
    grpc: int
    metrics: int
    log: Path

    @property
    def region(self) -> str:
        return f"qsm_ai_{self.grpc}_"

    def until_ready(self) -> None:
        end = time.monotonic() + 200
        while not is_ready(self.http):
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.2)

    def model_process(self) -> int:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                program, *arguments = (entry / "cmdline").read_text().split("\0")
            except OSError:
                continue
            if program.endswith("python_backend_stub") and any(a.startswith(self.region) for a in arguments):
                return int(entry.name)
        raise AssertionError("no process runs the model")


@pytest.fixture
def container(free_port: Callable[[], int], tmp_path: Path) -> Iterator[Container]:
    try:
        environment = ensure()
    except RuntimeMissing as missing:
        pytest.skip(str(missing))
    http, grpc, metrics = free_port(), free_port(), free_port()
    settings = {
        "QSM_TRITON_ENV": str(environment.folder),
        "QSM_MODEL_REPOSITORY": str(ROOT / "model_repository"),
        "QSM_TRITON_HOST": "127.0.0.1",
        "QSM_TRITON_HTTP_PORT": str(http),
        "QSM_TRITON_GRPC_PORT": str(grpc),
        "QSM_TRITON_METRICS_PORT": str(metrics),
        "QSM_PRECISION": "f32",
    }
    log = tmp_path / "triton.log"
    # What a server that was killed before left behind must not be in the way.
    leftover = SHARED_MEMORY / f"qsm_ai_{grpc}_leftover"
    leftover.touch()
    with log.open("w") as sink:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "deploy/docker/triton-cpu-entrypoint")],
            env=os.environ | settings,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        yield Container(process, http, grpc, metrics, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for file in SHARED_MEMORY.glob(f"*qsm_ai_{grpc}_*"):
            file.unlink(missing_ok=True)


def shared_memory(container: Container) -> list[Path]:
    return list(SHARED_MEMORY.glob(f"*{container.region}*"))


def test_the_entrypoint_serves_the_shipped_network_and_drains(container: Container) -> None:
    container.until_ready()
    assert not any("leftover" in file.name for file in shared_memory(container))
    patches = np.random.default_rng(1).standard_normal((1, 6, 96, 96, 96)).astype(np.float32)
    answer = TritonNetwork(f"127.0.0.1:{container.grpc}").predict(patches)
    wanted = OpenVinoNetwork(precision="f32").predict(patches)
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(answer, wanted, atol=1e-4 * float(np.abs(wanted).max()))
    assert "nv_inference_count" in httpx.get(f"http://127.0.0.1:{container.metrics}/metrics").text
    container.process.send_signal(signal.SIGTERM)
    assert container.process.wait(60) == 0
    assert shared_memory(container) == []


def test_the_container_ends_when_the_process_of_its_model_has_died(container: Container) -> None:
    container.until_ready()
    os.kill(container.model_process(), signal.SIGKILL)
    assert container.process.wait(60) == 1
    assert "has died" in container.log.read_text()
    assert not is_ready(container.http)
    assert shared_memory(container) == []


def test_a_server_that_does_not_get_ready_is_ended(free_port: Callable[[], int], tmp_path: Path) -> None:
    """The real one was seen hanging while it loads, on a machine ten times overloaded."""
    packages = tmp_path / "lib/python3.11/site-packages/pytriton/tritonserver/bin"
    packages.mkdir(parents=True)
    (packages / "tritonserver").write_text("#!/bin/sh\nexec sleep 600\n")
    (packages / "tritonserver").chmod(0o755)
    (tmp_path / "made-from").write_text("0\n3.11\n-\n")
    ports = {f"QSM_TRITON_{name}_PORT": str(free_port()) for name in ("HTTP", "GRPC", "METRICS")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy/docker/triton-cpu-entrypoint")],
        env=os.environ | ports | {"QSM_TRITON_ENV": str(tmp_path), "QSM_TRITON_START_TIMEOUT": "1"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "does not get ready" in done.stderr


def test_a_model_that_cannot_be_loaded_ends_the_container(
    free_port: Callable[[], int], tmp_path: Path
) -> None:
    try:
        environment = ensure()
    except RuntimeMissing as missing:
        pytest.skip(str(missing))
    (tmp_path / "models").mkdir()
    ports = {f"QSM_TRITON_{name}_PORT": str(free_port()) for name in ("HTTP", "GRPC", "METRICS")}
    settings = {
        "QSM_TRITON_ENV": str(environment.folder),
        "QSM_MODEL_REPOSITORY": str(tmp_path / "models"),
        "QSM_TRITON_HOST": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy/docker/triton-cpu-entrypoint")],
        env=os.environ | settings | ports,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode not in (0, None)


def test_the_entrypoint_passes_what_the_launcher_passes() -> None:
    launcher = (ROOT / "src/qsm_ai/inference/server.py").read_text()
    script = (ROOT / "deploy/docker/triton-cpu-entrypoint").read_text()
    for option in (
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        "--http-thread-count=2",
        "--backend-directory=",
        "shm-region-prefix-name=",
        "shm-default-byte-size=",
        "shm-growth-byte-size=",
    ):
        assert option in launcher
        assert option in script
