"""A service under load: its own backend (and Triton) for the time of the measurement, and many users."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np

from qsm_ai.benchmark.load import Load, Record, run
from qsm_ai.inference.ports import any_free
from qsm_ai.inference.server import TritonServer
from qsm_ai.io.loading import load_scan
from qsm_ai.io.outputs import encode_nifti
from qsm_ai.physics.dipole import forward_field
from qsm_ai.reconstruction.options import Method, Options
from qsm_ai.reconstruction.pipeline import reconstruct
from qsm_ai.scan import Grid

STARTS_WITHIN = 120.0
BARE_RUNS = 3
Say = Callable[[str], None]


@dataclass(frozen=True)
class ServiceTiming:
    """What was measured.

    Attributes
    ----------
    record : Record
    bare : s
        The pipeline alone, in this process: the fastest of some runs.
    alone : s
        One user, nobody else: from the upload to the end of the job; the fastest of some runs.
    resting_memory, peak_memory : bytes
        Of the backend and its processes: before the load, and the most during it.
    batch_size : float or None
        Patches that Triton ran at once, on average; ``None`` without Triton.
    """

    record: Record
    bare: float
    alone: float
    resting_memory: int
    peak_memory: int
    batch_size: float | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON; times in s."""
        record = self.record
        return {
            "seconds": record.elapsed,
            "requests": record.requests,
            "requests_per_second": record.requests / record.elapsed,
            "jobs": dict(record.ended),
            "jobs_per_minute": 60 * record.ended["done"] / record.elapsed,
            "latency": {
                kind: dict(zip(("p50", "p95", "p99"), record.percentiles(kind), strict=True))
                for kind in sorted(record.seconds)
            },
            "own_lag_p99": float(np.percentile(record.lags, 99)) if record.lags else None,
            "told_to_come_again": record.refused,
            "failed": dict(record.failures),
            "bare_pipeline": self.bare,
            "one_user": self.alone,
            "resting_memory": self.resting_memory,
            "peak_memory": self.peak_memory,
            "batch_size": self.batch_size,
        }


def time_service(
    users: int, seconds: float, poll: float, shape: int, method: Method, workers: int, say: Say
) -> ServiceTiming:
    """Start a service of its own, load it, and stop it.

    Parameters
    ----------
    users : int
    seconds, poll : s
        See ``Load``.
    shape : int
        Voxels along each axis of the scan that everybody sends.
    method : str
        ``qsm-vit`` starts Triton too.
    workers : int
        Jobs computed at once.
    say : callable
        Told what is being done.

    Returns
    -------
    ServiceTiming

    Raises
    ------
    TritonStartFailed
    RuntimeError
        If the backend does not start.
    """
    with ExitStack() as held:
        folder = Path(held.enter_context(TemporaryDirectory(prefix="qsm-ai-benchmark-")))
        files = _write_scan(folder, shape)
        fields = {"method": method, "b0": "3"}
        triton = None
        if method == "qsm-vit":
            say("Starting Triton")
            triton = held.enter_context(TritonServer())
        say("Running the pipeline alone")
        bare = _bare(files, method, triton)
        say("Starting the backend")
        keys = _make_keys(folder / "data", users)
        settings = {"QSM_WORKERS": str(workers), "QSM_MAX_QUEUED": str(2 * users), "QSM_ACCESS": "keys"}
        if triton is not None:
            settings["QSM_TRITON_URL"] = triton.grpc_url
        url, pid = held.enter_context(_backend(folder, settings))
        say("One user alone")
        first = Load(1, 0.0, 0.05, files, fields)
        alone = min(asyncio.run(_once(url, keys, first)) for _ in range(BARE_RUNS))
        resting, before = memory_of(pid), _patches(triton)
        say(f"{users} users for {seconds:.0f} s")
        memory = _Memory(pid)
        record = asyncio.run(_loaded(url, keys, Load(users, seconds, poll, files, fields), memory))
        after = _patches(triton)
    batch = None
    if before is not None and after is not None and after[1] > before[1]:
        batch = (after[0] - before[0]) / (after[1] - before[1])
    return ServiceTiming(record, bare, alone, resting, memory.peak, batch)


def rows(timing: ServiceTiming) -> Iterator[tuple[str, str]]:
    """The table: what was measured, and its value with its unit."""
    record = timing.record
    yield (
        "requests",
        f"{record.requests} in {record.elapsed:.0f} s, {record.requests / record.elapsed:.1f} per s",
    )
    yield "jobs done", f"{record.ended['done']}, {60 * record.ended['done'] / record.elapsed:.1f} per min"
    if others := {state: count for state, count in record.ended.items() if state != "done"}:
        yield "other jobs", ", ".join(f"{count} {state}" for state, count in sorted(others.items()))
    for kind in ("status", "upload", "download", "delete"):
        if kind in record.seconds:
            p50, p95, p99 = (1000 * value for value in record.percentiles(kind))
            yield f"{kind}: P50 / P95 / P99", f"{p50:.0f} / {p95:.0f} / {p99:.0f} ms"
    if record.lags:
        yield "of which the users' own lag, P99", f"{1000 * float(np.percentile(record.lags, 99)):.0f} ms"
    yield "failed requests", str(sum(record.failures.values()))
    for reason, count in record.failures.most_common():
        yield f"failed: {reason}", str(count)
    yield "told to come again (429, 503)", str(record.refused)
    yield "pipeline alone / one user alone", f"{timing.bare:.2f} / {timing.alone:.2f} s"
    pace = record.elapsed / record.ended["done"] if record.ended["done"] else float("nan")
    yield "a job under load / pipeline alone", f"{pace:.2f} s, {pace / timing.bare:.1f} times"
    if timing.batch_size is not None:
        yield "patches per execution in Triton", f"{timing.batch_size:.2f}"
    resting, peak = timing.resting_memory / 2**20, timing.peak_memory / 2**20
    yield "memory of the backend: resting / peak", f"{resting:.0f} / {peak:.0f} MiB"


async def _once(url: str, keys: list[str], load: Load) -> float:
    """One job of one user, from the upload to its end."""
    record = await run(url, keys[:1], load)
    return record.waits[0] if record.waits else float("inf")


async def _loaded(url: str, keys: list[str], load: Load, memory: _Memory) -> Record:
    watching = asyncio.create_task(memory.watch())
    try:
        return await run(url, keys, load)
    finally:
        watching.cancel()


class _Memory:
    """The most that a process and its children held at any look."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak = memory_of(pid)

    async def watch(self) -> None:
        while True:
            self.peak = max(self.peak, await asyncio.to_thread(memory_of, self._pid))
            await asyncio.sleep(0.5)


def memory_of(pid: int) -> int:
    """Bytes that a process and all below it hold, each page counted once among its sharers.

    Processes that end meanwhile count nothing.
    """
    total = 0
    for process in _tree(pid):
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _tree(int(child))


@contextmanager
def _backend(folder: Path, settings: dict[str, str]) -> Iterator[tuple[str, int]]:
    """A backend in a process of its own: its address and its id."""
    port = any_free()
    url = f"http://127.0.0.1:{port}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QSM_")}
    environment = {**kept, "QSM_DATA_DIR": str(folder / "data"), "QSM_PORT": str(port), **settings}
    with (folder / "backend.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "qsm_ai.api"], env=environment, stdout=log, stderr=log, cwd=folder
        )
    try:
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the backend does not start")
            try:
                if httpx.get(f"{url}/healthz", timeout=5.0).is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield url, process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _make_keys(data: Path, users: int) -> list[str]:
    """A user for each key, in the database that the backend will use."""
    from qsm_ai.access.keys import KeyStore
    from qsm_ai.api.settings import Settings
    from qsm_ai.jobs.store import JobStore

    data.mkdir()
    jobs = JobStore(Settings(data_dir=data, database_url=None).database)
    try:
        keys = KeyStore(jobs.database)
        return [keys.create(f"user-{number}", name="benchmark")[1] for number in range(users)]
    finally:
        jobs.close()


def _write_scan(folder: Path, shape: int) -> dict[str, Path]:
    """A local field of two inclusions in a ball of tissue, and its mask."""
    size = (shape, shape, shape)
    axes = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in size], indexing="ij")

    def ball(x: float, radius: float) -> np.ndarray[Any, Any]:
        return np.asarray((axes[0] - x * shape) ** 2 + axes[1] ** 2 + axes[2] ** 2 < (radius * shape) ** 2)

    mask = ball(0.0, 0.4)
    chi = (0.1 * ball(0.15, 0.08) - 0.08 * ball(-0.15, 0.06)).astype(np.float32)
    local = forward_field(chi, (1.0, 1.0, 1.0), (0.0, 0.0, 1.0)) * mask
    grid = Grid(size, np.eye(4))
    paths = {}
    for role, volume in (("local_field", np.asarray(local, np.float32)), ("mask", mask)):
        paths[role] = folder / f"{role}.nii.gz"
        paths[role].write_bytes(encode_nifti(volume, grid))
    return paths


def _bare(files: dict[str, Path], method: Method, triton: TritonServer | None) -> float:
    """Seconds of the pipeline alone, files and network included, HTTP, queue and storage not."""
    from qsm_ai.inference.triton import TritonNetwork

    with ExitStack() as held:
        network = None if triton is None else held.enter_context(TritonNetwork(triton.grpc_url))
        times = []
        for _ in range(BARE_RUNS):
            began = time.perf_counter()
            scan = load_scan((), (), files["mask"], local_field=files["local_field"], b0=3.0)
            reconstruct(scan, Options(method), network)
            times.append(time.perf_counter() - began)
    return min(times)


def _patches(triton: TritonServer | None) -> tuple[float, float] | None:
    """Patches that Triton has inferred, and in how many executions."""
    if triton is None:
        return None
    text = httpx.get(f"http://127.0.0.1:{triton.ports.metrics}/metrics", timeout=30.0).text
    found = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if 'model="qsm_vit"' in name:
            found[name.partition("{")[0]] = float(value)
    return found.get("nv_inference_count", 0.0), found.get("nv_inference_exec_count", 0.0)
