"""Computing processes: heavy work runs outside the server, can be killed at any moment, and frees its memory.

The two sides speak in lines of JSON: a task goes to the process' standard input; ``progress`` messages and
one ``result`` or ``problem`` come back. Nothing is pickled. A process whose standard input closes ends
itself, so that none outlives a killed server.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from qsm_ai.observe.relay import Relay

LINE_LIMIT = 16 * 1024 * 1024


class ProcessDiedError(RuntimeError):
    """The computing process ended without an answer."""

    def __init__(self, returncode: int | None) -> None:
        super().__init__(f"the computing process ended with status {returncode}")
        self.returncode = returncode


class ComputingProcess:
    """One process that does one task at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process must be started with pipes")
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout
        self._overhearing = asyncio.create_task(_overhear(process.stderr)) if process.stderr else None
        self.tasks_done = 0
        self.is_idle = True

    @classmethod
    async def start(cls) -> ComputingProcess:
        """Start a process; it imports what it needs while nobody waits for it yet."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "qsm_ai.jobs.compute",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Libraries print file names; what may leave is sorted out here.
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            # A Ctrl-C in the terminal is the server's to handle, which then ends its processes in order.
            start_new_session=True,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.returncode is None

    async def perform(self, task: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Do a task; yields its messages, the last of which is a ``result`` or a ``problem``.

        Raises
        ------
        ProcessDiedError
            If the process ended before.
        """
        self.is_idle = False
        try:
            self._stdin.write(json.dumps(task).encode() + b"\n")
            await self._stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ProcessDiedError(await self._process.wait()) from error
        while line := await self._stdout.readline():
            message: dict[str, Any] = json.loads(line)
            if message["kind"] in ("result", "problem"):
                self.tasks_done += 1
                self.is_idle = True
                yield message
                return
            yield message
        raise ProcessDiedError(await self._process.wait())

    async def kill(self) -> None:
        """End the process now, and its children with it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        await self._process.wait()
        if self._overhearing is not None:
            await self._overhearing
        # Let the transport close its pipes before the loop may end.
        self._stdin.close()
        await asyncio.sleep(0)


async def _overhear(output: asyncio.StreamReader) -> None:
    relay = Relay("compute")
    while True:
        try:
            line = await output.readline()
        except ValueError:  # longer than any line of ours
            continue
        if not line:
            break
        relay.take(line.decode(errors="replace"))
    relay.close()


class ProcessPool:
    """Keeps warmed processes for the next task.

    Parameters
    ----------
    size : int
        How many processes may work at once; further leases wait.
    tasks_each : int
        Tasks after which a process is replaced, so that nothing can pile up in it.
    """

    def __init__(self, size: int, tasks_each: int = 20) -> None:
        self._slots = asyncio.Semaphore(size)
        self._tasks_each = tasks_each
        self._idle: list[ComputingProcess] = []
        self._warming: set[asyncio.Task[None]] = set()
        self._closed = False

    def warm(self) -> None:
        """Start a process in the background, so that the next task need not wait for it."""
        task = asyncio.create_task(self._start_spare())
        self._warming.add(task)
        task.add_done_callback(self._warming.discard)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[ComputingProcess]:
        """A process for one task. Leaving the context in the middle of the task kills it."""
        async with self._slots:
            process = await self._take()
            try:
                yield process
            finally:
                if (
                    process.is_alive
                    and process.is_idle
                    and process.tasks_done < self._tasks_each
                    and not self._closed
                ):
                    self._idle.append(process)
                else:
                    await asyncio.shield(process.kill())
                    if not self._closed and not self._idle:
                        self.warm()

    async def close(self) -> None:
        """End all processes."""
        self._closed = True
        for task in self._warming:
            task.cancel()
        await asyncio.gather(*self._warming, return_exceptions=True)
        for process in self._idle:
            await process.kill()
        self._idle.clear()

    async def _take(self) -> ComputingProcess:
        while self._idle:
            process = self._idle.pop()
            if process.is_alive:
                return process
            await process.kill()
        return await ComputingProcess.start()

    async def _start_spare(self) -> None:
        process = await ComputingProcess.start()
        if self._closed:
            await process.kill()
        else:
            self._idle.append(process)
