"""The network in process: right values, and the same as Triton's and as the reference runtime's."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from known_network import write_known_network
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qsm_ai.inference.errors import BadAnswer, ModelFileMissing
from qsm_ai.inference.openvino import OpenVinoNetwork, Precision
from qsm_ai.inference.repository import model_file
from qsm_ai.inference.server import TritonServer
from qsm_ai.inference.triton import TritonNetwork

Patches = NDArray[np.float32]
PRECISIONS: list[Precision] = ["f32", "bf16"]
TOLERANCE = {"f32": 2e-5, "bf16": 0.03}
"""Largest difference from the reference runtime, relative to the largest correction."""


def reference(path: Path, patches: Patches) -> Patches:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    answers = [session.run(None, {"patches": patches[i : i + 1]})[0] for i in range(len(patches))]
    return np.concatenate(answers)


@pytest.fixture(scope="module")
def textured() -> Patches:
    """A patch that looks like the network's inputs: smooth texture of unit scale, and a mask."""
    generator = np.random.default_rng(2)
    coarse = generator.standard_normal((1, 6, 24, 24, 24), dtype=np.float32)
    patches = coarse.repeat(4, 2).repeat(4, 3).repeat(4, 4)
    patches[:, 4] = (patches[:, 4] > -1).astype(np.float32)
    return patches


@pytest.fixture(scope="module", params=PRECISIONS)
def shipped(request: pytest.FixtureRequest) -> Iterator[tuple[Precision, TritonServer]]:
    """The project's own weights on a Triton of their own, in each precision."""
    with TritonServer(precision=request.param) as server:
        yield request.param, server


def test_shipped_weights_give_the_same_in_process_on_triton_and_in_the_reference_runtime(
    shipped: tuple[Precision, TritonServer],
    textured: Patches,
    about: Callable[[TritonServer], dict[str, str]],
) -> None:
    precision, server = shipped
    here = OpenVinoNetwork(precision=precision).predict(textured)
    with TritonNetwork(server.grpc_url) as network:
        there = network.predict(textured)
    largest = np.abs(here).max()
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-6 * largest)
    exact = reference(model_file(), textured)
    assert np.abs(here - exact).max() <= TOLERANCE[precision] * np.abs(exact).max()
    assert about(server)["precision"] == precision


class TestKnownNetwork:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        write_known_network(tmp_path / "known.onnx", edge=8)
        return tmp_path / "known.onnx"

    @pytest.fixture
    def small(self) -> Patches:
        return np.random.default_rng(3).standard_normal((4, 6, 8, 8, 8), dtype=np.float32)

    def test_values(self, path: Path, small: Patches, known: Callable[[Patches], Patches]) -> None:
        network = OpenVinoNetwork(path, "f32")
        np.testing.assert_allclose(network.predict(small), known(small), rtol=1e-5, atol=1e-5)

    def test_views_with_strides_are_read_right(
        self, path: Path, small: Patches, known: Callable[[Patches], Patches]
    ) -> None:
        turned = small.transpose(0, 1, 4, 3, 2)
        network = OpenVinoNetwork(path, "f32")
        np.testing.assert_allclose(network.predict(turned), known(turned), rtol=1e-5, atol=1e-5)

    def test_bf16_really_computes_in_bf16(self, tmp_path: Path) -> None:
        write_known_network(tmp_path / "larger.onnx", edge=32)
        path = tmp_path / "larger.onnx"
        if OpenVinoNetwork(path, "auto").precision != "bf16":
            pytest.skip("this CPU does not compute in bf16")
        patch = np.random.default_rng(4).standard_normal((1, 6, 32, 32, 32), dtype=np.float32)
        fine, coarse = (OpenVinoNetwork(path, p).predict(patch) for p in PRECISIONS)
        assert np.abs(fine - coarse).max() > 1e-4 * np.abs(fine).max()

    def test_progress(self, path: Path, small: Patches) -> None:
        told: list[int] = []
        OpenVinoNetwork(path, "f32").predict(small, told.append)
        assert told == [1, 2, 3, 4]

    def test_the_name_says_weights_precision_and_place(self, path: Path) -> None:
        name = OpenVinoNetwork(path, "f32").name
        assert name.startswith("qsm_vit ")
        assert "f32" in name
        assert name.endswith("in process")

    def test_another_shape_is_refused(self, path: Path, small: Patches) -> None:
        with pytest.raises(ValueError, match=r"the network takes \(N, 6, 8, 8, 8\)"):
            OpenVinoNetwork(path).predict(small[..., :4])

    def test_threads_take_turns(
        self, path: Path, small: Patches, known: Callable[[Patches], Patches]
    ) -> None:
        network = OpenVinoNetwork(path, "f32")
        answers: dict[int, Patches] = {}

        def ask(index: int) -> None:
            for _ in range(50):
                answers[index] = network.predict(small[index : index + 1])

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        together = np.concatenate([answers[i] for i in range(4)])
        np.testing.assert_allclose(together, known(small), rtol=1e-5, atol=1e-5)

    def test_not_a_number_is_not_passed_on(self, path: Path, small: Patches) -> None:
        small[2, 0, 0, 0, 0] = np.nan
        with pytest.raises(BadAnswer, match="not finite"):
            OpenVinoNetwork(path).predict(small)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelFileMissing, match="ONNX file is not there"):
        OpenVinoNetwork(tmp_path / "none.onnx")


def test_a_network_without_a_fixed_patch_is_told(tmp_path: Path) -> None:
    free = ["n", 5, "x", "y", "z"]
    weights = numpy_helper.from_array(np.ones((1, 5, 1, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["patches", "w"], ["correction"])],
        "free",
        [helper.make_tensor_value_info("patches", TensorProto.FLOAT, free)],
        [helper.make_tensor_value_info("correction", TensorProto.FLOAT, ["n", 1, "x", "y", "z"])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "free.onnx")
    with pytest.raises(ModelFileMissing, match="does not fix the shape of a patch"):
        OpenVinoNetwork(tmp_path / "free.onnx")
