"""Temporary folders that are gone after use, and after a crash when the next who shares them starts."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Scratch:
    """Folders for files on their way, one per request or job.

    Each is locked for as long as it is used. Process ids in names would not do: containers that share the
    root each count their own.

    Parameters
    ----------
    root : Path
        Made if missing; nothing else may live in it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """A fresh folder, removed with all its content at the end, whatever happens."""
        path, lock = self._make()
        try:
            yield path
        finally:
            try:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, path, ignore_errors=True))
            finally:
                os.close(lock)

    def sweep(self) -> int:
        """Remove what nobody holds any more.

        Returns
        -------
        int
            How many folders were removed.
        """
        removed = 0
        for path in self._root.iterdir():
            try:
                lock = _lock(path)
            except (BlockingIOError, FileNotFoundError):
                continue
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
            removed += 1
        return removed

    def _make(self) -> tuple[Path, int]:
        while True:
            path = self._root / secrets.token_hex(12)
            path.mkdir(mode=0o700)
            try:
                lock = _lock(path)
            except (BlockingIOError, FileNotFoundError):
                continue  # somebody who just started sweeps it away
            if path.exists():
                return path, lock
            os.close(lock)


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
