"""A process that dies while it reads a scan is said to have died, and is in the log."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter

from qsm_ai.api.problems import ProblemError
from qsm_ai.api.submission import submit
from qsm_ai.jobs.process import ProcessDiedError


class DyingPool:
    """Its processes die of a broken image."""

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[DyingPool]:
        yield self

    async def perform(self, _task: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        yield {"kind": "progress"}
        raise ProcessDiedError(-signal.SIGSEGV)


def test_a_check_that_dies_is_no_lack_of_memory() -> None:
    async def scenario() -> None:
        refusals = Counter("refusals", "By code.", ["code"], registry=CollectorRegistry())
        context: Any = SimpleNamespace(
            settings=SimpleNamespace(
                max_wait_s=1, validate_timeout_s=5, max_upload_bytes=1, max_unpacked_mb=1
            ),
            pool=DyingPool(),
            checking=asyncio.Semaphore(1),
            metrics=SimpleNamespace(refusals=refusals),
        )
        request: Any = SimpleNamespace()
        with pytest.raises(ProblemError) as refused, structlog.testing.capture_logs() as logged:
            await submit(context, request, "ann", [], {"method": ["tkd"]})
        problem = refused.value.problem
        assert (problem.status, problem.code) == (500, "worker-lost")
        assert "memory" not in problem.detail
        assert [(entry["event"], entry["status"]) for entry in logged] == [("check.process_died", -11)]

    asyncio.run(scenario())
