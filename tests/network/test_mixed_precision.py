"""The half-precision network: which operators compute in what, and that nothing else changes."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from qsm_ai.network.mixed_precision import to_mixed_precision  # noqa: E402

MODEL = Path(__file__).parents[2] / "model_repository/qsm_vit/1/model.onnx"


@pytest.fixture(scope="module")
def shipped() -> onnx.ModelProto:
    return onnx.load(MODEL)


@pytest.fixture(scope="module")
def mixed(shipped: onnx.ModelProto) -> onnx.ModelProto:
    return to_mixed_precision(shipped)


def precisions(model: onnx.ModelProto) -> dict[str, set[int]]:
    """For each operator the types of its first inputs."""
    graph = model.graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    found = defaultdict(set)
    for node in graph.node:
        found[node.op_type].add(types[node.input[0]])
    return found


def test_convolutions_and_products_are_half_precision(mixed: onnx.ModelProto) -> None:
    found = precisions(mixed)
    assert found["Conv"] == found["MatMul"] == found["LeakyRelu"] == {TensorProto.FLOAT16}


@pytest.mark.parametrize("operator", ["LayerNormalization", "Softmax", "Pow", "Tanh"])
def test_sums_and_powers_are_single_precision(mixed: onnx.ModelProto, operator: str) -> None:
    assert precisions(mixed)[operator] == {TensorProto.FLOAT}


def test_what_goes_in_and_comes_out_stays(shipped: onnx.ModelProto, mixed: onnx.ModelProto) -> None:
    assert list(mixed.graph.input) == list(shipped.graph.input)
    assert [v.name for v in mixed.graph.output] == ["correction"]
    assert mixed.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_the_given_network_is_left_as_it_is(shipped: onnx.ModelProto) -> None:
    before = shipped.SerializeToString(deterministic=True)
    to_mixed_precision(shipped)
    assert shipped.SerializeToString(deterministic=True) == before


def test_weights_that_were_stored_as_half_keep_their_values(
    shipped: onnx.ModelProto, mixed: onnx.ModelProto
) -> None:
    halves = {
        numpy_helper.to_array(t).tobytes()
        for t in shipped.graph.initializer
        if t.data_type == TensorProto.FLOAT16
    }
    kept = {numpy_helper.to_array(t).tobytes() for t in mixed.graph.initializer}
    assert halves
    assert halves <= kept


def activation_of(values: np.ndarray, convert: bool) -> np.ndarray:
    """A cubic activation behind a product, as in the transformer, run by ONNX Runtime."""
    shape = [None, values.shape[1]]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "eye"], ["a"], "product"),
            helper.make_node("Pow", ["a", "three"], ["b"], "power"),
            helper.make_node("Mul", ["b", "small"], ["c"], "scaled"),
            helper.make_node("Add", ["a", "c"], ["d"], "sum"),
            helper.make_node("Tanh", ["d"], ["y"], "tanh"),
        ],
        "activation",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(np.eye(values.shape[1], dtype=np.float32), "eye"),
            numpy_helper.from_array(np.float32(3), "three"),
            numpy_helper.from_array(np.float32(-1e-5), "small"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if convert:
        model = to_mixed_precision(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answer: np.ndarray = session.run(None, {"x": values})[0]
    return answer


def test_a_cube_beyond_the_range_of_half_precision_does_not_overflow() -> None:
    # 100 cubed is 1e6, where float16 ends at 65504: x − x³/1e5 would be minus infinity instead of 90.
    values = np.array([[100.0, 50.0, -100.0, 1.0]], np.float32)
    np.testing.assert_allclose(
        activation_of(values, convert=True), activation_of(values, convert=False), atol=1e-3
    )
