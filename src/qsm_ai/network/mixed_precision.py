"""The network in half precision for GPUs, with what half precision would bend left in single precision.

TensorRT builds strongly typed networks from 10.12 on, and nothing else from 11 on: the precision of every
layer stands in the ONNX file. Convolutions and matrix products become float16; norms, softmax and the cubic
of the activation stay float32, since their sums and powers leave the range or the resolution of float16.
Inputs and outputs stay float32.

Needs `onnx` and `onnxruntime` alone, so that an image can run it as a script:
``mixed_precision.py model.onnx mixed.onnx``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

KEPT_SINGLE = ("LayerNormalization", "Softmax", "Pow", "Tanh")
"""Operators that compute in float32 whatever surrounds them."""


def to_mixed_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let a float32 network compute in float16 wherever that is safe.

    Parameters
    ----------
    model : onnx.ModelProto
        As ``qsm_ai.network.export.export_onnx`` writes it; left as it is.

    Returns
    -------
    onnx.ModelProto
        Of the same inputs and outputs, with the type of every value in it.

    Raises
    ------
    onnx.shape_inference.InferenceError
        When the types of two operators contradict each other, which TensorRT would refuse.
    """
    from onnxruntime.transformers.float16 import (  # type: ignore[import-untyped]
        convert_float_to_float16,
    )
    from onnxruntime.transformers.onnx_model import OnnxModel  # type: ignore[import-untyped]

    plain = onnx.shape_inference.infer_shapes(_with_single_weights(model))
    mixed = convert_float_to_float16(
        plain, keep_io_types=True, op_block_list=list(KEPT_SINGLE), node_block_list=_activations(plain.graph)
    )
    # The casts of inputs are put last by the conversion.
    ordered = OnnxModel(mixed)
    ordered.topological_sort()
    finished: onnx.ModelProto = ordered.model
    _join_single_precision(finished.graph)
    # What was inferred before holds no longer; every type must follow from the graph itself.
    del finished.graph.value_info[:]
    onnx.checker.check_model(finished)
    return onnx.shape_inference.infer_shapes(finished, strict_mode=True)


def _with_single_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Undo the storage of weights as float16 behind a cast; the values stay those of the file."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in plain.graph.initializer}
    for node in list(plain.graph.node):
        if node.op_type == "Cast" and node.input[0] in stored:
            tensor = stored[node.input[0]]
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, node.output[0]))
            plain.graph.node.remove(node)
    return plain


def _activations(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes from each power to the hyperbolic tangent behind it, where x³ may pass 65504."""
    made_by = {output: node for node in graph.node for output in node.output}
    found: set[str] = set()
    ahead = [made_by[node.input[0]] for node in graph.node if node.op_type == "Tanh"]
    while ahead:
        node = ahead.pop()
        if node.op_type not in {"Add", "Mul", "Pow"} or node.name in found:
            continue
        found.add(node.name)
        if node.op_type != "Pow":
            ahead += [
                made_by[name]
                for name in node.input
                if name in made_by and _leads_to_power(made_by[name], made_by)
            ]
    return sorted(found)


def _leads_to_power(node: onnx.NodeProto, made_by: dict[str, onnx.NodeProto]) -> bool:
    if node.op_type == "Pow":
        return True
    return node.op_type in {"Add", "Mul"} and any(
        _leads_to_power(made_by[name], made_by) for name in node.input if name in made_by
    )


def _join_single_precision(graph: onnx.GraphProto) -> None:
    """Take out the way through float16 between two float32 operators, which the conversion lays."""
    made_by = {output: node for node in graph.node for output in node.output}
    instead: dict[str, str] = {}
    for node in graph.node:
        if _casts_to(node, onnx.TensorProto.FLOAT):
            narrowing = made_by.get(node.input[0])
            if narrowing is not None and _casts_to(narrowing, onnx.TensorProto.FLOAT16):
                instead[node.output[0]] = narrowing.input[0]
    outputs = {output.name for output in graph.output}
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = instead.get(name, name)
    used = outputs.union(*(node.input for node in graph.node))
    # Casts back first: they are the last to use the casts there.
    for precision in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
        for node in [n for n in graph.node if _casts_to(n, precision) and n.output[0] not in used]:
            graph.node.remove(node)
        used = outputs.union(*(node.input for node in graph.node))


def _casts_to(node: onnx.NodeProto, precision: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == precision for a in node.attribute)


if __name__ == "__main__":
    given, written = Path(sys.argv[1]), Path(sys.argv[2])
    onnx.save(to_mixed_precision(onnx.load(given)), written)
