"""What computes jobs, in the backend's process or in a worker's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from qsm_ai.api.metrics import Metrics
from qsm_ai.api.settings import Settings
from qsm_ai.inference.errors import InferenceFailure
from qsm_ai.inference.triton import TritonNetwork
from qsm_ai.jobs.breaker import Breaker
from qsm_ai.jobs.capacity import memory_for_jobs_mb
from qsm_ai.jobs.execution import Execution, ExecutionSettings
from qsm_ai.jobs.hub import Hub
from qsm_ai.jobs.problem import Problem, inference_problem
from qsm_ai.jobs.process import ProcessPool
from qsm_ai.jobs.scratch import Scratch
from qsm_ai.jobs.store import JobStore
from qsm_ai.jobs.watcher import Watcher
from qsm_ai.jobs.worker import Worker, WorkerSettings
from qsm_ai.storage import Storage

ANSWERS_WITHIN = 2.0
"""Seconds in which a healthy inference server says that it is ready."""


class Engine:
    """A worker with what it needs: processes, the inference server, news of other processes.

    Parameters
    ----------
    settings : Settings
    store, storage, hub, scratch, pool, metrics : parts of the process
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: JobStore,
        storage: Storage,
        hub: Hub,
        scratch: Scratch,
        pool: ProcessPool,
        metrics: Metrics,
    ) -> None:
        self._metrics = metrics
        self._slots = settings.workers
        self.triton = TritonNetwork(settings.triton_url)
        self.watcher = Watcher(store, hub)
        self.breaker = Breaker(self.triton_trouble)
        self.worker = Worker(
            store=store,
            execution=Execution(
                storage,
                pool,
                scratch,
                ExecutionSettings(
                    triton_url=settings.triton_url,
                    job_timeout=settings.job_timeout_s,
                    triton_timeout=settings.triton_timeout_s,
                    triton_in_flight=settings.triton_in_flight,
                ),
            ),
            breaker=self.breaker,
            hub=hub,
            settings=WorkerSettings(
                slots=settings.workers,
                memory_mb=settings.worker_memory_mb or memory_for_jobs_mb(),
                patience=settings.triton_patience_s,
            ),
            observer=metrics,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work, if there are slots, and pass on the news; unfinished jobs are handed back at the end."""
        tasks = [asyncio.create_task(self.watcher.run(), name="watcher")]
        if self._slots:
            tasks.append(asyncio.create_task(self.worker.run(), name="worker"))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.triton.aclose()

    async def triton_trouble(self) -> Problem | None:
        """Why the inference server cannot serve; ``None`` if it can."""
        try:
            await self.triton.check(ANSWERS_WITHIN)
        except InferenceFailure as failure:
            self._metrics.triton_up.set(0)
            return inference_problem(failure)
        self._metrics.triton_up.set(1)
        return None
