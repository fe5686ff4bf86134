"""A model repository whose network is known arithmetic, and one real Triton for all tests of the session."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from known_network import CHANNELS, EDGE, known_correction, write_known_repository
from numpy.typing import NDArray

from qsm_ai.inference.server import TritonServer

SLEEPER = '''
import json, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    """Sleeps as many seconds as its input's first value says, then answers twice the input."""

    def execute(self, requests):
        responses = []
        for request in requests:
            patches = pb_utils.get_input_tensor_by_name(request, "patches").as_numpy()
            until = time.monotonic() + float(patches.flat[0])
            while time.monotonic() < until and not request.is_cancelled():
                time.sleep(0.02)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("correction", 2 * patches)]))
        return responses
'''

MALADIES = '''
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    """What its input's first value asks for: 1 nothing, 2 not a number, 3 the wrong shape, 4 a failure."""

    def execute(self, requests):
        responses = []
        for request in requests:
            patches = pb_utils.get_input_tensor_by_name(request, "patches").as_numpy()
            kind = int(patches.flat[0])
            answer = {1: patches[:0], 2: patches * np.float32("nan"), 3: patches[..., :-1]}.get(kind)
            if answer is None:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError("it hurts")))
            else:
                answer = np.ascontiguousarray(answer)
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("correction", answer)]))
        return responses
'''

SMALL_CONFIG = """
name: "%s"
backend: "python"
max_batch_size: 4
input [ { name: "patches", data_type: TYPE_FP32, dims: [ 1, -1, -1, -1 ] } ]
output [ { name: "correction", data_type: TYPE_FP32, dims: [ 1, -1, -1, -1 ] } ]
instance_group [ { kind: KIND_CPU, count: 1 } ]
"""


def add_model(repository: Path, name: str, code: str) -> None:
    """A small Python model for what the real one never does."""
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(SMALL_CONFIG % name)
    (repository / name / "1" / "model.py").write_text(code)


@pytest.fixture(scope="session")
def known() -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """What the known network gives, in numpy."""
    return known_correction


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own model repository, with the known network in place of the trained one."""
    folder = write_known_repository(tmp_path_factory.mktemp("repository"))
    add_model(folder, "sleeper", SLEEPER)
    add_model(folder, "maladies", MALADIES)
    return folder


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    """A tritonserver that runs the known network in float32, and models that misbehave."""
    with TritonServer(repository, models=("qsm_vit", "sleeper", "maladies"), precision="f32") as running:
        yield running


def read_about(server: TritonServer, model: str = "qsm_vit") -> dict[str, str]:
    """What the CPU model says of itself in Triton's metrics: runtime, precision, digest of the weights."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    for labels in re.findall(r"^qsm_network_info\{(.*)\} 1", text, re.MULTILINE):
        pairs = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*")', labels)
        said = {name: json.loads(value) for name, value in pairs}
        if said.get("model") == model:
            return said
    return {}


@pytest.fixture(scope="session")
def about() -> Callable[[TritonServer], dict[str, str]]:
    """See ``read_about``."""
    return read_about


@pytest.fixture
def patches() -> NDArray[np.float32]:
    """Three patches of noise."""
    generator = np.random.default_rng(1)
    return generator.standard_normal((3, CHANNELS, EDGE, EDGE, EDGE), dtype=np.float32)
