"""The worker: takes jobs from the queue, has them computed in processes of their own, stores the results."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from qsm_ai.jobs.hub import Hub
from qsm_ai.jobs.problem import Problem, deadline_exceeded, internal, worker_lost
from qsm_ai.jobs.process import ProcessDiedError, ProcessPool
from qsm_ai.jobs.records import Job, State, StoredArtefact, StoredFile
from qsm_ai.jobs.scratch import Scratch, is_alive
from qsm_ai.jobs.store import JobStore
from qsm_ai.storage import Storage

log = structlog.get_logger("qsm_ai.worker")

LOOK_EVERY = 0.3
"""Seconds between looks at the queue and at wishes to cancel, where nobody tells at once."""

SILENT_FOR = 20.0
"""Seconds without a heartbeat after which a worker counts as lost."""

REPORT_EVERY = 0.4
"""Seconds between two records of progress within one stage."""


class Observer(Protocol):
    """Who wants to know what the worker sees, for metrics."""

    def stage_done(self, stage: str, method: str, seconds: float) -> None:
        """A stage of a finished job took this long."""

    def job_ended(self, state: State, method: str, seconds: float, problem: str | None) -> None:
        """A job ended."""

    def score(self, name: str, value: float) -> None:
        """A score of a finished job."""


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker works.

    Attributes
    ----------
    slots : int
        Jobs at once.
    triton_url : str
        ``host:port`` of the inference server's gRPC.
    job_timeout : s
        After which a job is stopped.
    triton_patience : s
        How long a job waits for an inference server that does not answer, before it fails.
    triton_timeout : s
        How long the inference server may take for one patch.
    """

    slots: int
    triton_url: str
    job_timeout: float
    triton_patience: float
    triton_timeout: float


@dataclass
class _Held:
    job: Job
    task: asyncio.Task[None]
    stop: str | None = None


class Worker:
    """Runs until its task is cancelled; then hands unfinished jobs back to the queue."""

    def __init__(
        self,
        *,
        store: JobStore,
        storage: Storage,
        pool: ProcessPool,
        scratch: Scratch,
        hub: Hub,
        settings: WorkerSettings,
        observer: Observer,
        triton_trouble: Callable[[], Awaitable[Problem | None]],
    ) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.seen_alive_at = 0.0
        self._store = store
        self._storage = storage
        self._pool = pool
        self._scratch = scratch
        self._hub = hub
        self._settings = settings
        self._observer = observer
        self._triton_trouble = triton_trouble
        self._held: dict[str, _Held] = {}

    async def run(self) -> None:
        """Take jobs until cancelled. A failing database or store is logged and tried again, never the end."""
        reaped_at = 0.0
        try:
            while True:
                try:
                    if time.monotonic() - reaped_at > 5.0:
                        await self._reap()
                        reaped_at = time.monotonic()
                    await self._look_after_held()
                    while len(self._held) < self._settings.slots and (job := await self._claim()) is not None:
                        self._begin(job)
                    self.seen_alive_at = time.monotonic()
                except Exception as error:
                    log.exception("worker.trouble", error=type(error).__name__)
                    await asyncio.sleep(1.0)
                await self._hub.wait(Hub.QUEUE, LOOK_EVERY)
        finally:
            await self._shut_down()

    def is_alive(self) -> bool:
        """Whether the worker looked at its queue lately."""
        return time.monotonic() - self.seen_alive_at < 15.0

    # ------------------------------------------------------------------ the loop's parts

    async def _claim(self) -> Job | None:
        return await asyncio.to_thread(self._store.claim, self.name)

    def _begin(self, job: Job) -> None:
        task = asyncio.create_task(self._hold(job), name=f"job-{job.id}")
        self._held[job.id] = _Held(job, task)
        self._hub.notify(job.id)

    async def _look_after_held(self) -> None:
        stop = await asyncio.to_thread(
            self._store.beat, {held.job.id: held.job.attempt for held in self._held.values()}
        )
        for job_id, reason in stop.items():
            held = self._held.get(job_id)
            if held is not None and held.stop is None:
                held.stop = reason
                held.task.cancel()

    async def _reap(self) -> None:
        dead = []
        for name in await asyncio.to_thread(self._store.holders):
            host, _, rest = name.partition(":")
            pid = rest.partition(":")[0]
            gone = pid.isdigit() and (
                not is_alive(int(pid)) or (int(pid) == os.getpid() and name != self.name)
            )
            if host == socket.gethostname() and gone:
                dead.append(name)
        for job_id in await asyncio.to_thread(self._store.reap, silent_for=SILENT_FOR, dead_workers=dead):
            log.warning("job.taken_back", job=job_id)
            self._hub.notify(job_id)

    async def _shut_down(self) -> None:
        for held in self._held.values():
            if held.stop != "finishing":
                held.stop = held.stop or "shutdown"
                held.task.cancel()
        await asyncio.gather(*(held.task for held in self._held.values()), return_exceptions=True)

    # ------------------------------------------------------------------ one job

    async def _hold(self, job: Job) -> None:
        logger = log.bind(job=job.id, attempt=job.attempt, method=job.method, request_id=job.request_id)
        began = time.monotonic()
        state: State | None = None
        problem: Problem | None = None
        logger.info("job.started", waited_s=round(time.time() - job.queued_at, 3))
        try:
            problem = await self._reconstruct(job)
            state = State.DONE
            if problem is not None:
                state = State.FAILED
                await asyncio.to_thread(self._store.fail, job, problem)
        except asyncio.CancelledError:
            state = await self._after_stop(job)
        except Exception as error:
            logger.exception("job.error", error=type(error).__name__)
            problem = internal(type(error).__name__)
            state = State.FAILED
            with suppress(Exception):
                await asyncio.to_thread(self._store.fail, job, problem)
        finally:
            self._held.pop(job.id, None)
            seconds = time.monotonic() - began
            code = problem.code if problem else None
            if state is not None:
                self._observer.job_ended(state, job.method, seconds, code)
            logger.info(
                "job.ended",
                state=state.value if state else "let go",
                seconds=round(seconds, 3),
                problem=code,
            )
            self._hub.notify(job.id)
            self._hub.notify(Hub.QUEUE)

    async def _after_stop(self, job: Job) -> State | None:
        held = self._held.get(job.id)
        reason = held.stop if held else "shutdown"
        await self._storage.delete_prefix(_results(job))
        if reason == "cancel":
            await asyncio.to_thread(self._store.stopped, job)
            return State.CANCELLED
        if reason == "shutdown":
            await asyncio.to_thread(self._store.give_back, job)
        return None

    async def _reconstruct(self, job: Job) -> Problem | None:
        if job.method == "qsm-vit" and (problem := await self._await_triton(job)) is not None:
            return problem
        async with self._scratch.folder() as folder:
            sources = await self._fetch_uploads(job, folder)
            output = folder / "results"
            output.mkdir()
            task = {
                "task": "reconstruct",
                "sources": sources,
                "parameters": job.parameters,
                "output": str(output),
                "triton_url": self._settings.triton_url,
                "triton_timeout": self._settings.triton_timeout,
                "job_timeout": self._settings.job_timeout,
            }
            try:
                async with asyncio.timeout(self._settings.job_timeout):
                    answer = await self._compute(job, task)
            except TimeoutError:
                return deadline_exceeded(self._settings.job_timeout)
            except ProcessDiedError as error:
                return worker_lost(f"The computing process ended unexpectedly (status {error.returncode}).")
            if answer["kind"] == "problem":
                return Problem(**answer["problem"])
            await self._keep_results(job, answer["result"], output)
        return None

    async def _await_triton(self, job: Job) -> Problem | None:
        deadline = time.monotonic() + self._settings.triton_patience
        told: str | None = None
        while (problem := await self._triton_trouble()) is not None:
            if time.monotonic() >= deadline:
                return problem
            if problem.detail != told:
                told = problem.detail
                await asyncio.to_thread(self._store.progress, job, note=f"Waiting: {told}")
                self._hub.notify(job.id)
            await asyncio.sleep(0.5)
        return None

    async def _fetch_uploads(self, job: Job, folder: Path) -> list[dict[str, str]]:
        sources = []
        for number, upload in enumerate(job.uploads):
            path = folder / f"upload-{number}"
            await self._storage.fetch(f"{job.prefix}/{upload.key}", path)
            sources.append({"role": upload.role, "name": upload.name, "path": str(path)})
        return sources

    async def _compute(self, job: Job, task: dict[str, Any]) -> dict[str, Any]:
        reported_at, reported_stage = 0.0, ""
        async with self._pool.lease() as process:
            async for message in process.perform(task):
                if message["kind"] != "progress":
                    return message
                stage, now = message["stage"], time.monotonic()
                if stage == reported_stage and now - reported_at < REPORT_EVERY:
                    continue
                reported_at, reported_stage = now, stage
                await asyncio.to_thread(
                    self._store.progress,
                    job,
                    stage=stage,
                    # The rest is storing the results.
                    fraction=0.99 * message["fraction"],
                    note=message["detail"] or None,
                )
                self._hub.notify(job.id)
        raise ProcessDiedError(None)

    async def _keep_results(self, job: Job, result: dict[str, Any], output: Path) -> None:
        artefacts, others = [], []
        for number, entry in enumerate(result["files"]):
            # Numbers, not file names, in the store: a name may say whose head it is.
            key, path = f"results/{job.attempt}/{number}", output / entry["file"]
            await self._storage.put_file(f"{job.prefix}/{key}", path)
            size = path.stat().st_size
            if entry["artefact"] is None:
                others.append(StoredFile(entry["file"], key, size, entry["media_type"]))
            else:
                shape, voxel_size = tuple(result["shape"]), tuple(result["voxel_size"])
                artefacts.append(
                    StoredArtefact(entry["artefact"], entry["file"], key, size, shape, voxel_size)
                )
        # Once recorded as done a job beats no more, and must not be taken for lost while it is tidied up.
        self._held[job.id].stop = "finishing"
        finished = await asyncio.to_thread(
            self._store.complete,
            job,
            artefacts=artefacts,
            others=others,
            warnings=result["warnings"],
            scores=result["scores"],
            timings=result["timings"],
        )
        if not finished:
            # Deleted or given to another worker meanwhile: what we stored belongs to nobody.
            await self._storage.delete_prefix(_results(job))
            raise asyncio.CancelledError
        for stage, seconds in result["timings"].items():
            self._observer.stage_done(stage, job.method, seconds)
        for name, value in result["scores"].items():
            self._observer.score(name, value)


def _results(job: Job) -> str:
    return f"{job.prefix}/results/{job.attempt}"
