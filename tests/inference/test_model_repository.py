"""The model repository agrees with the code that feeds it and with the network that it holds."""

import shutil
from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from qsm_ai.inference.errors import ModelFileMissing
from qsm_ai.inference.repository import (
    DIGITS,
    MODEL,
    WEIGHTS,
    model_file,
    model_repository,
    name_weights,
    weights_digest,
)
from qsm_ai.inference.triton import INPUT, OUTPUT
from qsm_ai.reconstruction.inputs import CHANNELS
from qsm_ai.reconstruction.patches import PATCH

FOLDER = Path(__file__).parents[2] / "model_repository" / MODEL
CONFIGS = [FOLDER / "config.pbtxt", *sorted((FOLDER / "configs").glob("*.pbtxt"))]


def parsed(path: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
class TestEveryConfiguration:
    def test_has_the_name_of_its_folder(self, path: Path) -> None:
        assert parsed(path).name == MODEL

    def test_takes_the_patches_that_the_pipeline_cuts(self, path: Path) -> None:
        (taken,) = parsed(path).input
        assert taken.name == INPUT
        assert list(taken.dims) == [len(CHANNELS), PATCH, PATCH, PATCH]
        assert taken.data_type == model_config_pb2.TYPE_FP32

    def test_names_the_weights(self, path: Path) -> None:
        assert parsed(path).parameters[WEIGHTS].string_value == weights_digest(model_file())[:DIGITS]

    def test_gives_one_correction_a_voxel(self, path: Path) -> None:
        (given,) = parsed(path).output
        assert given.name == OUTPUT
        assert list(given.dims) == [1, PATCH, PATCH, PATCH]
        assert given.data_type == model_config_pb2.TYPE_FP32

    def test_joins_requests_without_a_queue_policy(self, path: Path) -> None:
        config = parsed(path)
        assert config.max_batch_size == 16
        assert not config.dynamic_batching.HasField("default_queue_policy")
        if path.stem == "onnx-cpu":
            assert list(config.dynamic_batching.preferred_batch_size) == [1]
            return
        assert list(config.dynamic_batching.preferred_batch_size) == [8, 16]
        assert 0 < config.dynamic_batching.max_queue_delay_microseconds <= 10_000


def test_the_gpu_runs_an_engine_and_is_not_ready_before_it_ran() -> None:
    config = parsed(FOLDER / "configs" / "tensorrt.pbtxt")
    assert (config.platform, config.default_model_filename) == ("tensorrt_plan", "model.plan")
    assert [group.kind for group in config.instance_group] == [model_config_pb2.ModelInstanceGroup.KIND_GPU]
    assert sorted(warmup.batch_size for warmup in config.model_warmup) == [1, 8, config.max_batch_size]
    for warmup in config.model_warmup:
        assert list(warmup.inputs[INPUT].dims) == list(config.input[0].dims)


def test_the_cpu_runs_the_python_backend() -> None:
    config = parsed(FOLDER / "config.pbtxt")
    assert config.backend == "python"
    assert config.parameters["precision"].string_value in {"auto", "f32", "bf16"}


def test_the_weights_are_those_that_the_configuration_describes() -> None:
    graph = onnx.load(model_file(), load_external_data=False).graph
    sizes = {
        tensor.name: [size.dim_value for size in tensor.type.tensor_type.shape.dim]
        for tensor in (*graph.input, *graph.output)
    }
    config = parsed(FOLDER / "config.pbtxt")
    assert sizes[INPUT][1:] == list(config.input[0].dims)
    assert sizes[OUTPUT][1:] == list(config.output[0].dims)
    assert not list(model_file().parent.glob("*.onnx.data"))


def test_other_weights_are_named_in_every_configuration(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / MODEL, ignore=shutil.ignore_patterns("*.onnx", "__pycache__"))
    onnx_file = tmp_path / MODEL / "1" / "model.onnx"
    onnx_file.write_bytes(b"others")
    named = name_weights(onnx_file)
    assert len(named) == len(CONFIGS)
    for path, before in zip(named, CONFIGS, strict=True):
        expected = parsed(before)
        expected.parameters[WEIGHTS].string_value = weights_digest(onnx_file)[:DIGITS]
        assert parsed(path) == expected


def test_weights_that_stand_alone_are_named_nowhere(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"others")
    assert name_weights(tmp_path / "model.onnx") == []


class TestFindingIt:
    def test_the_newest_version_counts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for version in ("2", "10", "draft"):
            (tmp_path / MODEL / version).mkdir(parents=True)
            (tmp_path / MODEL / version / "model.onnx").touch()
        monkeypatch.setenv("QSM_MODEL_REPOSITORY", str(tmp_path))
        assert model_file() == tmp_path / MODEL / "10" / "model.onnx"

    def test_weights_go_by_the_digest_of_their_file(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(b"abc")
        assert weights_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    def test_missing_weights_are_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QSM_MODEL_REPOSITORY", str(tmp_path))
        with pytest.raises(ModelFileMissing, match="weights of qsm_vit are not there"):
            model_file()

    def test_a_missing_repository_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QSM_MODEL_REPOSITORY", str(tmp_path / "nowhere"))
        with pytest.raises(ModelFileMissing, match="QSM_MODEL_REPOSITORY"):
            model_repository()
