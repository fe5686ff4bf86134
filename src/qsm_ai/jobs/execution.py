"""One job from its uploads to its stored results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structlog.contextvars import get_contextvars

from qsm_ai.jobs.problem import Problem, deadline_exceeded, worker_lost
from qsm_ai.jobs.process import ProcessDiedError, ProcessPool
from qsm_ai.jobs.records import Job, StoredArtefact, StoredFile
from qsm_ai.jobs.scratch import Scratch
from qsm_ai.observe.tracing import carry
from qsm_ai.storage import Storage

REPORT_EVERY = 0.4
"""Seconds between two records of progress within one stage."""

Report = Callable[[str, float, str | None], Awaitable[None]]
"""Told the stage, the fraction of the whole and a remark."""


@dataclass(frozen=True)
class ExecutionSettings:
    """Where jobs are computed, and what one may take.

    Attributes
    ----------
    triton_url : str
        ``host:port`` of the inference server's gRPC.
    job_timeout : s
        After which a job is stopped.
    triton_timeout : s
        How long the inference server may take for one patch.
    triton_in_flight : int
        Patches of one job that wait at the inference server at once.
    """

    triton_url: str
    job_timeout: float
    triton_timeout: float
    triton_in_flight: int = 4


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes
    ----------
    problem : Problem or None
    artefacts, others : stored files
    result : dict
        What the computing process told.
    calls : list of (outcome, seconds)
        Requests to the inference server.
    """

    problem: Problem | None
    artefacts: tuple[StoredArtefact, ...] = ()
    others: tuple[StoredFile, ...] = ()
    result: dict[str, Any] | None = None
    calls: tuple[tuple[str, float], ...] = ()


class Execution:
    """Computes jobs in processes of their own.

    Parameters
    ----------
    storage : Storage
    pool : ProcessPool
    scratch : Scratch
    settings : ExecutionSettings
    """

    def __init__(
        self, storage: Storage, pool: ProcessPool, scratch: Scratch, settings: ExecutionSettings
    ) -> None:
        self._storage = storage
        self._pool = pool
        self._scratch = scratch
        self._settings = settings

    async def perform(self, job: Job, seconds: float | None, report: Report) -> Outcome:
        """Compute a job and store its results; cancelling kills the computation at once.

        Parameters
        ----------
        job : Job
        seconds : float or None
            Until its deadline.
        report : callable
        """
        allowed = self._settings.job_timeout if seconds is None else min(self._settings.job_timeout, seconds)
        if allowed <= 0:
            return Outcome(deadline_exceeded(0.0))
        async with self._scratch.folder() as folder:
            output = folder / "results"
            output.mkdir()
            began = time.monotonic()
            try:
                async with asyncio.timeout(allowed):
                    task = {
                        "task": "reconstruct",
                        "sources": await self._fetch_uploads(job, folder),
                        "parameters": job.parameters,
                        "output": str(output),
                        "triton_url": self._settings.triton_url,
                        "triton_timeout": min(self._settings.triton_timeout, allowed),
                        "triton_in_flight": self._settings.triton_in_flight,
                        # Requests to the inference server end with the job, at the latest.
                        "job_timeout": max(1.0, allowed - (time.monotonic() - began)),
                        "log": get_contextvars(),
                        "trace": carry(),
                    }
                    answer = await self._compute(task, report)
            except TimeoutError:
                return Outcome(deadline_exceeded(allowed))
            except ProcessDiedError as error:
                return Outcome(
                    worker_lost(f"The computing process ended unexpectedly (status {error.returncode}).")
                )
            calls = tuple((str(how), float(took)) for how, took in answer.get("triton", ()))
            if answer["kind"] == "problem":
                return Outcome(Problem(**answer["problem"]), calls=calls)
            artefacts, others = await self._store_results(job, answer["result"], output)
            return Outcome(None, artefacts, others, answer["result"], calls)

    async def forget(self, job: Job) -> None:
        """Remove what this attempt stored."""
        await self._storage.delete_prefix(_results(job))

    async def forget_earlier(self, job: Job) -> None:
        """Remove what other attempts at a finished job left."""
        folder = f"{job.prefix}/results"
        for attempt in await self._storage.children(folder):
            if attempt != str(job.attempt):
                await self._storage.delete_prefix(f"{folder}/{attempt}")

    async def _fetch_uploads(self, job: Job, folder: Path) -> list[dict[str, str]]:
        sources = []
        for number, upload in enumerate(job.uploads):
            path = folder / f"upload-{number}"
            await self._storage.fetch(f"{job.prefix}/{upload.key}", path)
            sources.append({"role": upload.role, "name": upload.name, "path": str(path)})
        return sources

    async def _compute(self, task: dict[str, Any], report: Report) -> dict[str, Any]:
        reported_at, reported_stage = 0.0, ""
        async with self._pool.lease() as process:
            async for message in process.perform(task):
                if message["kind"] != "progress":
                    return message
                stage, now = message["stage"], time.monotonic()
                if stage == reported_stage and now - reported_at < REPORT_EVERY:
                    continue
                reported_at, reported_stage = now, stage
                # The rest is storing the results.
                await report(stage, 0.99 * message["fraction"], message["detail"] or None)
        raise ProcessDiedError(None)

    async def _store_results(
        self, job: Job, result: dict[str, Any], output: Path
    ) -> tuple[tuple[StoredArtefact, ...], tuple[StoredFile, ...]]:
        artefacts, others = [], []
        shape, voxel_size = tuple(result["shape"]), tuple(result["voxel_size"])
        for number, entry in enumerate(result["files"]):
            # Numbers, not file names, in the store: a name may say whose head it is.
            key, path = f"results/{job.attempt}/{number}", output / entry["file"]
            await self._storage.put_file(f"{job.prefix}/{key}", path)
            size = path.stat().st_size
            if entry["artefact"] is None:
                others.append(StoredFile(entry["file"], key, size, entry["media_type"]))
            else:
                name, file = entry["artefact"], entry["file"]
                artefacts.append(StoredArtefact(name, file, key, size, shape, voxel_size))
        return tuple(artefacts), tuple(others)


def _results(job: Job) -> str:
    return f"{job.prefix}/results/{job.attempt}"
