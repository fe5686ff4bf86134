"""Many scans: so many at once, each written down when it is done, none held up by another's failure."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from qsm_ai.console import in_words
from qsm_ai.remote.engines import Engine
from qsm_ai.remote.ledger import Ledger, key_of
from qsm_ai.remote.results import describe_dataset
from qsm_ai.remote.scans import RESULTS, FoundScan
from qsm_ai.scan import OutputRefusal


@dataclass(frozen=True)
class Ended:
    """What became of a scan: ``done``, ``there`` (from an earlier run) or ``failed``."""

    scan: str
    state: str
    score: float | None = None
    problem: str | None = None


class Display(Protocol):
    """Who shows a batch."""

    def began(self, scan: str) -> None:
        """A scan is being worked on."""

    def at(self, scan: str, title: str, fraction: float) -> None:
        """How far it is."""

    def ended(self, ended: Ended) -> None:
        """It needs nothing more."""


async def run_batch(
    scans: Sequence[FoundScan],
    engine: Engine,
    output: Path,
    options: Mapping[str, Any],
    *,
    at_once: int,
    display: Display,
) -> list[Ended]:
    """Reconstruct scans into ``output/derivatives/qsm-ai``.

    Parameters
    ----------
    scans : sequence of FoundScan
    engine : Engine
    output : Path
    options : mapping
        What makes another result of the same files.
    at_once : int
        Scans on their way at a time.
    display : Display

    Returns
    -------
    list of Ended
        In the order of the scans.

    Raises
    ------
    OutputRefusal
        If what has been done cannot be written down.
    """
    ledger = Ledger(output / RESULTS)
    describe_dataset(output / RESULTS)
    turn = asyncio.Semaphore(at_once)

    async def one(scan: FoundScan) -> Ended:
        async with turn:
            display.began(scan.name)
            ended = await _one(scan, engine, output, options, ledger, display)
            display.ended(ended)
            return ended

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(scan)) for scan in scans]
    except ExceptionGroup as failures:
        # However many scans run into it, it is one sentence.
        for failure in failures.exceptions:
            if isinstance(failure, OutputRefusal):
                raise failure from None
        raise
    return [task.result() for task in tasks]


async def _one(
    scan: FoundScan,
    engine: Engine,
    output: Path,
    options: Mapping[str, Any],
    ledger: Ledger,
    display: Display,
) -> Ended:
    try:
        key = await asyncio.to_thread(lambda: key_of(_files(scan), {**options, "scan": scan.name}))
    except OSError as error:
        return Ended(scan.name, "failed", problem=_told(error))
    entry = ledger.get(scan.name, key)
    if ledger.is_done(scan.name, key):
        return Ended(scan.name, "there", entry.score)

    def note(job: str) -> None:
        nonlocal entry
        entry = ledger.note(scan.name, entry, job=job, state="open", problem=None)

    try:
        made = await engine.run(
            scan, entry, output / scan.results, lambda *told: display.at(scan.name, *told), note
        )
    except Exception as error:  # the boundary of one scan: whatever befell it, the others go on
        problem = _told(error)
        ledger.note(scan.name, entry, state="failed", problem=problem)
        return Ended(scan.name, "failed", problem=problem)
    below = scan.results.relative_to(RESULTS)
    files = tuple(str(below / file) for file in made.files)
    ledger.note(scan.name, entry, state="done", files=files, score=made.score, problem=None)
    return Ended(scan.name, "done", made.score)


def _told(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"A file could not be read or written ({error.strerror or type(error).__name__})."
    return in_words(error)


def _files(scan: FoundScan) -> list[tuple[str, Path]]:
    if scan.source is not None:
        # What a file manager leaves in a folder makes no other scan of it.
        files = (path for path in sorted(scan.source.rglob("*")) if path.is_file())
        return [("source", path) for path in files if not path.name.startswith(".")]
    return [
        *(("phase", path) for path in scan.phase),
        *(("magnitude", path) for path in scan.magnitude),
        *(("mask", path) for path in (scan.mask,) if path is not None),
        *(("sidecar", path) for path in scan.sidecars),
    ]
