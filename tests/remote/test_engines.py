"""A scan that is computed here stops when nobody waits for it any more; results fetched belong together."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qsm_ai.client import Job
from qsm_ai.client.records import job_from
from qsm_ai.reconstruction.pipeline import Progress
from qsm_ai.remote import engines
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


def test_volumes_of_an_earlier_run_do_not_pass_for_those_that_are_fetched(
    scan: FoundScan, tmp_path: Path
) -> None:
    volume = {"name": "chi", "title": "", "unit": "ppm", "file": "a_Chimap.nii.gz", "size": 1,
              "window": [0, 1], "shape": [1, 1, 1], "voxel_size": [1, 1, 1]}  # fmt: skip
    job = job_from({"id": "0", "state": "done", "artefacts": [volume]})

    class Service:
        async def job(self, _job: str) -> Job:
            return job

        async def follow(self, _job: str) -> AsyncIterator[Job]:
            yield job

        async def fetch(self, _job: str, name: str, path: Path, *, direct: bool) -> Path:
            await asyncio.to_thread(path.write_text, "{}" if name == "report" else name)
            return path

    (tmp_path / "a_Chierror.nii.gz").write_text("of another map")
    earlier = {"artefacts": {"chi_uncertainty": {"file": "a_Chierror.nii.gz"}}}
    (tmp_path / "a_qsm.json").write_text(json.dumps(earlier))
    client: Any = Service()
    engine = engines.Service(client, {}, tmp_path, upload_first=False, delete=False)
    made = asyncio.run(engine.run(scan, Entry("", job="0"), tmp_path, lambda *_: None, lambda _: None))
    assert {path.name for path in tmp_path.iterdir()} == set(made.files)
