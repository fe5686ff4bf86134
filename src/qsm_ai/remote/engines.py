"""Who computes a batch: a service, or this computer."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from qsm_ai.client import AsyncClient, Job, ServiceError
from qsm_ai.io.folders import open_given
from qsm_ai.io.outputs import in_place_of_older
from qsm_ai.io.source import SourceFile
from qsm_ai.remote.ledger import Entry
from qsm_ai.remote.results import REPORT, files_of
from qsm_ai.remote.scans import FoundScan
from qsm_ai.remote.sidecars import write_reduced

if TYPE_CHECKING:
    from qsm_ai.reconstruction.network import Network

Tell = Callable[[str, float], None]
Note = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """Results of a scan: files relative to the folder of results, and the score of the physics check."""

    files: tuple[str, ...]
    score: float | None


class Engine(Protocol):
    """Computes one scan."""

    async def run(self, scan: FoundScan, entry: Entry, folder: Path, tell: Tell, note: Note) -> Made:
        """Reconstruct a scan and write its results.

        Parameters
        ----------
        scan : FoundScan
        entry : Entry
            What is known of it.
        folder : Path
            Of its results; made if missing.
        tell : callable
            Told what is being done, and how far it is.
        note : callable
            Told the id of the job, as soon as there is one.

        Raises
        ------
        ServiceError, Refusal
        """


class Service:
    """A service computes.

    Parameters
    ----------
    client : AsyncClient
    options : mapping
        Parameters of every scan, as ``AsyncClient.submit`` takes them.
    root : Path
        Of the dataset, for sidecars.
    upload_first, delete : bool
        Send file by file before the job; delete the job when its results are here.
    """

    def __init__(
        self, client: AsyncClient, options: Mapping[str, Any], root: Path, *, upload_first: bool, delete: bool
    ) -> None:
        self._client = client
        self._options = dict(options)
        self._root = root
        self._upload_first = upload_first
        self._delete = delete

    async def run(self, scan: FoundScan, entry: Entry, folder: Path, tell: Tell, note: Note) -> Made:
        """See ``Engine``."""
        job = await self._taken_up(entry) or await self._sent(scan, entry.key, tell)
        note(job.id)
        async for told in self._client.follow(job.id):
            place = f"Waiting, place {told.queue_position}" if told.queue_position else "Waiting"
            tell(told.title or place, told.fraction)
            job = told
        job.require_done()
        tell("Fetching", 1.0)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        files = files_of(job)
        with in_place_of_older(folder / files[REPORT], files.values()):
            for name, file in files.items():
                await self._client.fetch(job.id, name, folder / file, direct=self._upload_first)
        if self._delete:
            await self._client.delete(job.id)
        return Made(tuple(files.values()), job.scores.get("physics_check"))

    async def _taken_up(self, entry: Entry) -> Job | None:
        """The job of an earlier run, started again if it came to nothing."""
        if entry.job is None:
            return None
        try:
            job = await self._client.job(entry.job)
        except ServiceError as error:
            if error.status == 404:
                return None
            raise
        return await self._client.retry(job.id) if job.state in ("failed", "cancelled") else job

    async def _sent(self, scan: FoundScan, key: str, tell: Tell) -> Job:
        tell("Sending", 0.0)
        with sources(scan, self._root) as (phase, magnitude, sidecars):
            job = await self._client.submit(
                phase=phase,
                magnitude=magnitude,
                mask=scan.mask,
                sidecars=sidecars,
                idempotency_key=key,
                upload_first=self._upload_first,
                **self._options,
            )
        return await self._client.retry(job.id) if job.state in ("failed", "cancelled") else job


class Here:
    """This process computes, one scan at a time.

    Parameters
    ----------
    options : mapping
        As those of ``Service``.
    root : Path
    network : Network or None
    """

    def __init__(self, options: Mapping[str, Any], root: Path, network: Network | None) -> None:
        self._options = dict(options)
        self._root = root
        self._network = network
        self._turn = asyncio.Lock()

    async def run(self, scan: FoundScan, entry: Entry, folder: Path, tell: Tell, note: Note) -> Made:
        """See ``Engine``."""
        del entry, note
        async with self._turn:
            stop = threading.Event()
            try:
                return await asyncio.to_thread(self._run, scan, folder, _stopping(tell, stop))
            except asyncio.CancelledError:
                # A thread cannot be cancelled: it finds out when it next tells how far it is.
                stop.set()
                raise

    def _run(self, scan: FoundScan, folder: Path, tell: Tell) -> Made:
        from qsm_ai.io.loading import load_scan
        from qsm_ai.io.outputs import write_outputs
        from qsm_ai.reconstruction.options import Options
        from qsm_ai.reconstruction.pipeline import reconstruct

        given = dict(self._options)
        acquired = {name: given.pop(name, None) for name in ("te_ms", "b0")}
        sign = given.pop("phase_sign", "auto")
        tell("Reading", 0.0)
        with sources(scan, self._root) as (phase, magnitude, sidecars):
            loaded = load_scan(
                phase, magnitude, scan.mask, sidecars, phase_sign=sign, name=scan.name, **acquired
            )
        result = reconstruct(loaded, Options(**given), self._network, lambda at: tell(at.title, at.fraction))
        tell("Writing", 1.0)
        written = write_outputs(loaded, result, folder)
        return Made(tuple(path.name for path in written.values()), result.scores.get("physics_check"))


class _StoppedError(Exception):
    """Nobody waits for the result of a thread any more."""


def _stopping(tell: Tell, stop: threading.Event) -> Tell:
    def telling(title: str, fraction: float) -> None:
        if stop.is_set():
            raise _StoppedError
        tell(title, fraction)

    return telling


@contextmanager
def sources(scan: FoundScan, root: Path) -> Iterator[tuple[list[Path], list[Path], list[Path]]]:
    """Phase, magnitude and reduced sidecars as files; converted ones are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="qsm-ai-") as temporary:
        folder = Path(temporary)
        if scan.source is None:
            phase = list(scan.phase)
            yield phase, list(scan.magnitude), write_reduced(phase, root, folder)
            return
        with open_given([scan.source], [], []) as given:
            phase = [as_file(source, folder) for source in given.phase]
            magnitude = [as_file(source, folder) for source in given.magnitude]
            kept = folder / "reduced"
            kept.mkdir()
            for sidecar in given.sidecars:
                as_file(sidecar, folder)
            yield phase, magnitude, write_reduced(phase, folder, kept)


def as_file(source: SourceFile | Path, folder: Path) -> Path:
    """A source as a file; what is in memory is written into the folder."""
    given = SourceFile.of(source)
    if given.path is not None:
        return given.path
    path = folder / given.name
    with given.open() as (stream, _), path.open("wb") as file:
        while piece := stream.read(1 << 20):
            file.write(piece)
    return path


def options_given(**options: Any) -> dict[str, Any]:
    """Options without those that were left out, and as JSON can hold them."""
    given = {name: value for name, value in options.items() if value not in (None, [], ())}
    return dict(json.loads(json.dumps(given)))
