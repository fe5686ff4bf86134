"""Who waits for news is woken at once by news of the same process; a short timeout covers the rest."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from qsm_ai.jobs.transitions import QUEUE


class Hub:
    """Wakes waiters of a topic. Topics are job ids, and ``QUEUE`` for workers that wait for work.

    Attributes
    ----------
    news : int
        How often anything was told; whoever remembers it can tell whether what they know is still so.
    """

    QUEUE = QUEUE

    def __init__(self) -> None:
        self.news = 0
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def notify(self, topic: str) -> None:
        """Wake everyone who waits for this topic."""
        self.news += 1
        for event in self._waiting.get(topic, ()):
            event.set()

    @contextmanager
    def listening(self, topic: str) -> Iterator[asyncio.Event]:
        """An event that is set at each news, from now on: what comes between two waits is not missed."""
        event = asyncio.Event()
        self._waiting[topic].add(event)
        try:
            yield event
        finally:
            self._waiting[topic].discard(event)
            if not self._waiting[topic]:
                del self._waiting[topic]

    async def wait(self, topic: str, timeout: float) -> None:  # noqa: ASYNC109 - a poll interval, not a deadline
        """Return at the next news, or after ``timeout`` seconds."""
        with self.listening(topic) as event, suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await event.wait()
