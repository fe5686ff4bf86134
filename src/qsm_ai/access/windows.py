"""Moving windows in the memory of one process: how often each user asked lately."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

TIDY_EVERY = 60.0
"""Seconds between two looks for users who ask nothing any more."""


class MovingWindows:
    """Moments of requests, by user and window.

    Counting takes the same short time however many users there are, and waits for nothing. A user takes up
    some thirty bytes for each request in the window, and nothing once all of them have left it.

    Parameters
    ----------
    clock : callable
        Seconds; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[tuple[str, float], deque[float]] = {}
        self._tidied_at = clock()

    def __len__(self) -> int:
        return len(self._asked)

    def hit(self, owner: str, amount: int, span: float) -> float | None:
        """Count a request, unless the window is full.

        Parameters
        ----------
        owner : str
        amount : int
            Requests that one window may hold.
        span : s
            Length of the window.

        Returns
        -------
        float or None
            Seconds until there is room, if there is none now; what is refused is not counted.
        """
        now = self._clock()
        if now - self._tidied_at > TIDY_EVERY:
            self._tidy(now)
        asked = self._asked.get((owner, span))
        if asked is None:
            asked = self._asked[owner, span] = deque()
        while asked and asked[0] <= now - span:
            asked.popleft()
        if len(asked) >= amount:
            return asked[0] + span - now
        asked.append(now)
        return None

    def _tidy(self, now: float) -> None:
        self._tidied_at = now
        gone = [key for key, asked in self._asked.items() if not asked or asked[-1] <= now - key[1]]
        for key in gone:
            del self._asked[key]
