"""From PyTorch weights to the ONNX file that every server runs, and the proof that both compute the same."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from qsm_ai.network.qsm_vit import QsmVit
from qsm_ai.reconstruction.inputs import CHANNELS
from qsm_ai.reconstruction.patches import PATCH

OPSET = 18
INPUT, OUTPUT = "patches", "correction"
LARGEST_BATCH = 64

LARGEST_F32, LARGEST_BF16 = 1e-4, 0.02
"""How far a backend may stray from PyTorch in float32, as a share of the correction."""

SMALLEST_HALF = 1024
"""Weights with fewer values stay float32 in the file: biases and norms cost nothing."""


def export_onnx(model: QsmVit, path: Path, *, half_weights: bool = True, edge: int = PATCH) -> Path:
    """Write a model as ONNX with a free batch size and fixed patches.

    Parameters
    ----------
    model : QsmVit
    path : Path
        Of the file, weights inside.
    half_weights : bool
        Store large weights as float16 and cast them back on loading: half the size, arithmetic unchanged.
    edge : int
        Of a patch, voxels, a multiple of eight; servers expect the default.

    Returns
    -------
    Path
    """
    model = _contiguous(model)
    example = torch.zeros(2, len(CHANNELS), edge, edge, edge)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # PyTorch's exporter leans on parts of itself that it has deprecated, and misses torchvision.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
        plain = Path(folder) / "plain.onnx"
        torch.onnx.export(
            model,
            (example,),
            plain,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH)},),
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
    """Copy a model with the weights that a half-precision file holds: what the ONNX file is compared with.

    Parameters
    ----------
    model : QsmVit

    Returns
    -------
    QsmVit
    """
    model = _contiguous(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() >= SMALLEST_HALF:
                parameter.copy_(parameter.half().float())
    return model


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


def load_checkpoint(path: Path) -> QsmVit:
    """Read the averaged weights of a training checkpoint.

    Parameters
    ----------
    path : Path

    Returns
    -------
    QsmVit
        Of the architecture that was trained; the default one where the checkpoint does not say.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = QsmVit(**state.get("architecture", {"channels": len(CHANNELS)}))
    model.load_state_dict(state["average"])
    return model.eval()


def keep_checkpoint(checkpoint: Path, path: Path) -> Path:
    """Write the averaged weights of a checkpoint alone, in half precision: what a later training starts from.

    Parameters
    ----------
    checkpoint : Path
        Of a training.
    path : Path
        Of the smaller file, which ``load_checkpoint`` reads too.

    Returns
    -------
    Path
    """
    model = load_checkpoint(checkpoint)
    average = {name: value.half() for name, value in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"average": average, "architecture": model.architecture}, path)
    return path


def parity(model: QsmVit, path: Path, *, edge: int = PATCH, seed: int = 0) -> dict[str, float]:
    """Compare what ONNX Runtime and OpenVINO make of an exported file with PyTorch, on a random patch.

    Parameters
    ----------
    model : QsmVit
        The one that was exported, with half-precision weights.
    path : Path
        Of the ONNX file.
    edge : int
        Of a patch, voxels, as exported.
    seed : int

    Returns
    -------
    dict
        Norm of the difference over the norm of the correction, for each backend installed, OpenVINO in
        float32 and in bfloat16.
    """
    shape = (1, len(CHANNELS), edge, edge, edge)
    patches = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    with torch.no_grad():
        expected = rounded_to_half(model)(torch.from_numpy(patches)).numpy()
    answers = {}
    if find_spec("onnxruntime"):
        import onnxruntime  # type: ignore[import-untyped]

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        answers["ONNX Runtime float32"] = session.run(None, {INPUT: patches})[0]
    if find_spec("openvino"):
        import openvino

        for precision in ("f32", "bf16"):
            compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": precision})
            answers[f"OpenVINO {precision}"] = compiled({INPUT: patches})[0]
    # An untrained network corrects nothing.
    size = float(np.linalg.norm(expected)) or 1.0
    return {name: float(np.linalg.norm(answer - expected)) / size for name, answer in answers.items()}


def too_far(differences: dict[str, float]) -> list[str]:
    """Name the backends whose answers are further from PyTorch's than their precision explains."""
    limits = {name: LARGEST_BF16 if name.endswith("bf16") else LARGEST_F32 for name in differences}
    return [name for name, difference in differences.items() if not difference <= limits[name]]
