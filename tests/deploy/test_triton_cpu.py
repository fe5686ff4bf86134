"""The CPU image's way of starting Triton, with the real server: it answers rightly, and ends when told to."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from qsm_ai.inference.environment import ensure
from qsm_ai.inference.errors import RuntimeMissing
from qsm_ai.inference.openvino import OpenVinoNetwork
from qsm_ai.inference.triton import TritonNetwork

ROOT = Path(__file__).parents[2]


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/health/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def test_the_entrypoint_serves_the_shipped_network_and_drains(
    free_port: Callable[[], int], tmp_path: Path
) -> None:
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
    with log.open("w") as sink:
        server = subprocess.Popen(
            [str(ROOT / "deploy/docker/triton-cpu-entrypoint")],
            env=os.environ | settings,
            stdout=sink,
            stderr=sink,
        )
    try:
        end = time.monotonic() + 120
        while not is_ready(http):
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.2)
        patches = np.random.default_rng(1).standard_normal((1, 5, 96, 96, 96)).astype(np.float32)
        answer = TritonNetwork(f"127.0.0.1:{grpc}").predict(patches)
        wanted = OpenVinoNetwork(precision="f32").predict(patches)
        assert np.abs(wanted).max() > 0
        np.testing.assert_allclose(answer, wanted, atol=1e-4 * float(np.abs(wanted).max()))
        assert "nv_inference_count" in httpx.get(f"http://127.0.0.1:{metrics}/metrics").text
        server.send_signal(signal.SIGTERM)
        assert server.wait(40) == 0
    finally:
        server.kill()
        server.wait()


def test_the_entrypoint_passes_what_the_launcher_passes() -> None:
    launcher = (ROOT / "src/qsm_ai/inference/server.py").read_text()
    script = (ROOT / "deploy/docker/triton-cpu-entrypoint").read_text()
    for option in (
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        "--http-thread-count=2",
        "--backend-directory=",
        "shm-default-byte-size=",
        "shm-growth-byte-size=",
    ):
        assert option in launcher
        assert option in script
