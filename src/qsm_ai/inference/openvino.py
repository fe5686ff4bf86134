"""The network in process, through OpenVINO: the same ONNX file and the same settings as on Triton's CPU path.

Measured on two cores with a network of 4.7 million parameters (convolutions at 1/2 and 1/4, attention at 1/8
resolution, patches of 96³), seconds a patch and peak memory: batches of one 0.237 s, 0.56 GB; of four
0.237 s, 0.74 GB; of eight 0.235 s, 1.05 GB; two streams of one thread each 0.241 s, 0.63 GB. So patches run
one by one, with all threads on each. bfloat16 took half the time of float32 there (0.45 s), a third to a
quarter on CPUs with matrix units.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from qsm_ai.inference.answers import check_answer, check_patches
from qsm_ai.inference.errors import ModelFileMissing, RuntimeMissing
from qsm_ai.inference.repository import DIGITS, MODEL, model_file, weights_digest

if TYPE_CHECKING:
    import openvino

Precision = Literal["auto", "f32", "bf16"]


def resolve_precision(core: openvino.Core, wanted: Precision) -> Literal["f32", "bf16"]:
    """The precision that will be computed in; ``auto`` is bf16 where the CPU has it natively.

    Parameters
    ----------
    core : openvino.Core
    wanted : str

    Returns
    -------
    str
    """
    if wanted == "auto":
        return "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    return wanted


class OpenVinoNetwork:
    """A network that needs no server. Safe to share between threads, which take turns.

    Parameters
    ----------
    onnx_path : Path
        The network; the newest in the model repository when None.
    precision : str
        ``auto``, ``f32`` or ``bf16``.
    threads : int
        0 is one per core.

    Raises
    ------
    ModelFileMissing
        When there is no such file.
    RuntimeMissing
        When OpenVINO is not installed.
    """

    def __init__(
        self, onnx_path: Path | None = None, precision: Precision = "auto", *, threads: int = 0
    ) -> None:
        try:
            import openvino
        except ImportError:
            raise RuntimeMissing(
                "OpenVINO, which runs the network in this process, is not installed.",
                mend="Install qsm-ai[local], or point --triton at a running server.",
            ) from None
        path = onnx_path or model_file()
        if not path.is_file():
            raise ModelFileMissing("The network's ONNX file is not there.", mend="Give the path of another.")
        core = openvino.Core()
        model = core.read_model(path)
        shape = model.input(0).partial_shape
        if shape.rank.is_dynamic or not all(size.is_static for size in list(shape)[1:]):
            raise ModelFileMissing(
                "The ONNX file does not fix the shape of a patch.", mend="Export it with a fixed patch size."
            )
        self.patch_shape = tuple(size.get_length() for size in list(shape)[1:])
        model.reshape({model.input(0): [1, *self.patch_shape]})
        self.precision = resolve_precision(core, precision)
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": self.precision,
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": threads,
            },
        )
        self._infer = compiled.create_infer_request()
        self._turn = threading.Lock()
        digest = weights_digest(path)[:DIGITS]
        runtime = openvino.__version__.split("-")[0]
        self._name = f"{MODEL} {digest}, {self.precision}, OpenVINO {runtime} in process"

    @property
    def name(self) -> str:
        """Model, digest of its weights, precision, and where it runs."""
        return self._name

    def predict(
        self, patches: NDArray[np.float32], on_patch: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Corrections for a stack of patches.

        Parameters
        ----------
        patches : (N, C, P, P, P) float32
        on_patch : callable
            Told the number of patches done so far.

        Returns
        -------
        (N, 1, P, P, P) float32

        Raises
        ------
        ValueError
            When the patches have another shape.
        BadAnswer
            When the network gives values that cannot be right.
        """
        check_patches(patches, self.patch_shape)
        corrections = np.empty((len(patches), 1, *self.patch_shape[1:]), np.float32)
        for index in range(len(patches)):
            patch = np.ascontiguousarray(patches[index : index + 1], np.float32)
            with self._turn:
                corrections[index] = self._infer.infer([patch])[0][0]
            check_answer(patch, corrections[index : index + 1])
            if on_patch:
                on_patch(index + 1)
        return corrections
