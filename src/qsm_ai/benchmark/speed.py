"""How long each stage takes, and how long it would take at best."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from qsm_ai.benchmark.floors import (
    Transform,
    convolution_rate,
    counted_transforms,
    floor_of,
    network_work,
    time_transforms,
)
from qsm_ai.inference.openvino import OpenVinoNetwork
from qsm_ai.inference.repository import model_file
from qsm_ai.network.anatomy import EXTENT, simulate_head
from qsm_ai.network.simulation import simulate_echoes
from qsm_ai.reconstruction.options import Method, Options
from qsm_ai.reconstruction.pipeline import Progress, Reconstruction, reconstruct
from qsm_ai.scan import Grid, Scan

SEED = 995_000
NETWORK_STAGE = "network"


@dataclass(frozen=True)
class StageTime:
    """One stage.

    Attributes
    ----------
    stage : str
    seconds : float
        The fastest of the repeats.
    transforms : int
        Fourier and cosine transforms in it.
    operations : float
        Of the network in it.
    floor : seconds or None
        Of these transforms and operations alone; None where there are none.
    """

    stage: str
    seconds: float
    transforms: int
    operations: float
    floor: float | None

    @property
    def ratio(self) -> float | None:
        """Seconds over floor."""
        return self.seconds / self.floor if self.floor else None

    def as_dict(self) -> dict[str, str | float | None]:
        """By name, for JSON."""
        return {**asdict(self), "ratio": self.ratio}


@dataclass(frozen=True)
class Timing:
    """A whole reconstruction.

    Attributes
    ----------
    method : str
    shape : (E, X, Y, Z)
    stages : of StageTime, in order
    seconds : float
        Of the fastest repeat, from scan to map; reading and writing files left out.
    peak_memory : bytes
        Of a process that holds the scan and reconstructs it.
    patches : int
    convolution_rate : operations per second, or None without the network
    network : str or None
    """

    method: str
    shape: tuple[int, ...]
    stages: tuple[StageTime, ...]
    seconds: float
    peak_memory: int
    patches: int
    convolution_rate: float | None
    network: str | None

    @property
    def floor(self) -> float:
        """Seconds of all transforms and of the network's operations alone."""
        return sum(stage.floor or 0.0 for stage in self.stages)

    def as_dict(self) -> dict[str, object]:
        """By name, for JSON."""
        return {
            **asdict(self),
            "stages": [stage.as_dict() for stage in self.stages],
            "floor": self.floor,
            "ratio": self.seconds / self.floor if self.floor else None,
        }


def simulate_scan(edge: int) -> Scan:
    """A head in about ``edge``³ voxels, four echoes, without a mask.

    Parameters
    ----------
    edge : voxels

    Returns
    -------
    Scan
    """
    x, y, z = (extent / (edge - 0.5) for extent in EXTENT)
    rng = np.random.default_rng(SEED)
    head = simulate_head(rng, (x, y, z))
    echoes = simulate_echoes(rng, head)
    i, j, k = head.chi.shape
    return Scan(
        name="speed",
        grid=Grid((i, j, k), np.diag([x, y, z, 1.0])),
        b0_direction=echoes.b0_direction,
        field_strength=echoes.field_strength,
        phase=echoes.phase,
        magnitude=echoes.magnitude,
        echo_times=echoes.echo_times,
    )


def time_reconstruction(edge: int, method: Method = Options.method, repeat: int = 2) -> Timing:
    """Reconstruct a simulated head in a process of its own, and measure the floors there too.

    Parameters
    ----------
    edge : voxels
    method : str
    repeat : int

    Returns
    -------
    Timing
    """
    scan = simulate_scan(edge)
    with TemporaryDirectory() as folder, ProcessPoolExecutor(1, get_context("spawn")) as process:
        # By file: a pipe would hold the scan twice in the memory that is measured.
        arrays = Path(folder) / "scan.npz"
        assert scan.phase is not None  # noqa: S101 - simulated just above
        assert scan.magnitude is not None  # noqa: S101
        np.savez(arrays, phase=scan.phase, magnitude=scan.magnitude)
        shell = (scan.grid, scan.b0_direction, scan.field_strength, scan.echo_times)
        return process.submit(_time_in_this_process, arrays, shell, method, repeat).result()


def _time_in_this_process(
    arrays: Path,
    shell: tuple[Grid, tuple[float, float, float], float, tuple[float, ...]],
    method: Method,
    repeat: int,
) -> Timing:
    with np.load(arrays) as stored:
        phase, magnitude = stored["phase"], stored["magnitude"]
    grid, b0_direction, field_strength, echo_times = shell
    scan = Scan("speed", grid, b0_direction, field_strength, phase, magnitude, echo_times)
    network = _Counted(OpenVinoNetwork()) if method == "qsm-vit" else None
    stage = ""

    def on_progress(at: Progress) -> None:
        nonlocal stage
        stage = at.stage

    runs: list[Reconstruction] = []
    for _ in range(repeat):
        with counted_transforms(lambda: stage) as counts:
            if network:
                network.patches = 0
            runs.append(reconstruct(scan, Options(method=method), network, on_progress))
    peak = peak_memory()  # before the floors need memory of their own
    operations, rate = 0.0, None
    if network:
        work = network_work(model_file())
        rate = max(convolution_rate(c, edge, network.precision) for c, edge in work.convolutions)
        operations = work.operations * network.patches
    return Timing(
        method=method,
        shape=phase.shape,
        stages=_stages(runs, counts, operations, rate),
        seconds=min(sum(run.timings.values()) for run in runs),
        peak_memory=peak,
        patches=network.patches if network else 0,
        convolution_rate=rate,
        network=runs[-1].network,
    )


def _stages(
    runs: list[Reconstruction],
    counts: dict[str, Counter[Transform]],
    operations: float,
    rate: float | None,
) -> tuple[StageTime, ...]:
    seconds = time_transforms(kind for counter in counts.values() for kind in counter)
    stages = []
    for name in runs[0].timings:
        counter = counts.get(name, Counter())
        floor = floor_of(counter, seconds)
        inside = operations if name == NETWORK_STAGE else 0.0
        if rate is not None:
            floor += inside / rate
        fastest = min(run.timings[name] for run in runs)
        stages.append(StageTime(name, fastest, counter.total(), inside, floor or None))
    return tuple(stages)


class _Counted:
    """A network that knows how many patches it was given."""

    def __init__(self, network: OpenVinoNetwork) -> None:
        self._network = network
        self.precision = network.precision
        self.patches = 0

    @property
    def name(self) -> str:
        return self._network.name

    def predict(
        self, patches: NDArray[np.float32], on_patch: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        self.patches += len(patches)
        return self._network.predict(patches, on_patch)


def peak_memory() -> int:
    """Most bytes that this process has held.

    On Linux from the process's own account: ``getrusage`` also remembers the parent it was started by.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
