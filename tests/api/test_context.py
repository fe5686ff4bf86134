"""What runs beside the requests."""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path

import pytest

from qsm_ai.api.context import Context
from qsm_ai.api.settings import Settings
from qsm_ai.jobs.records import Job, State


def test_what_cannot_be_removed_keeps_neither_jobs_nor_uploads_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QSM_WORKERS", "0")
    monkeypatch.setenv("QSM_SWEEP_EVERY_S", "0.1")
    monkeypatch.setenv("QSM_RETENTION_HOURS", "1")

    async def scenario() -> None:
        context = Context(Settings(data_dir=tmp_path))
        stubborn, other = [await cancelled(context) for _ in range(2)]
        expired = await context.pending.announce("ann", "doe.nii", 9, None)
        with context.store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE jobs SET finished_at = finished_at - 7200")
            connection.exec_driver_sql("UPDATE uploads SET expires_at = created_at - 1")
        remove = context.storage.delete_prefix

        async def refuse(prefix: str) -> int:
            if prefix == stubborn.prefix:
                raise PermissionError
            return await remove(prefix)

        monkeypatch.setattr(context.storage, "delete_prefix", refuse)
        begun = told(context, "qsm_retention_sweep_success_timestamp_seconds")
        async with context.running():
            async with asyncio.timeout(60):
                while told(context, "qsm_retention_sweep_errors_total") < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert context.store.known_ids() == {stubborn.id}
            assert await context.pending.of("ann") == []
            assert told(context, "qsm_retention_removed_total") == 2, (other.id, expired.id)
            assert told(context, "qsm_retention_sweep_success_timestamp_seconds") == begun
            monkeypatch.setattr(context.storage, "delete_prefix", remove)
            async with asyncio.timeout(60):
                while told(context, "qsm_retention_sweep_success_timestamp_seconds") == begun:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert context.store.known_ids() == set()

    asyncio.run(scenario())


async def cancelled(context: Context) -> Job:
    job = Job(secrets.token_hex(16), "ann", State.QUEUED, {"method": "tkd"}, (), {})
    context.store.add(job, max_queued=9)
    await context.storage.put(f"{job.prefix}/uploads/0", b"phase")
    return context.store.cancel(job.id)


def told(context: Context, name: str) -> float:
    """A metric, as Prometheus gets it."""
    found = re.search(rf"^{name} (\S+)$", context.metrics.answer("")[0].decode(), re.MULTILINE)
    assert found is not None, name
    return float(found[1])
