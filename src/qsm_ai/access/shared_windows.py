"""Moving windows in a Redis: how often each user asked lately, counted by several processes together."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog
from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import ConfigurationError

if TYPE_CHECKING:
    from redis.asyncio import BlockingConnectionPool

log = structlog.get_logger("qsm_ai.access")

SCHEMES = ("redis", "rediss")
PREFIX = "qsm-ai"
CONNECTIONS = 32
"""Of one process; more requests than that wait for each other."""

PATIENCE = 0.5
"""Seconds that a request waits for Redis by one rule, for a connection to it and for its answers together."""

PAUSE = 1.0
"""Seconds between two requests that ask a Redis which did not answer."""


class AwayError(Exception):
    """Redis does not count now."""


class SharedWindows:
    """Windows of all processes that name the same Redis.

    No count takes longer than the patience, and while Redis is away one in ``PAUSE`` waits at all. Redis
    learns hashes of users. The moments are those of the processes' clocks.

    Parameters
    ----------
    url : str
        ``redis://host:6379``, or ``rediss://`` with TLS. No connection is made before it is needed.
    watch : callable
        Is told whether Redis is away, whenever that has changed.
    patience : s or None
        ``PATIENCE`` when left out.

    Raises
    ------
    ValueError
        With a sentence that does not repeat the address, which may hold a password.
    """

    def __init__(
        self, url: str, watch: Callable[[bool], None] = lambda _: None, patience: float | None = None
    ) -> None:
        self._patience = PATIENCE if patience is None else patience
        self._pool = _pool(url, self._patience)
        self._watch = watch
        options: dict[str, Any] = {"connection_pool": self._pool}
        try:
            # The pool knows the address; what else reads addresses wants a port in each.
            storage = RedisStorage("redis://", False, "redispy", PREFIX, **options)
        except ConfigurationError:
            raise ValueError(_no_client()) from None
        self._windows = MovingWindowRateLimiter(storage)
        self._is_away = False
        self._ask_again_at = 0.0

    async def hit(self, rule: RateLimitItem, owner: str) -> float | None:
        """Count a request, unless the window is full.

        Parameters
        ----------
        rule : RateLimitItem
            How many requests a window holds, and how long it is.
        owner : str

        Returns
        -------
        float or None
            Seconds until there is room, if there is none now; what is refused is not counted.

        Raises
        ------
        AwayError
        """
        now = time.monotonic()
        if self._is_away and now < self._ask_again_at:
            raise AwayError
        # Before it is known how this one fares: meanwhile others do not wait with it.
        self._ask_again_at = now + PAUSE
        try:
            async with asyncio.timeout(self._patience):
                wait = await self._ask(rule, hashlib.sha256(owner.encode()).hexdigest())
        except Exception as error:  # whatever it is: no request fails for being counted
            self._turn(away=True, error=error)
            raise AwayError from None
        self._turn(away=False)
        return wait

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()

    async def _ask(self, rule: RateLimitItem, user: str) -> float | None:
        if await self._windows.hit(rule, user):
            return None
        ends, _ = await self._windows.get_window_stats(rule, user)
        return ends - time.time()

    def _turn(self, *, away: bool, error: Exception | None = None) -> None:
        if away == self._is_away:
            return
        self._is_away = away
        if error is not None:
            log.warning("rate_limit.alone", error=type(error).__name__)
        else:
            log.info("rate_limit.together")
        self._watch(away)


def _pool(url: str, patience: float) -> BlockingConnectionPool:
    # Whoever counts in memory needs neither the package nor its time to load.
    try:
        from redis.asyncio import BlockingConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise ValueError(_no_client()) from None
    try:
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES or not parts.hostname or parts.port == 0:
            raise ValueError
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=patience,
            socket_timeout=patience,
            socket_connect_timeout=patience,
            # The client would try for seconds otherwise.
            retry=Retry(NoBackoff(), 0),
        )
        # Options in the address that do not exist are found here, and not at the first request.
        pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):
        raise ValueError(
            "requests are counted in memory:// (each process for itself) or in redis://HOST:6379 "
            "(rediss:// with TLS), and this is no such address"
        ) from None
    return pool


def _no_client() -> str:
    return (
        "counting in Redis needs the Python package redis, which is not there or too old; install "
        "qsm-ai[api], or set memory:// and let each process count for itself"
    )
