"""When to ask again, and how long to wait before."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

BUSY = frozenset({429, 503})
"""Statuses that say: not now. What was asked has not been done."""

BROKEN_ON_THE_WAY = frozenset({502, 504})
"""Statuses of something between: whether it has been done is not known."""


@dataclass(frozen=True)
class Retrying:
    """How patient a client is.

    Attributes
    ----------
    attempts : int
        In all, the first one included.
    first : s
        Longest pause after the first attempt; it doubles from then on.
    longest : s
        No pause is longer, unless the service says so.
    patience : s
        A service that says to come again later than this is not waited for.
    """

    attempts: int = 5
    first: float = 0.5
    longest: float = 30.0
    patience: float = 120.0

    def pause(self, attempt: int, retry_after: str | None = None) -> float | None:
        """Seconds to wait after attempt number ``attempt`` (from 1), or ``None`` to give up.

        The pause is drawn by chance, so that clients who were refused together do not come back together.
        """
        if attempt >= self.attempts:
            return None
        jitter = random.uniform(0.0, 1.0)  # noqa: S311 - no secret
        named = _seconds(retry_after)
        if named is None:
            return jitter * min(self.longest, self.first * 2.0 ** (attempt - 1))
        if named > self.patience:
            return None
        return named + jitter * max(0.25, 0.25 * named)


NEVER = Retrying(attempts=1)


def _seconds(retry_after: str | None) -> float | None:
    """``Retry-After`` as seconds or as a date (RFC 9110, section 10.2.3)."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
