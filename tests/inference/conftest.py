"""A model repository whose network is known arithmetic, and one real Triton for all tests of the session."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qsm_ai.inference.server import TritonServer

ROOT = Path(__file__).parents[2]
EDGE = 96
CHANNELS = 6
WEIGHTS = np.array([1.0, -2.0, 0.5, 3.0, 0.25, -1.5], np.float32)
BIAS = np.float32(0.125)

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


def write_known_network(path: Path, *, channels: int = CHANNELS, edge: int = EDGE) -> None:
    """correction = weights · channels + bias, as ONNX."""
    weights = np.resize(WEIGHTS, channels).reshape(1, channels, 1, 1, 1)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["patches", "weights", "bias"], ["correction"], kernel_shape=[1, 1, 1])],
        "known",
        [helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["n", channels, edge, edge, edge])],
        [helper.make_tensor_value_info("correction", TensorProto.FLOAT, ["n", 1, edge, edge, edge])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(BIAS.reshape(1), "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def add_model(repository: Path, name: str, code: str) -> None:
    """A small Python model for what the real one never does."""
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(SMALL_CONFIG % name)
    (repository / name / "1" / "model.py").write_text(code)


@pytest.fixture(scope="session")
def known() -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """What the known network gives, in numpy."""
    return lambda patches: np.einsum("c,ncxyz->nxyz", WEIGHTS, patches)[:, None] + BIAS


@pytest.fixture(scope="session")
def write_network() -> Callable[..., None]:
    """Writes the known network as ONNX: ``write_network(path, channels=5, edge=96)``."""
    return write_known_network


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own model repository, with the known network in place of the trained one."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(
        ROOT / "model_repository" / "qsm_vit",
        folder / "qsm_vit",
        ignore=shutil.ignore_patterns("*.onnx", "__pycache__"),
    )
    write_known_network(folder / "qsm_vit" / "1" / "model.onnx")
    add_model(folder, "sleeper", SLEEPER)
    add_model(folder, "maladies", MALADIES)
    return folder


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    """A tritonserver that runs the known network in float32, and models that misbehave."""
    with TritonServer(repository, models=("qsm_vit", "sleeper", "maladies"), precision="f32") as running:
        yield running


@pytest.fixture
def patches() -> NDArray[np.float32]:
    """Three patches of noise."""
    generator = np.random.default_rng(1)
    return generator.standard_normal((3, CHANNELS, EDGE, EDGE, EDGE), dtype=np.float32)
