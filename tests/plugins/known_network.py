"""A network of known arithmetic, which loads at once, in place of the trained one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MODEL = Path(__file__).parents[2] / "model_repository" / "qsm_vit"
EDGE = 96
CHANNELS = 6
WEIGHTS = np.array([1.0, -2.0, 0.5, 3.0, 0.25, -1.5], np.float32)
BIAS = np.float32(0.125)


def known_correction(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the known network gives, in numpy."""
    summed: NDArray[np.float32] = np.einsum("c,ncxyz->nxyz", WEIGHTS, patches)
    return summed[:, None] + BIAS


def write_known_network(path: Path, *, channels: int = CHANNELS, edge: int = EDGE) -> None:
    """correction = weights · channels + bias, as ONNX."""
    # Who only collects the tests of other tiers needs no onnx.
    import onnx
    from onnx import TensorProto, helper, numpy_helper

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


def write_known_repository(folder: Path) -> Path:
    """The project's own model repository with the known network in it."""
    ignored = shutil.ignore_patterns("*.onnx", "__pycache__")
    shutil.copytree(MODEL, folder / MODEL.name, ignore=ignored)
    write_known_network(folder / MODEL.name / "1" / "model.onnx")
    return folder
