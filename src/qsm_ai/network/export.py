"""From PyTorch weights to the ONNX file that every server runs, and the proof that both compute the same."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from qsm_ai.network.qsm_vit import QsmVit
from qsm_ai.reconstruction.inputs import CHANNELS
from qsm_ai.reconstruction.patches import PATCH

OPSET = 18
INPUT, OUTPUT = "patches", "correction"


def export_onnx(model: QsmVit, path: Path, *, half_weights: bool = True) -> Path:
    """Write a model as ONNX with a free batch size and fixed patches.

    Parameters
    ----------
    model : QsmVit
    path : Path
        Of the file, weights inside.
    half_weights : bool
        Store large weights as float16 and cast them back on loading: half the size, arithmetic unchanged.

    Returns
    -------
    Path
    """
    model = _contiguous(model)
    example = torch.zeros(2, len(CHANNELS), PATCH, PATCH, PATCH)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        torch.onnx.export(
            model,
            (example,),
            plain,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
            external_data=False,
            verbose=False,
        )
        graph = onnx.load(plain)
    if half_weights:
        _store_as_half(graph)
    onnx.checker.check_model(graph)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    onnx.save(graph, partial)
    partial.rename(path)
    return path


def rounded_to_half(model: QsmVit) -> QsmVit:
    """The model with the weights that a half-precision file holds: what the ONNX file is compared with."""
    model = _contiguous(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() >= SMALLEST_HALF:
                parameter.copy_(parameter.half().float())
    return model


SMALLEST_HALF = 1024


def _contiguous(model: QsmVit) -> QsmVit:
    return copy.deepcopy(model).to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload,no-any-return]


def _store_as_half(graph: onnx.ModelProto) -> None:
    """Keep large float32 initialisers as float16 with a cast behind each."""
    casts = []
    for tensor in graph.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < SMALLEST_HALF:
            continue
        name = tensor.name
        values = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, f"{name}.half"))
        casts.append(
            onnx.helper.make_node(
                "Cast", [f"{name}.half"], [name], name=f"{name}.cast", to=onnx.TensorProto.FLOAT
            )
        )
    for node in reversed(casts):
        graph.graph.node.insert(0, node)


def load_checkpoint(path: Path, model: nn.Module | None = None) -> QsmVit:
    """The averaged weights of a training checkpoint."""
    network = model or QsmVit(len(CHANNELS))
    state = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(state["average"])
    return network.eval()  # type: ignore[return-value]


def parity(model: QsmVit, path: Path, seed: int = 0) -> dict[str, float]:
    """How far ONNX Runtime and OpenVINO, in float32 and bfloat16, stray from PyTorch in float32 on random patches.

    Parameters
    ----------
    model : QsmVit
        The one that was exported.
    path : Path
        Of the ONNX file.
    seed : int

    Returns
    -------
    dict
        Norm of the difference over the norm of the correction, for each backend that is installed.
    """
    from importlib.util import find_spec

    shape = (1, len(CHANNELS), PATCH, PATCH, PATCH)
    patches = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    with torch.no_grad():
        expected = rounded_to_half(model)(torch.from_numpy(patches)).numpy()
    answers = {}
    if find_spec("onnxruntime"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        answers["ONNX Runtime float32"] = session.run(None, {INPUT: patches})[0]
    if find_spec("openvino"):
        import openvino

        for precision in ("f32", "bf16"):
            compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": precision})
            answers[f"OpenVINO {precision}"] = compiled({INPUT: patches})[0]
    size = float(np.linalg.norm(expected))
    return {name: float(np.linalg.norm(answer - expected)) / size for name, answer in answers.items()}
