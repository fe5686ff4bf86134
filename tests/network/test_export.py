"""What the ONNX file computes is what PyTorch computes, whoever runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from qsm_ai.network.export import (  # noqa: E402
    INPUT,
    OPSET,
    OUTPUT,
    SMALLEST_HALF,
    export_onnx,
    keep_checkpoint,
    load_checkpoint,
    parity,
    rounded_to_half,
    too_far,
)
from qsm_ai.network.qsm_vit import QsmVit  # noqa: E402
from qsm_ai.network.training import Plan, Trainer  # noqa: E402

if TYPE_CHECKING:
    Make = Callable[..., QsmVit]

EDGE = 24


@pytest.fixture(scope="module")
def model() -> QsmVit:
    torch.manual_seed(3)
    made = QsmVit(widths=(8, 16, 32), depth=1, heads=2)
    with torch.no_grad():
        for parameter in made.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(scale * torch.randn_like(parameter))
    return made.eval()


@pytest.fixture(scope="module")
def exported(model: QsmVit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(model, tmp_path_factory.mktemp("onnx") / "1" / "model.onnx", edge=EDGE)


def patches(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 6, EDGE, EDGE, EDGE), dtype=np.float32)


def test_every_backend_agrees_with_pytorch(model: QsmVit, exported: Path) -> None:
    pytest.importorskip("openvino")
    differences = parity(model, exported, edge=EDGE)
    assert set(differences) == {"ONNX Runtime float32", "OpenVINO f32", "OpenVINO bf16"}
    assert differences["ONNX Runtime float32"] < 1e-5
    assert differences["OpenVINO f32"] < 1e-5
    assert differences["OpenVINO bf16"] < 1e-2
    assert too_far(differences) == []


def test_names_and_shapes_are_those_of_the_model_repository(exported: Path) -> None:
    graph = onnx.load(exported)
    assert [o.version for o in graph.opset_import if o.domain in {"", "ai.onnx"}] == [OPSET]
    for value, name, channels in ((graph.graph.input[0], INPUT, 6), (graph.graph.output[0], OUTPUT, 1)):
        assert value.name == name
        batch, *rest = value.type.tensor_type.shape.dim
        assert batch.dim_param
        assert [d.dim_value for d in rest] == [channels, EDGE, EDGE, EDGE]


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_may_have_any_size(count: int, model: QsmVit, exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (answer,) = session.run([OUTPUT], {INPUT: patches(count)})
    with torch.no_grad():
        expected = rounded_to_half(model)(torch.from_numpy(patches(count))).numpy()
    np.testing.assert_allclose(answer, expected, atol=1e-5 * np.abs(expected).max())


def test_half_weights_halve_the_file_and_keep_small_ones_whole(
    model: QsmVit, exported: Path, tmp_path: Path
) -> None:
    whole = export_onnx(model, tmp_path / "whole.onnx", half_weights=False, edge=EDGE)
    large = sum(p.numel() for p in model.parameters() if p.numel() >= SMALLEST_HALF)
    saved = whole.stat().st_size - exported.stat().st_size
    assert saved == pytest.approx(2 * large, rel=0.1)
    for tensor in onnx.load(exported).graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            assert np.prod(tensor.dims) < SMALLEST_HALF
    # What rounding the weights costs, and that it was they who were rounded.
    session = onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {INPUT: patches(1)})
    with torch.no_grad():
        exact = model(torch.from_numpy(patches(1))).numpy()
        rounded = rounded_to_half(model)(torch.from_numpy(patches(1))).numpy()
    np.testing.assert_allclose(answer, exact, atol=1e-5 * np.abs(exact).max())
    assert 0 < np.linalg.norm(rounded - exact) < 3e-3 * np.linalg.norm(exact)


def test_exporting_leaves_the_model_and_no_litter(model: QsmVit, exported: Path) -> None:
    assert any((p.half().float() != p).any() for p in model.parameters())
    assert [p.name for p in exported.parent.iterdir()] == ["model.onnx"]


def test_another_models_file_is_found_out(exported: Path, small_network: Make) -> None:
    stranger = small_network(9, widths=(8, 16, 32))
    differences = parity(stranger, exported, edge=EDGE)
    assert too_far(differences) == list(differences)


def test_an_answer_that_is_not_a_number_is_too_far() -> None:
    assert too_far({"OpenVINO f32": float("nan"), "OpenVINO bf16": 0.004}) == ["OpenVINO f32"]


def test_a_checkpoint_gives_back_the_averaged_weights_of_its_architecture(
    tmp_path: Path, small_network: Make
) -> None:
    trainer = Trainer(Plan(), tmp_path, model=small_network(4, depth=2))
    trainer.average["enter.bias"] += 1
    trainer.save()
    loaded = load_checkpoint(tmp_path / "checkpoint.pt")
    assert loaded.architecture == trainer.model.architecture
    assert torch.equal(loaded.enter.bias, trainer.model.enter.bias + 1)
    assert not loaded.training


def test_a_checkpoint_that_does_not_name_its_architecture_has_the_default_one(tmp_path: Path) -> None:
    weights = QsmVit().state_dict()
    torch.save({"average": weights, "step": 5}, tmp_path / "old.pt")
    loaded = load_checkpoint(tmp_path / "old.pt")
    assert torch.equal(loaded.leave.weight, weights["leave.weight"])


def test_a_kept_checkpoint_holds_the_averaged_weights_in_half_precision(tmp_path: Path) -> None:
    model = QsmVit()
    full = tmp_path / "checkpoint.pt"
    torch.save({"average": model.state_dict(), "architecture": model.architecture}, full)
    kept = keep_checkpoint(full, tmp_path / "kept.pt")
    assert kept.stat().st_size < 0.6 * full.stat().st_size
    again = load_checkpoint(kept).state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again[name], value.half().float())
