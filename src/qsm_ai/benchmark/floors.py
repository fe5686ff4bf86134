"""What the machine could do at best: an algorithm's transforms and convolutions, and what one costs here.

A stage that takes twice its floor spends half its time on the work that its algorithm cannot do without. The
floor is measured in the same run as the stage, so that the ratio says something on any machine.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import DTypeLike

TRANSFORMS = ("rfftn", "irfftn", "dctn", "idctn")
"""Of ``scipy.fft``: all that ``qsm_ai.physics`` uses."""

TRIALS = 3
"""Of each transform and convolution; the fastest counts."""

LAYERS = 8
"""Convolutions in a row whose rate is measured, so that what surrounds them counts little."""


@dataclass(frozen=True)
class Transform:
    """One kind of transform.

    Attributes
    ----------
    name : one of ``TRANSFORMS``
    shape : of the input
    dtype : of the input, by name
    options : the other arguments, sorted by name
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    options: tuple[tuple[str, Any], ...]


@contextmanager
def counted_transforms(stage: Callable[[], str]) -> Iterator[dict[str, Counter[Transform]]]:
    """Count the transforms that are done meanwhile, by stage.

    Parameters
    ----------
    stage : callable
        Asked at each transform which stage it belongs to.

    Yields
    ------
    dict of Counter
    """
    counts: dict[str, Counter[Transform]] = {}
    originals = {name: getattr(scipy.fft, name) for name in TRANSFORMS}

    def counting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def transform(x: np.ndarray, **options: Any) -> Any:
            kind = Transform(name, x.shape, x.dtype.name, tuple(sorted(options.items())))
            counts.setdefault(stage(), Counter())[kind] += 1
            return original(x, **options)

        return transform

    try:
        for name, original in originals.items():
            setattr(scipy.fft, name, counting(name, original))
        yield counts
    finally:
        for name, original in originals.items():
            setattr(scipy.fft, name, original)


def time_transforms(kinds: Iterable[Transform]) -> dict[Transform, float]:
    """Seconds of one transform of each kind, the fastest of a few.

    Parameters
    ----------
    kinds : Transform

    Returns
    -------
    dict of float
    """
    rng = np.random.default_rng(0)
    return {kind: _time_transform(kind, rng) for kind in set(kinds)}


def _time_transform(kind: Transform, rng: np.random.Generator) -> float:
    volume = _noise(rng, kind.shape, kind.dtype)
    transform = getattr(scipy.fft, kind.name)
    return _fastest(lambda: transform(volume, **dict(kind.options)))


def _noise(rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    volume = np.empty(shape, dtype)
    volume.real = rng.standard_normal(shape, dtype=np.float32)
    if np.iscomplexobj(volume):
        volume.imag = rng.standard_normal(shape, dtype=np.float32)
    return volume


def _fastest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(TRIALS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def floor_of(counts: Mapping[Transform, int], seconds: Mapping[Transform, float]) -> float:
    """Seconds that these transforms take at least."""
    return sum(count * seconds[kind] for kind, count in counts.items())


@dataclass(frozen=True)
class NetworkWork:
    """What one patch asks of the machine.

    Attributes
    ----------
    operations : float
        Multiplications and additions of convolutions and matrix products.
    convolutions : (channels, edge), …
        Distinct 3 × 3 × 3 convolutions that keep channels and grid.
    """

    operations: float
    convolutions: tuple[tuple[int, int], ...]


def network_work(onnx: Path) -> NetworkWork:
    """Count the operations of a network for one patch, layer by layer.

    Parameters
    ----------
    onnx : Path

    Returns
    -------
    NetworkWork
    """
    import openvino

    model = openvino.Core().read_model(onnx)
    patch = [size.get_length() for size in list(model.input(0).partial_shape)[1:]]
    model.reshape({model.input(0): [1, *patch]})
    operations, convolutions = 0.0, set()
    for layer in model.get_ordered_ops():
        kind = layer.get_type_name()
        if kind not in {"Convolution", "GroupConvolution", "MatMul"}:
            continue
        left, right = (tuple(layer.input(i).get_shape()) for i in (0, 1))
        made = tuple(layer.output(0).get_shape())
        if kind == "Convolution":
            inner = prod(right[1:])
            if left == made and right[2:] == (3, 3, 3):
                convolutions.add((made[1], made[-1]))
        elif kind == "GroupConvolution":
            inner = prod(right[2:])
        else:
            inner = left[-2 if layer.get_attributes()["transpose_a"] else -1]
        operations += 2.0 * inner * prod(made)
    return NetworkWork(operations, tuple(sorted(convolutions)))


def convolution_rate(channels: int, edge: int, precision: str) -> float:
    """Operations per second of 3 × 3 × 3 convolutions by OpenVINO, as a network in process has them.

    Parameters
    ----------
    channels : int
        Of input and output.
    edge : voxels
    precision : str
        ``f32`` or ``bf16``.

    Returns
    -------
    float
    """
    import openvino
    from openvino import opset13 as layers

    rng = np.random.default_rng(0)
    shape = (1, channels, edge, edge, edge)
    given = layers.parameter(shape, np.float32)
    node = given
    for _ in range(LAYERS):
        # Scaled so that values keep their size from layer to layer: subnormal numbers would be slow.
        weights = rng.standard_normal((channels, channels, 3, 3, 3), dtype=np.float32) / np.sqrt(
            27 * channels
        )
        kernel = layers.constant(weights.astype(np.float32))
        node = layers.convolution(node, kernel, [1] * 3, [1] * 3, [1] * 3, [1] * 3)
    compiled = openvino.Core().compile_model(
        openvino.Model([node], [given]),
        "CPU",
        {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1},
    )
    request = compiled.create_infer_request()
    values = rng.standard_normal(shape, dtype=np.float32)
    request.infer([values])  # the first one also arranges the weights
    return 2.0 * 27 * channels**2 * edge**3 * LAYERS / _fastest(lambda: request.infer([values]))
