"""A service under load: its own backend (and Triton) for the time of the measurement, and many users."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np

from qsm_ai.benchmark.backends import Backend, MemoryWatch, backends, memory_of, processor_seconds
from qsm_ai.benchmark.load import Load, Record, run, run_apart
from qsm_ai.benchmark.status_cost import status_cost
from qsm_ai.inference.server import TritonServer
from qsm_ai.io.loading import load_scan
from qsm_ai.io.outputs import encode_nifti
from qsm_ai.physics.dipole import forward_field
from qsm_ai.reconstruction.options import Method, Options
from qsm_ai.reconstruction.pipeline import reconstruct
from qsm_ai.scan import Grid

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
    status_cost : s
        Processor time of the backend for one look at a job, of one client who asks again and again.
    request_cost : s
        Processor time of the backends, without the processes that compute, over the requests of all users.
    resting_memory, peak_memory : bytes
        Of the backends and their processes: before the load, and the most during it.
    batch_size : float or None
        Patches that Triton ran at once, on average; ``None`` without Triton.
    """

    record: Record
    bare: float
    alone: float
    status_cost: float
    request_cost: float
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
            "status_processor_time": self.status_cost,
            "request_processor_time": self.request_cost,
            "resting_memory": self.resting_memory,
            "peak_memory": self.peak_memory,
            "batch_size": self.batch_size,
        }


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes
    ----------
    users : int
    seconds, at_most, poll : s
        See ``Load``.
    shape : int
        Voxels along each axis of the scan that everybody sends.
    method : str
        ``qsm-vit`` starts Triton too.
    workers : int
        Jobs computed at once by each backend.
    backends : int
        On one database; users go from one to the next with every request.
    """

    users: int
    seconds: float
    at_most: float
    poll: float
    shape: int
    method: Method
    workers: int
    backends: int = 1


def time_service(setting: Setting, say: Say) -> ServiceTiming:
    """Start a service of its own, load it, and stop it.

    Parameters
    ----------
    setting : Setting
    say : callable
        Told what is being done.

    Returns
    -------
    ServiceTiming

    Raises
    ------
    TritonStartFailed
    RuntimeError
        If a backend does not start.
    """
    with ExitStack() as held:
        folder = Path(held.enter_context(TemporaryDirectory(prefix="qsm-ai-benchmark-")))
        files = _write_scan(folder, setting.shape)
        fields = {"method": setting.method, "b0": "3"}
        triton = None
        if setting.method == "qsm-vit":
            say("Starting Triton")
            triton = held.enter_context(TritonServer())
        say("Running the pipeline alone")
        bare = _bare(files, setting.method, triton)
        say("Starting the backend" if setting.backends == 1 else f"Starting {setting.backends} backends")
        keys = _make_keys(folder / "data", setting.users)
        settings = {
            "QSM_WORKERS": str(setting.workers),
            "QSM_MAX_QUEUED": str(2 * setting.users),
            "QSM_ACCESS": "keys",
            # The measurement of what one look costs asks more often than one user may.
            "QSM_RATE_LIMIT": "1000000/minute",
        }
        if triton is not None:
            settings["QSM_TRITON_URL"] = triton.grpc_url
        running = held.enter_context(backends(setting.backends, folder, settings))
        urls, pids = [backend.url for backend in running], [backend.pid for backend in running]
        say("One user alone")
        first = Load(1, 0.0, setting.at_most, 0.05, files, fields)
        alone = min(asyncio.run(_once(urls, keys, first)) for _ in range(BARE_RUNS))
        cost = _status_cost(running[0], keys[0], files, fields)
        resting, before = sum(memory_of(pid) for pid in pids), _patches(triton)
        say(f"{setting.users} users for {setting.seconds:.0f} s, {setting.at_most:.0f} s at most")
        used = sum(processor_seconds(pid) for pid in pids)
        load = Load(setting.users, setting.seconds, setting.at_most, setting.poll, files, fields)
        with MemoryWatch(pids) as memory:
            record = run_apart(urls, keys, load)
        used = sum(processor_seconds(pid) for pid in pids) - used
        after = _patches(triton)
    batch = None
    if before is not None and after is not None and after[1] > before[1]:
        batch = (after[0] - before[0]) / (after[1] - before[1])
    return ServiceTiming(
        record, bare, alone, cost, used / max(1, record.requests), resting, memory.peak, batch
    )


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
    yield (
        "processor time of the backend: a status call / any request under load",
        f"{1000 * timing.status_cost:.2f} / {1000 * timing.request_cost:.2f} ms",
    )
    yield "pipeline alone / one user alone", f"{timing.bare:.2f} / {timing.alone:.2f} s"
    pace = record.elapsed / record.ended["done"] if record.ended["done"] else float("nan")
    yield "a job under load / pipeline alone", f"{pace:.2f} s, {pace / timing.bare:.1f} times"
    if timing.batch_size is not None:
        yield "patches per execution in Triton", f"{timing.batch_size:.2f}"
    resting, peak = timing.resting_memory / 2**20, timing.peak_memory / 2**20
    yield "memory of the backend: resting / peak", f"{resting:.0f} / {peak:.0f} MiB"


async def _once(urls: list[str], keys: list[str], load: Load) -> float:
    """One job of one user, from the upload to its end."""
    record = await run(urls, keys[:1], load)
    return record.waits[0] if record.waits else float("inf")


def _status_cost(backend: Backend, key: str, files: dict[str, Path], fields: dict[str, str]) -> float:
    """Processor time of a look at a job that is done, s."""
    headers = {"Authorization": f"Bearer {key}"}
    content = {role: (path.name, path.read_bytes()) for role, path in files.items()}
    with httpx.Client(base_url=backend.url, headers=headers, timeout=120.0) as http:
        form = {**fields, "wait": "100"}
        sent = http.post("/api/v1/reconstruct", files=content, data=form).raise_for_status().json()
        cost = status_cost(backend, key, sent["id"])
        http.delete(f"/api/v1/jobs/{sent['id']}").raise_for_status()
    return cost


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
