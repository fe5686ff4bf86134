"""Users of a service, all at once: each sends a scan, looks how it stands, and fetches the map.

They live in a process of their own, so that what they need is not taken for what the service needs.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path

import httpx
import numpy as np

from qsm_ai.benchmark.connection import Answer, BrokenError, Connection

POLITE = frozenset({429, 503})
"""Statuses that are no failure if they say when to come again."""

GIVEN_UP = "given up"
"""What becomes of a job that has not ended when the time is over."""


@dataclass(frozen=True)
class Load:
    """What the users do.

    Attributes
    ----------
    users : int
    seconds : s
        After so long nobody begins with another scan.
    at_most : s
        After so long everybody goes home, whether their job has ended or not.
    poll : s
        Between two looks of a user at a job.
    files : role: path
        The scan that everybody sends.
    fields : name: value
    """

    users: int
    seconds: float
    at_most: float
    poll: float
    files: dict[str, Path]
    fields: dict[str, str]


@dataclass
class Record:
    """What happened, over all users.

    Attributes
    ----------
    seconds : request: durations in s
    statuses : (request, status): how often
    failures : reason: how often
        Whatever is neither success nor a refusal that says when to come again.
    ended : state: how many jobs
    waits : s
        From a job's upload to its end, for jobs that are done.
    lags : s
        By how much the users' own event loop was late: their part of every latency.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    elapsed: float = 0.0

    @property
    def refused(self) -> int:
        """Requests that were told to come again later."""
        return sum(count for (_, status), count in self.statuses.items() if status in POLITE)

    @property
    def requests(self) -> int:
        """Of all kinds."""
        return sum(self.statuses.values())

    def percentiles(self, request: str) -> tuple[float, float, float]:
        """P50, P95 and P99 of a kind of request, s; NaN if there was none."""
        found = self.seconds.get(request, [])
        if not found:
            return (float("nan"),) * 3
        p50, p95, p99 = np.percentile(found, [50, 95, 99])
        return float(p50), float(p95), float(p99)


def run_apart(urls: Sequence[str], keys: Sequence[str], load: Load) -> Record:
    """``run`` in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_run, urls, keys, load).result()


def _run(urls: Sequence[str], keys: Sequence[str], load: Load) -> Record:
    return asyncio.run(run(urls, keys, load))


async def run(urls: Sequence[str], keys: Sequence[str], load: Load) -> Record:
    """Let all users loose on a service.

    Parameters
    ----------
    urls : sequence of str
        Of its backends; each request goes to the next one, as a balancer has it.
    keys : sequence of str
        One for each user; empty for a service without access control.
    load : Load

    Returns
    -------
    Record
    """
    record = Record()
    form = _form(load)
    began = time.perf_counter()
    lag = asyncio.create_task(_watch(record))
    async with asyncio.TaskGroup() as group:
        for number in range(load.users):
            headers = {"Authorization": f"Bearer {keys[number]}"} if keys else {}
            turned = [*urls[number % len(urls) :], *urls[: number % len(urls)]]
            group.create_task(_User(turned, headers, form, load, record, began).live())
    lag.cancel()
    record.elapsed = time.perf_counter() - began
    return record


@dataclass(frozen=True)
class _Form:
    """The upload, the same for everybody."""

    headers: dict[str, str]
    body: bytes


def _form(load: Load) -> _Form:
    content = {role: (path.name, path.read_bytes()) for role, path in load.files.items()}
    request = httpx.Request("POST", "http://service", files=content, data=load.fields)
    return _Form({"Content-Type": request.headers["content-type"]}, request.read())


class _User:
    """Sends, looks, fetches, deletes, and begins again."""

    def __init__(
        self,
        urls: Sequence[str],
        headers: dict[str, str],
        form: _Form,
        load: Load,
        record: Record,
        began: float,
    ) -> None:
        self._connections = [Connection(url) for url in urls]
        self._next = cycle(self._connections)
        self._headers = headers
        self._form = form
        self._load = load
        self._record = record
        self._last_scan, self._home = began + load.seconds, began + load.at_most

    async def live(self) -> None:
        """One scan after the other; at least one."""
        try:
            await self._scans()
        finally:
            for connection in self._connections:
                connection.close()

    async def _scans(self) -> None:
        while True:
            began = time.perf_counter()
            sent = await self._send()
            if sent is None:
                return
            job = f"/api/v1/jobs/{sent['id']}"
            state = await self._look(job)
            self._record.ended[state] += 1
            if state == "done":
                self._record.waits.append(time.perf_counter() - began)
                await self._ask("download", "GET", f"{job}/artefacts/chi")
            await self._ask("delete", "DELETE", job)
            if self._is_late():
                return

    def _is_late(self) -> bool:
        """Whether it is too late for another scan."""
        return time.perf_counter() > min(self._last_scan, self._home)

    async def _send(self) -> dict[str, str] | None:
        while True:
            answer = await self._ask("upload", "POST", "/api/v1/reconstruct", self._form)
            if answer is not None and answer.is_success:
                sent: dict[str, str] = answer.json()
                return sent
            if answer is None or answer.status not in POLITE:
                await asyncio.sleep(1.0)
            else:
                await asyncio.sleep(float(answer.headers.get("retry-after", 5)) * random.uniform(1, 1.5))  # noqa: S311
            if self._is_late():
                return None

    async def _look(self, job: str) -> str:
        while time.perf_counter() < self._home:
            answer = await self._ask("status", "GET", job)
            if answer is not None and answer.is_success:
                state = str(answer.json()["state"])
                if state in ("done", "failed", "cancelled"):
                    return state
            await asyncio.sleep(self._load.poll * random.uniform(0.5, 1.5))  # noqa: S311
        return GIVEN_UP

    async def _ask(self, kind: str, method: str, path: str, form: _Form | None = None) -> Answer | None:
        headers, body = (
            (self._headers, b"") if form is None else ({**self._headers, **form.headers}, form.body)
        )
        began = time.perf_counter()
        try:
            answer = await next(self._next).request(method, path, headers, body)
        except BrokenError as error:
            self._record.failures[f"{kind}: {error}"] += 1
            return None
        self._record.statuses[kind, answer.status] += 1
        if answer.is_success:
            self._record.seconds.setdefault(kind, []).append(time.perf_counter() - began)
        elif answer.status not in POLITE or "retry-after" not in answer.headers:
            self._record.failures[f"{kind}: {answer.status}"] += 1
        return answer


async def _watch(record: Record) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.05)
        record.lags.append(time.perf_counter() - began - 0.05)
