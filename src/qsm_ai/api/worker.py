"""A worker in a process of its own: any number of them, on any machines, on one database and one storage."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from qsm_ai import __version__
from qsm_ai.api.engine import Engine
from qsm_ai.api.parts import Parts, reason
from qsm_ai.api.protocol import BoundedProtocol
from qsm_ai.api.settings import Settings
from qsm_ai.jobs.hub import Hub
from qsm_ai.jobs.process import ProcessPool

log = structlog.get_logger("qsm_ai.worker")


class WorkerProcess:
    """Database, storage, scratch folder and engine of one worker.

    Parameters
    ----------
    settings : Settings
        ``workers`` is the number of jobs at once.

    Raises
    ------
    DatabaseMismatchError
        If the database is not of this version and may not be migrated.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        parts = Parts.open(settings)
        self.store, self.storage, self.metrics = parts.store, parts.storage, parts.metrics
        self.pool = ProcessPool(size=settings.workers)
        self.engine = Engine(
            settings,
            store=self.store,
            storage=self.storage,
            hub=Hub(),
            scratch=parts.scratch,
            pool=self.pool,
            metrics=self.metrics,
        )

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT; then let jobs end or hand them back. A second signal ends it now."""
        stop, at_once = asyncio.Event(), asyncio.Event()

        def told() -> None:
            (at_once if stop.is_set() else stop).set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told)
        log.info("worker.started", worker=self.engine.worker.name, slots=self.settings.workers)
        try:
            self.pool.warm()
            async with self._serving(), self.engine.running():
                await stop.wait()
                draining = asyncio.create_task(self.engine.worker.drain(self.settings.worker_grace_s))
                hurried = asyncio.create_task(at_once.wait())
                await asyncio.wait((draining, hurried), return_when=asyncio.FIRST_COMPLETED)
                for task in (draining, hurried):
                    task.cancel()
        finally:
            await self.pool.close()
            self.store.close()
        log.info("worker.ended")

    async def trouble(self) -> dict[str, str | None]:
        """What works and what does not: the reason for each."""
        found: dict[str, str | None] = {"worker": None}
        if not self.engine.worker.is_looking():
            found["worker"] = "The worker does not look at its queue."
        elif self.engine.worker.is_draining:
            found["worker"] = "The worker takes no more jobs."
        problem = self.engine.breaker.problem
        found["triton"] = problem.detail if problem else None
        found["database"] = await reason("database", asyncio.to_thread(self.store.check))
        found["storage"] = await reason("storage", self.storage.check())
        return found

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        """Health and metrics over HTTP, for as long as the worker runs."""
        if not self.settings.worker_port:
            yield
            return
        config = uvicorn.Config(
            self._app(),
            host=self.settings.worker_host,
            port=self.settings.worker_port,
            http=BoundedProtocol,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
        )
        server = _Quiet(config)
        serving = asyncio.create_task(server.serve())
        try:
            yield
        finally:
            server.should_exit = True
            with suppress(Exception, SystemExit):
                await serving

    def _app(self) -> Starlette:
        async def alive(_request: Request) -> Response:
            healthy = self.engine.worker.is_alive()
            return JSONResponse(
                {"status": "ok" if healthy else "stuck", "version": __version__}, 200 if healthy else 503
            )

        async def ready(_request: Request) -> Response:
            found = await self.trouble()
            # Without the inference server it still does the jobs that need none.
            able = all(reason is None for name, reason in found.items() if name != "triton")
            checks = {name: {"ok": reason is None, "reason": reason} for name, reason in found.items()}
            return JSONResponse({"ready": able, "checks": checks}, 200 if able else 503)

        async def metrics(request: Request) -> Response:
            text, kind = await asyncio.to_thread(self.metrics.answer, request.headers.get("accept", ""))
            return Response(text, headers={"Content-Type": kind})

        return Starlette(
            routes=[Route("/healthz", alive), Route("/readyz", ready), Route("/metrics", metrics)]
        )


class _Quiet(uvicorn.Server):
    """Leaves the signals to the worker, which has jobs to end first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield
