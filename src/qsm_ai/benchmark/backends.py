"""Backends for the time of a measurement, and what they take of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from qsm_ai.inference.ports import any_free

STARTS_WITHIN = 120.0
LOOK_EVERY = 0.5


@dataclass(frozen=True)
class Backend:
    """A backend that runs: where it is reached, and its process."""

    url: str
    pid: int


@contextmanager
def backends(count: int, folder: Path, settings: dict[str, str]) -> Iterator[list[Backend]]:
    """Backends in processes of their own, on one database and one store.

    Parameters
    ----------
    count : int
    folder : Path
        Which holds the data folder ``data`` of the first; its database and its store are those of all.
    settings : variable: value

    Raises
    ------
    RuntimeError
        If one does not start.
    """
    data = folder / "data"
    shared = {
        "QSM_DATABASE_URL": f"sqlite:///{data / 'jobs.db'}",
        "QSM_STORAGE_URL": str(data / "objects"),
        **settings,
    }
    with ExitStack() as held:
        folders = [data, *(folder / f"data-{number}" for number in range(2, count + 1))]
        yield [held.enter_context(_backend(one, shared)) for one in folders]


@contextmanager
def _backend(data: Path, settings: dict[str, str]) -> Iterator[Backend]:
    port = any_free()
    url = f"http://127.0.0.1:{port}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QSM_")}
    environment = {**kept, "QSM_DATA_DIR": str(data), "QSM_PORT": str(port), **settings}
    with data.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "qsm_ai.api"], env=environment, stdout=log, stderr=log, cwd=data.parent
        )
    try:
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the backend does not start")
            try:
                if httpx.get(f"{url}/healthz", timeout=5.0).is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield Backend(url, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class MemoryWatch:
    """The most that some processes and those below them held at any look, while in here.

    Parameters
    ----------
    pids : sequence of int
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.peak = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, sum(memory_of(pid) for pid in self._pids))
            if self._over.wait(LOOK_EVERY):
                return


def memory_of(pid: int) -> int:
    """Bytes that a process and all below it hold, each page counted once among its sharers.

    Processes that end meanwhile count nothing.
    """
    total = 0
    for process in _tree(pid):
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used, without those that it started, s."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _tree(int(child))
