"""Triton's Python backend: the network's ONNX file beside this one, run by OpenVINO on the CPU.

Runs inside Triton's own environment (numpy 1.26, no qsm_ai), so it stands alone. The compile settings are
those of ``qsm_ai.inference.openvino``, and a test holds the two to the same values.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import triton_python_backend_utils as pb_utils

INPUT = "patches"
OUTPUT = "correction"


def resolve_precision(core: openvino.Core, wanted: str) -> str:
    """``f32`` or ``bf16``; ``auto`` is bf16 where the CPU computes in it natively."""
    if wanted == "auto":
        return "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    if wanted not in {"f32", "bf16"}:
        raise pb_utils.TritonModelException(f"precision is '{wanted}'; it must be auto, f32 or bf16")
    return wanted


class TritonPythonModel:
    """One compiled network, run patch after patch.

    On a CPU a batch takes as long as its patches one by one and twice the memory, so the batches that Triton
    forms are taken apart: each request is answered as soon as its own patches are done, and one that was
    cancelled meanwhile (its client gave up, or its deadline passed) is dropped before it costs anything.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Compile the network and run it once; a model that cannot give sane values never becomes ready."""
        if int(np.__version__.split(".")[0]) != 1:
            raise pb_utils.TritonModelException(
                f"numpy {np.__version__} is installed, with which this Triton answers without any data; "
                "install requirements/triton.txt (numpy 1.26.4)"
            )
        config = json.loads(args["model_config"])
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        if not file.is_file():
            raise pb_utils.TritonModelException(f"{file.name} is missing beside model.py")

        def setting(name: str) -> str:
            stated = config["parameters"].get(name, {}).get("string_value", "")
            return os.environ.get(f"QSM_{name.upper()}") or stated

        core = openvino.Core()
        precision = resolve_precision(core, setting("precision") or "auto")
        patch_shape = tuple(int(n) for n in config["input"][0]["dims"])
        correction_shape = tuple(int(n) for n in config["output"][0]["dims"])

        model = core.read_model(file)
        taken = tuple(model.input(0).partial_shape)[1:]
        if not all(size.is_static for size in taken) or [n.get_length() for n in taken] != [*patch_shape]:
            raise pb_utils.TritonModelException(
                f"{file.name} takes ({', '.join(map(str, taken))}), config.pbtxt says {patch_shape}"
            )
        model.reshape({model.input(0): [1, *patch_shape]})
        given = tuple(model.output(0).shape)[1:]
        if given != correction_shape:
            raise pb_utils.TritonModelException(
                f"{file.name} gives {given}, config.pbtxt says {correction_shape}"
            )
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": precision,
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": int(setting("threads") or 0),
            },
        )
        self._infer = compiled.create_infer_request()
        self._run(np.zeros((1, *patch_shape), np.float32))
        self._publish(
            {
                "model": args["model_name"],
                "version": args["model_version"],
                "runtime": f"openvino {openvino.__version__.split('-')[0]}",
                "precision": precision,
                "weights": hashlib.sha256(file.read_bytes()).hexdigest()[:12],
            }
        )

    def _publish(self, about: dict[str, str]) -> None:
        """Tell the log and Triton's /metrics what runs here: this Triton's answers cannot carry it."""
        self._family = pb_utils.MetricFamily(
            name="qsm_network_info",
            description="The network that is loaded: runtime, precision, and the digest of its weights",
            kind=pb_utils.MetricFamily.GAUGE,
        )
        self._metric = self._family.Metric(labels=about)
        self._metric.set(1)
        pb_utils.Logger.log_info(f"serving {about}")

    def execute(self, requests: list[Any]) -> None:
        """Answer each request of the batch as soon as it is done."""
        for request in requests:
            request.get_response_sender().send(
                self._answer(request), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            )

    def _answer(self, request: Any) -> Any:
        patches = pb_utils.get_input_tensor_by_name(request, INPUT).as_numpy()
        corrections = []
        for patch in self._one_by_one(patches):
            if request.is_cancelled():
                return pb_utils.InferenceResponse(
                    error=pb_utils.TritonError("the client no longer waits", pb_utils.TritonError.CANCELLED)
                )
            corrections.append(self._run(patch))
        return pb_utils.InferenceResponse([pb_utils.Tensor(OUTPUT, np.concatenate(corrections))])

    @staticmethod
    def _one_by_one(patches: np.ndarray) -> Iterator[np.ndarray]:
        for index in range(len(patches)):
            yield np.ascontiguousarray(patches[index : index + 1], np.float32)

    def _run(self, patch: np.ndarray) -> np.ndarray:
        correction = self._infer.infer([patch])[0].copy()
        if not np.isfinite(correction).all():
            raise pb_utils.TritonModelException("the network gave values that are not finite")
        return correction
