"""The worker: takes jobs from the queue as they fit, holds them, ends each of them once."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

import structlog
from obstore.exceptions import BaseError as StoreError
from opentelemetry.trace import Span, StatusCode
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from structlog.contextvars import bound_contextvars

from qsm_ai.jobs.breaker import DOWN, PROBE_EVERY, Breaker
from qsm_ai.jobs.execution import Execution, Outcome, Report
from qsm_ai.jobs.hub import Hub
from qsm_ai.jobs.memory import needed_mb
from qsm_ai.jobs.naming import is_gone, new_name
from qsm_ai.jobs.observer import Observer
from qsm_ai.jobs.problem import Problem, internal
from qsm_ai.jobs.records import Job, State, WorkerRecord
from qsm_ai.jobs.store import JobStore
from qsm_ai.observe.tracing import span
from qsm_ai.observe.users import user_tag

log = structlog.get_logger("qsm_ai.worker")

LOOK_EVERY = 0.3
"""Seconds between looks at the queue and at wishes to cancel, where nobody tells at once."""

TEND_EVERY = 5.0
"""Seconds between looks at what other workers left."""

EXPLAIN_EVERY = 1.0
"""Seconds between looks at what waits for an inference server that is away, and for how long it has."""

SILENT_FOR = 20.0
"""Seconds without a heartbeat after which a worker counts as lost."""

INTERRUPTED_AFTER = 10.0
"""Seconds for which a worker that is well is not kept from its loop; less than anybody may be silent."""

STUCK_AFTER = 60.0
"""Seconds without a turn of the loop after which it is stuck; a lock may be waited for half as long."""

PASSING = (DBAPIError, PoolTimeoutError, StoreError, OSError)
"""What goes wrong while a database or a store is away."""

NETWORK_METHOD = "qsm-vit"
"""The method that needs the inference server."""


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker works.

    Attributes
    ----------
    slots : int
        Jobs at once.
    memory_mb : int
        MiB for all of them together.
    patience : s or None
        How long a job waits in the queue for an inference server that no worker reaches; ``None``: until
        its deadline.
    """

    slots: int
    memory_mb: int
    patience: float | None = None


@dataclass
class _Held:
    job: Job
    task: asyncio.Task[None]
    stop: str | None = None


class Worker:
    """Runs until its task is cancelled; then hands unfinished jobs back to the queue.

    Parameters
    ----------
    store : JobStore
    execution : Execution
    breaker : Breaker
    hub : Hub
    settings : WorkerSettings
    observer : Observer
    """

    def __init__(
        self,
        *,
        store: JobStore,
        execution: Execution,
        breaker: Breaker,
        hub: Hub,
        settings: WorkerSettings,
        observer: Observer,
    ) -> None:
        self.name = new_name()
        self._store = store
        self._execution = execution
        self._breaker = breaker
        self._hub = hub
        self._settings = settings
        self._observer = observer
        self._held: dict[str, _Held] = {}
        self._is_draining = False
        self._tended_at: float | None = None
        self._told: Problem | None = None
        self._explained_at = -math.inf
        self._began_at = self._turned_at = self._looked_at = self._interrupted_at = -math.inf
        self._clock_ahead = 0.0

    async def run(self) -> None:
        """Take jobs until cancelled. A failing database or store is logged and tried again, never the end."""
        probing = asyncio.create_task(self._probe(), name="breaker")
        self._began_at = self._turned_at = time.monotonic()
        self._clock_ahead = time.time() - self._began_at
        try:
            while True:
                self._notice()
                try:
                    # First of all, say that this one lives: after a pause each heartbeat is old, its own too.
                    await self._look_after_held()
                    await self._tend()
                    await self._take()
                    self._looked_at = time.monotonic()
                    self._observer.worker_looked(
                        self._settings.slots, len(self._held), held_back=not self._breaker.allows()
                    )
                except Exception as error:
                    log.exception("worker.trouble", error=type(error).__name__)
                    self._interrupted_at = time.monotonic()
                    await asyncio.sleep(1.0)
                await self._hub.wait(Hub.QUEUE, LOOK_EVERY)
        finally:
            probing.cancel()
            await self._shut_down()
            with suppress(Exception):
                await asyncio.to_thread(self._store.retire, self.name)

    async def drain(self, grace: float) -> None:
        """Take no more jobs, and wait for those that run, ``grace`` seconds at most."""
        self._is_draining = True
        self._tended_at = None
        log.info("worker.draining", jobs=len(self._held), grace_s=grace)
        tasks = [held.task for held in self._held.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)

    @property
    def is_draining(self) -> bool:
        """Whether it takes no more jobs."""
        return self._is_draining

    def is_alive(self) -> bool:
        """Whether the loop turns, be it in vain: a database that is away is mended by no restart."""
        return time.monotonic() - self._turned_at < STUCK_AFTER

    def is_looking(self) -> bool:
        """Whether the worker looked at its queue lately."""
        return time.monotonic() - self._looked_at < 15.0

    # ------------------------------------------------------------------ the loop's parts

    async def _probe(self) -> None:
        while True:
            was = self._breaker.problem
            try:
                await self._breaker.look()
            except Exception as error:
                log.exception("breaker.trouble", error=type(error).__name__)
            if self._breaker.problem != was:
                problem = self._breaker.problem
                log.info("breaker.changed", circuit=self._breaker.circuit, code=problem and problem.code)
                self._hub.notify(Hub.QUEUE)
            await asyncio.sleep(PROBE_EVERY)

    async def _tend(self) -> None:
        """What any worker does for all: take back lost jobs, end late ones, say why jobs wait."""
        problem = self._breaker.problem
        changed = problem != self._told
        now = time.monotonic()
        if not changed and self._tended_at is not None and now - self._tended_at < TEND_EVERY:
            if problem is not None and now - self._explained_at >= EXPLAIN_EVERY:
                await self._explain(problem)
            return
        await asyncio.to_thread(self._store.announce, self._record())
        await self._explain(problem)
        await self._reap()
        for job_id in await asyncio.to_thread(self._store.expire):
            log.info("job.expired", job=job_id)
            self._hub.notify(job_id)
        self._tended_at, self._told = now, problem

    def _record(self) -> WorkerRecord:
        problem = self._breaker.problem
        return WorkerRecord(
            self.name,
            self._settings.slots,
            self._settings.memory_mb,
            started_at=0.0,
            seen_at=0.0,
            draining=self._is_draining,
            trouble=None if problem is None else asdict(problem),
        )

    async def _explain(self, problem: Problem | None) -> None:
        """Say at the waiting jobs whether the inference server keeps them, and give up where it must be."""
        self._explained_at = time.monotonic()
        fleet = await asyncio.to_thread(self._store.workers)
        if problem is None or not all(worker.trouble for worker in fleet):
            # Somebody reaches it: the jobs wait for a worker, as others do.
            await self._tell(await asyncio.to_thread(self._store.explain, NETWORK_METHOD, None))
            return
        note = f"Waiting: {problem.detail}"
        await self._tell(await asyncio.to_thread(self._store.explain, NETWORK_METHOD, note))
        if self._is_recovering(self._interrupted_at):
            return  # who reaches it has maybe not yet said so again
        patience, now = self._settings.patience, await asyncio.to_thread(self._store.now)
        since = max((worker.trouble_since or now for worker in fleet), default=now)
        if patience is not None and now - since >= patience:
            given_up = await asyncio.to_thread(
                self._store.give_up, NETWORK_METHOD, problem, waiting_since=now - patience
            )
            await self._tell(given_up)

    async def _tell(self, job_ids: list[str]) -> None:
        for job_id in job_ids:
            self._hub.notify(job_id)

    async def _take(self) -> None:
        while not self._is_draining and len(self._held) < self._settings.slots:
            whole = self._settings.memory_mb
            used = sum(needed_mb(held.job) for held in self._held.values())
            job = await self._claim(free_mb=whole - used)
            if job is None:
                return
            if job.method == NETWORK_METHOD:
                self._breaker.begun()
            task = asyncio.create_task(self._hold(job), name=f"job-{job.id}")
            self._held[job.id] = _Held(job, task)
            self._hub.notify(job.id)

    async def _claim(self, free_mb: int) -> Job | None:
        claiming = asyncio.create_task(
            asyncio.to_thread(
                self._store.claim,
                self.name,
                without=() if self._breaker.allows() else (NETWORK_METHOD,),
                free_mb=free_mb,
                whole_mb=self._settings.memory_mb,
            )
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # The thread goes on, and what it takes nobody would hold.
            with suppress(Exception):
                if (job := await claiming) is not None:
                    await asyncio.to_thread(self._store.give_back, job)
            raise

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
        names = await asyncio.to_thread(self._store.holders)
        dead = [name for name in names if is_gone(name, self.name)]
        for name in dead:
            await asyncio.to_thread(self._store.retire, name)
        self._notice()
        # One that has only just begun does not know what was before.
        since = max(self._began_at, self._interrupted_at)
        silent_for = None if self._is_recovering(since) else SILENT_FOR
        for job_id in await asyncio.to_thread(self._store.reap, silent_for=silent_for, dead_workers=dead):
            log.warning("job.taken_back", job=job_id)
            self._hub.notify(job_id)

    def _notice(self) -> None:
        """Note that the loop turns, and whether it stood still before, or the clock was set."""
        now = time.monotonic()
        ahead = time.time() - now
        if now - self._turned_at > INTERRUPTED_AFTER or abs(ahead - self._clock_ahead) > INTERRUPTED_AFTER:
            self._interrupted_at = now
        self._turned_at, self._clock_ahead = now, ahead

    def _is_recovering(self, since: float) -> bool:
        """Whether the workers may still be on their way back from what kept this one from its work.

        A database that was away has kept the others from their heartbeats too. They get as long to show
        themselves as a worker may be silent.
        """
        return time.monotonic() - since < SILENT_FOR

    async def _shut_down(self) -> None:
        for held in self._held.values():
            if held.stop != "finishing":
                held.stop = held.stop or "shutdown"
                held.task.cancel()
        await asyncio.gather(*(held.task for held in self._held.values()), return_exceptions=True)
        # A task that was cancelled before its first step has not done so itself.
        for held in self._held.values():
            with suppress(Exception):
                await asyncio.to_thread(self._store.give_back, held.job)
                self._hub.notify(held.job.id)
        self._held.clear()

    # ------------------------------------------------------------------ one job

    async def _hold(self, job: Job) -> None:
        # What the request began goes on here, maybe on another machine, maybe for the second time.
        trace = job.parameters.get("trace", {})
        ids = bound_contextvars(
            job=job.id,
            attempt=job.attempt,
            method=job.method,
            request_id=job.request_id,
            user=user_tag(job.owner),
        )
        with ids, span("job", parent=trace, job=job.id, attempt=job.attempt, method=job.method) as current:
            await self._work_on(job, current)

    async def _work_on(self, job: Job, current: Span) -> None:
        began = time.monotonic()
        waited = (job.started_at or job.queued_at) - job.queued_at
        state: State | None = None
        problem: Problem | None = None
        self._observer.job_began(job.method, waited)
        log.info("job.started", waited_s=round(waited, 3))
        try:
            outcome = await self._execution.perform(job, await self._seconds_left(job), self._report(job))
            state, problem = await self._settle(job, outcome)
        except asyncio.CancelledError:
            state = await self._after_stop(job)
        except Exception as error:
            log.exception("job.error", error=type(error).__name__)
            state, problem = await self._after_error(job, error)
        finally:
            self._held.pop(job.id, None)
            if job.method == NETWORK_METHOD:
                self._breaker.ended()
            seconds = time.monotonic() - began
            code = problem.code if problem else None
            if state is not None and state.is_final:
                self._observer.job_ended(state, job.method, seconds, code, waited + seconds)
            if code is not None:
                current.set_attribute("error.type", code)
                current.set_status(StatusCode.ERROR)
            log.log(
                _level(state, problem),
                "job.ended",
                state=state.value if state else "let go",
                seconds=round(seconds, 3),
                problem=code,
            )
            self._hub.notify(job.id)
            self._hub.notify(Hub.QUEUE)

    async def _seconds_left(self, job: Job) -> float | None:
        if job.deadline_at is None:
            return None
        return job.deadline_at - await asyncio.to_thread(self._store.now)

    def _report(self, job: Job) -> Report:
        async def report(stage: str, fraction: float, note: str | None) -> None:
            # A database that is away for a moment is no reason to begin again: the heartbeat decides.
            with suppress(DBAPIError):
                await asyncio.to_thread(self._store.progress, job, stage=stage, fraction=fraction, note=note)
                self._hub.notify(job.id)

        return report

    async def _settle(self, job: Job, outcome: Outcome) -> tuple[State | None, Problem | None]:
        """Record what came of a job."""
        for how, seconds in outcome.calls:
            self._observer.triton_called(how, seconds)
        # Once recorded as ended a job beats no more, and must not be taken for lost while it is tidied up.
        self._held[job.id].stop = "finishing"
        problem = outcome.problem
        if problem is not None and job.method == NETWORK_METHOD and problem.code in DOWN:
            self._breaker.failed(problem)
            return await self._put_off(job, problem)
        if problem is not None:
            kept = await asyncio.to_thread(self._store.fail, job, problem)
            return (State.FAILED if kept else None), problem
        if job.method == NETWORK_METHOD:
            self._breaker.succeeded()
        result = outcome.result or {}
        finished = await asyncio.to_thread(
            self._store.complete,
            job,
            artefacts=outcome.artefacts,
            others=outcome.others,
            warnings=result["warnings"],
            scores=result["scores"],
            timings=result["timings"],
        )
        if not finished:
            # Deleted or given to another worker meanwhile: what we stored belongs to nobody.
            await self._execution.forget(job)
            return None, None
        if job.attempt > 1:
            await self._execution.forget_earlier(job)
        for stage, seconds in result["timings"].items():
            self._observer.stage_done(stage, job.method, seconds)
        for name, value in result["scores"].items():
            self._observer.score(name, value)
        return State.DONE, None

    async def _after_stop(self, job: Job) -> State | None:
        held = self._held.get(job.id)
        reason = held.stop if held else "shutdown"
        with suppress(Exception):
            await self._execution.forget(job)
        if reason == "cancel":
            await asyncio.to_thread(self._store.stopped, job)
            return State.CANCELLED
        if reason == "shutdown":
            return await asyncio.to_thread(self._store.give_back, job)
        return None

    async def _after_error(self, job: Job, error: Exception) -> tuple[State | None, Problem | None]:
        """A database or a storage that was away for a moment is no reason to fail; a defect of ours is."""
        problem = internal(type(error).__name__)
        with suppress(Exception):
            if isinstance(error, PASSING):
                await asyncio.sleep(1.0)
                return await self._put_off(job, problem)
            return State.FAILED if await asyncio.to_thread(self._store.fail, job, problem) else None, problem
        # Nothing could be recorded: the job is taken back when it has been silent for long enough.
        return None, problem

    async def _put_off(self, job: Job, problem: Problem) -> tuple[State | None, Problem | None]:
        state = await asyncio.to_thread(self._store.put_off, job, problem)
        return state, None if state is State.CANCELLED else problem


def _level(state: State | None, problem: Problem | None) -> int:
    """An error is what failed by our fault; what will be tried again, or was the scan's, is a warning."""
    if problem is None:
        return logging.INFO
    return logging.ERROR if state is State.FAILED and problem.status >= 500 else logging.WARNING
