"""A scan that is computed here stops when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qsm_ai.reconstruction.pipeline import Progress
from qsm_ai.remote.engines import Here
from qsm_ai.remote.ledger import Entry
from qsm_ai.remote.scans import FoundScan


@pytest.fixture
def scan(tmp_path: Path) -> FoundScan:
    return FoundScan("a", Path("derivatives/qsm-ai/a"), (tmp_path / "phase.nii",))


class Slow:
    """In the place of a reconstruction: tells again and again how far it is."""

    def __init__(self) -> None:
        self.began, self.ended = threading.Event(), threading.Event()
        self.finished = False
        self.written = False

    def reconstruct(self, _scan: Any, _options: Any, _network: Any, on_progress: Any) -> Any:
        self.began.set()
        try:
            for step in range(1000):
                threading.Event().wait(0.01)
                on_progress(Progress("inversion", "Inverting", step / 1000, 0.0))
            self.finished = True
            return SimpleNamespace(scores={})
        finally:
            self.ended.set()

    def write_outputs(self, *_: Any) -> dict[str, Path]:
        self.written = True
        return {}


def test_a_cancelled_scan_ends_at_its_next_step_and_writes_nothing(
    scan: FoundScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow()
    monkeypatch.setattr("qsm_ai.io.loading.load_scan", lambda *_, **__: None)
    monkeypatch.setattr("qsm_ai.reconstruction.pipeline.reconstruct", slow.reconstruct)
    monkeypatch.setattr("qsm_ai.io.outputs.write_outputs", slow.write_outputs)
    engine = Here({"method": "tkd"}, tmp_path, None)
    told: list[str] = []

    async def cancelled() -> None:
        running = asyncio.create_task(
            engine.run(scan, Entry(""), tmp_path / "out", lambda title, _: told.append(title), lambda _: None)
        )
        await asyncio.to_thread(slow.began.wait, 10)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await asyncio.to_thread(slow.ended.wait, 2)

    asyncio.run(cancelled())
    assert not slow.finished
    assert not slow.written
    assert "Writing" not in told
