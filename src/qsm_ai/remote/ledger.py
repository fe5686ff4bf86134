"""What a batch has done so far, in a file, so that it goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from qsm_ai.scan import OutputRefusal

NAME = ".qsm-ai-batch.json"

Outcome = Literal["open", "done", "failed"]


@dataclass(frozen=True)
class Entry:
    """One scan of a batch.

    Attributes
    ----------
    key : str
        Of files and options together: another scan or other options make another key.
    state : str
    job : str or None
        On the service.
    problem : str or None
        Why it failed.
    files : tuple of str
        Results, relative to the folder of all results.
    score : float or None
        Of the physics check, the weight of the consistency, and how unfamiliar the scan is.
    """

    key: str
    state: Outcome = "open"
    job: str | None = None
    problem: str | None = None
    files: tuple[str, ...] = ()
    score: float | None = None


class Ledger:
    """Entries by scan, written down after every change.

    Parameters
    ----------
    folder : Path
        Of all results; made if missing.

    Raises
    ------
    OutputRefusal
        If the folder cannot be written, or the file there is not such a ledger.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            told = json.loads(self._path.read_text()) if self._path.exists() else {"scans": {}}
            self._entries = {
                name: Entry(**{**entry, "files": tuple(entry["files"])})
                for name, entry in told["scans"].items()
            }
            self._write()
        except OSError as error:
            raise _not_written(error) from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise OutputRefusal(
                "is not the state of a batch.", mend="Remove it to begin from the start.", file=NAME
            ) from None

    def get(self, name: str, key: str) -> Entry:
        """What is known of a scan; nothing, if its files or options have changed."""
        entry = self._entries.get(name)
        return entry if entry is not None and entry.key == key else Entry(key)

    def is_done(self, name: str, key: str) -> bool:
        """Whether the results are there."""
        entry = self.get(name, key)
        return entry.state == "done" and all((self._folder / file).is_file() for file in entry.files)

    def note(self, name: str, entry: Entry, **changes: Any) -> Entry:
        """Write down what became of a scan.

        Raises
        ------
        OutputRefusal
            If that cannot be written.
        """
        self._entries[name] = replace(entry, **changes)
        try:
            self._write()
        except OSError as error:
            raise _not_written(error) from None
        return self._entries[name]

    def _write(self) -> None:
        told = {"version": 1, "scans": {name: asdict(entry) for name, entry in self._entries.items()}}
        partial = self._path.with_name(NAME + ".part")
        with partial.open("w") as file:
            json.dump(told, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)


def _not_written(error: OSError) -> OutputRefusal:
    return OutputRefusal(
        f"The results cannot be written there ({error.strerror}).",
        mend="Choose another folder with --output.",
    )


def key_of(files: Iterable[tuple[str, Path]], options: Mapping[str, Any]) -> str:
    """A key of 64 characters for a scan's files (role, path) by content, and its options."""
    told = [(role, path.name, _sha256(path)) for role, path in files]
    text = json.dumps([sorted(told), dict(sorted(options.items()))])
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
