"""Everything that lives as long as the application, in one place, and how routes get at it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, cast

import structlog
from fastapi import Depends, FastAPI, Path, Request

from qsm_ai.access.denial import AccessDenied, not_an_administrator
from qsm_ai.access.gate import Gate
from qsm_ai.access.identity import Identity, Role
from qsm_ai.access.limits import Quotas, RateLimit
from qsm_ai.api.engine import Engine
from qsm_ai.api.parts import Parts, reason
from qsm_ai.api.pending import PendingUploads
from qsm_ai.api.presigning import Presigner
from qsm_ai.api.schemas import Check
from qsm_ai.api.settings import MIB, Settings
from qsm_ai.api.slices import VolumeCache
from qsm_ai.api.upload_records import UploadRecords
from qsm_ai.jobs.hub import Hub
from qsm_ai.jobs.process import ProcessPool
from qsm_ai.jobs.records import Job
from qsm_ai.jobs.service import Jobs, Permit
from qsm_ai.jobs.sweeping import IncompleteSweepError

log = structlog.get_logger("qsm_ai.api")

CHECKS_KEPT_FOR = 1.0
CHECKS_AT_ONCE = 2


class Context:
    """The application's parts, opened in ``running`` and closed after it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        parts = Parts.open(settings)
        self.store, self.storage = parts.store, parts.storage
        self.metrics, self.scratch = parts.metrics, parts.scratch
        self.hub = Hub()
        self.volumes = VolumeCache(settings.slice_cache_mb * MIB)
        self.gate = Gate.build(self.store.database, keys="keys" in settings.access, oidc=settings.oidc)
        # The one user of an open service shares it with nobody.
        self.rate_limit = RateLimit(
            settings.rate_limit,
            settings.rate_limit_storage,
            watch=self.metrics.rate_limit_alone.set,
            patience=settings.rate_limit_patience,
        )
        self.quotas = Quotas() if self.gate.is_open else settings.quotas
        self.jobs = Jobs(
            store=self.store,
            storage=self.storage,
            hub=self.hub,
            slots=settings.workers,
            max_queued=settings.max_queued,
            max_unfinished=self.quotas.jobs or None,
            forget=self.volumes.forget,
            deadline=settings.job_deadline_s or None,
        )
        self.pending = PendingUploads(
            records=UploadRecords(self.store),
            storage=self.storage,
            presigner=Presigner.from_url(
                settings.storage,
                lifetime=settings.presigned_s,
                endpoint=settings.storage_public_endpoint,
            ),
            lifetime=settings.pending_hours * 3600,
            limit=settings.max_upload_bytes,
            most_bytes=settings.max_pending_mb * MIB,
            stall=settings.upload_stall_s,
        )
        # One pool for both: the process that checked an upload is warm for the job. No check waits for a job.
        self.pool = ProcessPool(size=settings.workers + CHECKS_AT_ONCE)
        self.checking = asyncio.Semaphore(CHECKS_AT_ONCE)
        self.engine = Engine(
            settings,
            store=self.store,
            storage=self.storage,
            hub=self.hub,
            scratch=self.scratch,
            pool=self.pool,
            metrics=self.metrics,
        )
        self._readiness: tuple[float, dict[str, Check]] | None = None
        self._looking = asyncio.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Worker, sweeper and warmed processes, for as long as the application serves."""
        self.pool.warm()
        sweeping = asyncio.create_task(self._sweep())
        try:
            async with self.engine.running():
                yield
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
            await self.gate.aclose()
            await self.rate_limit.aclose()
            await self.pool.close()
            self.store.close()

    async def checks(self) -> dict[str, Check]:
        """What works and what does not; looked at once a second at most, however many ask."""
        async with self._looking:
            if self._readiness is None or time.monotonic() - self._readiness[0] > CHECKS_KEPT_FOR:
                names = ("triton", "storage", "database", "worker")
                found = await asyncio.gather(*(reason(name, self._trouble(name)) for name in names))
                checks = {n: Check(ok=why is None, reason=why) for n, why in zip(names, found, strict=True)}
                self._readiness = (time.monotonic(), checks)
            return self._readiness[1]

    async def _trouble(self, name: str) -> str | None:
        if name == "triton":
            problem = await self.engine.triton_trouble()
            return problem.detail if problem else None
        if name == "storage":
            await self.storage.check()
        elif name == "database":
            await asyncio.to_thread(self.store.check)
        elif self.settings.workers and not self.engine.worker.is_looking():
            # Where others compute, jobs may be sent while there are none: they wait in the database.
            return "The worker does not look at its queue."
        return None

    async def _sweep(self) -> None:
        hours = self.settings.retention_hours
        while True:
            jobs = await self._swept("jobs", self.jobs.sweep(hours * 3600 if hours else None))
            uploads = await self._swept("uploads", self.pending.sweep())
            self.metrics.swept(whole=jobs and uploads)
            await asyncio.sleep(self.settings.sweep_every_s)

    async def _swept(self, what: str, sweeping: Awaitable[int]) -> bool:
        """Whether a sweep removed all that is past its time; what it did remove is counted in any case."""
        removed, is_whole = 0, False
        try:
            removed, is_whole = await sweeping, True
        except IncompleteSweepError as error:
            removed = error.removed
        except Exception as error:  # a store that is away for a moment must not end the sweeping
            log.exception("sweep.trouble", of=what, error=type(error).__name__)
        if removed:
            log.info("sweep.removed", **{what: removed})
            self.metrics.removed.inc(removed)
        return is_whole


# These three wait for nothing; a plain function would cost every request a way through a thread.
async def context_of(request: Request) -> Context:
    """The running application's parts."""
    return cast(Context, cast(FastAPI, request.app).state.context)


InContext = Annotated[Context, Depends(context_of)]


async def identity_of(request: Request) -> Identity:
    """Who is asking, as the door found out (see ``security``); nobody gets here otherwise."""
    return cast(Identity, request.state.identity)


Visitor = Annotated[Identity, Depends(identity_of)]


def permit_of(request: Request) -> Permit:
    """What asks again whether the key or token of a request lets in, for answers that take their time.

    An identity provider that is away for a moment ends nothing.
    """
    gate = cast(Context, cast(FastAPI, request.app).state.context).gate
    credentials = request.headers.get("authorization")

    async def permit() -> None:
        try:
            await gate.admit(credentials)
        except AccessDenied as denial:
            if denial.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise

    return permit


def administrator(visitor: Visitor) -> Identity:
    """Who is asking, if that is an administrator."""
    if visitor.role is not Role.ADMIN:
        raise not_an_administrator()
    return visitor


Administrator = Annotated[Identity, Depends(administrator)]


async def owner_of(visitor: Visitor) -> str:
    """Whose jobs this request is about; an administrator's are their own, as everybody's."""
    return visitor.owner


Owner = Annotated[str, Depends(owner_of)]
JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="Id of the job.", examples=["0" * 32])]


async def owned_job(job_id: JobId, request: Request, visitor: Visitor) -> Job:
    """The job of the address, if it is this user's."""
    # What most requests ask for: each dependency costs them time, so there are no more than must be.
    return await (await context_of(request)).jobs.get(job_id, visitor.owner)


OwnedJob = Annotated[Job, Depends(owned_job)]
