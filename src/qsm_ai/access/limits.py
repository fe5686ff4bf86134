"""How much one user may do at once: requests in a while, jobs on their way, bytes kept."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from limits import RateLimitItem, parse_many

from qsm_ai.access.shared_windows import AwayError, SharedWindows
from qsm_ai.access.windows import MovingWindows
from qsm_ai.jobs.figures import Usage

JOBS_RETRY_AFTER = 30.0
STORAGE_RETRY_AFTER = 600.0

IN_MEMORY = "memory://"
"""Where each process counts for itself."""


class LimitReached(Exception):  # noqa: N818 - an answer, not an error of ours
    """More than one user may have.

    Attributes
    ----------
    code : str
        ``rate-limit``, ``job-quota`` or ``storage-quota``.
    sentence, mend : str
        For people.
    retry_after : s
    """

    def __init__(self, code: str, sentence: str, mend: str, retry_after: float) -> None:
        super().__init__(code)
        self.code, self.sentence, self.mend = code, sentence, mend
        self.retry_after = max(1, math.ceil(retry_after))


class RateLimit:
    """So many requests in so much time, counted over a moving window.

    Parameters
    ----------
    rule : str
        Such as ``600/minute`` or ``20/second;600/minute``; empty for no limit.
    place : str
        Where counts are kept: ``memory://`` for one process, ``redis://host:6379`` for several. While Redis
        is away each process goes by its own count.
    watch : callable
        Is told whether Redis is away, whenever that has changed.
    patience : s or None
        For which a request waits for Redis; see :mod:`access.shared_windows`.

    Raises
    ------
    ValueError
        For a place where nothing can be counted.
    """

    def __init__(
        self,
        rule: str,
        place: str = IN_MEMORY,
        watch: Callable[[bool], None] = lambda _: None,
        patience: float | None = None,
    ) -> None:
        self._rules: list[RateLimitItem] = parse_many(rule) if rule else []
        self._windows = MovingWindows()
        self._shared = None if place == IN_MEMORY else SharedWindows(place, watch, patience)

    async def hit(self, owner: str) -> None:
        """Count a request of a user.

        Raises
        ------
        LimitReached
        """
        for rule in self._rules:
            wait = await self._hit(rule, owner)
            if wait is not None:
                raise LimitReached(
                    "rate-limit",
                    f"You have sent more than {rule.amount} requests in {_span(rule)}.",
                    "Send the request again after the time in Retry-After, and fewer at once.",
                    wait,
                )

    async def aclose(self) -> None:
        """Close the connections to where counts are kept."""
        if self._shared is not None:
            await self._shared.aclose()

    async def _hit(self, rule: RateLimitItem, owner: str) -> float | None:
        """Seconds until there is room, if there is none now."""
        if self._shared is None:
            return self._alone(rule, owner)
        try:
            wait = await self._shared.hit(rule, owner)
        except AwayError:
            return self._alone(rule, owner)
        if wait is None:
            # Or whoever had their share would get it once more from here when Redis is lost.
            self._alone(rule, owner)
        return wait

    def _alone(self, rule: RateLimitItem, owner: str) -> float | None:
        return self._windows.hit(owner, rule.amount, rule.get_expiry())


class Quotas:
    """Limits of what one user takes up; 0 is no limit.

    Parameters
    ----------
    jobs : int
        On their way at once.
    stored : int
        Bytes.
    """

    def __init__(self, jobs: int = 0, stored: int = 0) -> None:
        self.jobs, self.stored = jobs, stored
        self._arriving: Counter[str] = Counter()
        self._coming: Counter[str] = Counter()

    @contextmanager
    def arriving(self, owner: str, usage: Usage, size: int | None = 0) -> Iterator[int | None]:
        """Hold a place for a job, and room for its files, while its upload comes in, which may take minutes.

        Parameters
        ----------
        owner : str
        usage : Usage
            What the user takes up already.
        size : bytes or None
            That are to come, as far as is known; what was not known is counted when it is there. None for
            files that the usage counts already.

        Yields
        ------
        int or None
            Bytes that may still come; ``None`` for no limit.

        Raises
        ------
        LimitReached
        """
        if self.jobs and usage.unfinished + self._arriving[owner] >= self.jobs:
            raise too_many_jobs(self.jobs)
        room = self.stored - usage.stored_bytes - self._coming[owner] if self.stored else None
        if room is not None and size is not None and (room <= 0 or size > room):
            raise self.full()
        self._arriving[owner] += 1
        self._coming[owner] += size or 0
        try:
            yield room
        finally:
            self._arriving[owner] -= 1
            self._coming[owner] -= size or 0
            if self._arriving[owner] <= 0:
                del self._arriving[owner], self._coming[owner]

    def full(self) -> LimitReached:
        """The user's uploads and results take up as much as they may."""
        return LimitReached(
            "storage-quota",
            f"Your uploads and results would take up more than the {self.stored / (1 << 20):,.0f} MiB "
            "that one user may have.",
            "Fetch results that you need and delete their jobs; old ones are deleted by themselves.",
            STORAGE_RETRY_AFTER,
        )


def too_many_jobs(limit: int) -> LimitReached:
    """A user has as many jobs queued or running as one may have."""
    return LimitReached(
        "job-quota",
        f"You have {limit} jobs on their way, as many as one user may have.",
        "Wait until one has ended, or cancel one.",
        JOBS_RETRY_AFTER,
    )


def _span(rule: RateLimitItem) -> str:
    seconds = rule.get_expiry()
    return "a minute" if seconds == 60 else "a second" if seconds == 1 else f"{seconds} s"
