"""Keys that were shown lately: believed for a second, then looked at again, all of them at once.

Whoever looks how a job stands shows the same key again and again. To ask the database each time would cost
more than the answer. What is remembered is a hash of the key, in memory, for as long as it is in use.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from qsm_ai.access.keys import Key, KeyStore

BELIEVED_FOR = 1.0
"""Seconds for which a key is believed without a look at the database: a revoked one works no longer."""

KEPT_FOR = 60.0
"""Seconds without use after which a key is not remembered any more."""

MOST = 10_000
"""Keys that are remembered; others are looked up each time."""


@dataclass
class _Held:
    key: Key
    used_at: float


class KeyRing:
    """Verifies keys; asks the database once a second for all keys in use.

    Parameters
    ----------
    store : KeyStore
    clock : callable
        Seconds; for tests.
    """

    def __init__(self, store: KeyStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._held: dict[bytes, _Held] = {}
        self._looked_at = clock()
        self._looking = asyncio.Lock()
        self._used: dict[str, Key] = {}
        self._noting: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._held)

    async def verify(self, text: str) -> Key:
        """The record of a key that lets in.

        Raises
        ------
        KeyRefusedError
        """
        digest = hashlib.sha256(text.encode()).digest()
        if digest in self._held and self._clock() - self._looked_at > BELIEVED_FOR:
            await self._look_again()
        held = self._held.get(digest)
        if held is not None:
            held.used_at = self._clock()
            return held.key
        # Taken before the look: what is revoked meanwhile is found by the next one.
        began = self._clock()
        key = await self._store.database.look_up(self._store.find, text)
        self._note([key])
        if not self._held:
            self._looked_at = began
        if len(self._held) < MOST:
            self._held[digest] = _Held(key, began)
        return key

    async def _look_again(self) -> None:
        async with self._looking:
            began = self._clock()
            if began - self._looked_at <= BELIEVED_FOR:
                return
            before = dict(self._held)
            ids = [held.key.id for held in before.values() if began - held.used_at < KEPT_FOR]
            good = await self._store.database.look_up(self._store.still_good, ids)
            used = (held.key.id for held in before.values() if held.used_at >= self._looked_at)
            self._note([good[key_id] for key_id in used if key_id in good])
            # What came meanwhile was looked up by itself.
            self._held = {
                digest: held
                for digest, held in self._held.items()
                if digest not in before or held.key.id in good
            }
            self._looked_at = began

    def _note(self, keys: list[Key]) -> None:
        """Have the use of keys written down; nobody waits for that."""
        self._used |= {key.id: key for key in keys}
        if self._used and (self._noting is None or self._noting.done()):
            self._noting = asyncio.create_task(self._write_notes())

    async def _write_notes(self) -> None:
        while self._used:
            keys, self._used = list(self._used.values()), {}
            await asyncio.to_thread(self._store.note_use, keys)
