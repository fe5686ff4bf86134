"""Temporary folders that are gone after use, and after a crash at the next start."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Scratch:
    """Folders for files on their way, one per request or job.

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
        path = self._root / f"{os.getpid()}-{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        try:
            yield path
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, path, ignore_errors=True))

    def sweep(self) -> int:
        """Remove what processes left that are no more; call it before the first folder is made.

        Returns
        -------
        int
            How many folders were removed.
        """
        removed = 0
        for entry in self._root.iterdir():
            pid = entry.name.partition("-")[0]
            if pid.isdigit() and int(pid) != os.getpid() and is_alive(int(pid)):
                continue
            shutil.rmtree(entry, ignore_errors=True)
            removed += 1
        return removed


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
