"""Where the bytes of an input come from: a path, bytes in memory, or an open (spooled) file."""

from __future__ import annotations

import errno
import io
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from qsm_ai.scan import FileRefusal

GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """How much an input may take.

    Attributes
    ----------
    stored : bytes
        Of one file, as it is stored or sent.
    unpacked : bytes
        Of all images of one kind (phase, magnitude) of a scan, unpacked, held as float32.
    """

    stored: int = GIB
    unpacked: int = 2 * GIB


@dataclass(frozen=True)
class SourceFile:
    """One input file.

    Attributes
    ----------
    name : str
        What the user calls it, without any folder.
    content : Path, bytes or binary file object
        A file object must be seekable; it is read from its start and left open.
    """

    name: str
    content: Path | bytes | BinaryIO

    @classmethod
    def of(cls, given: SourceFile | str | Path) -> SourceFile:
        """A source from a path; a source stays as it is."""
        if isinstance(given, SourceFile):
            # Browsers on some systems send whole paths as file names.
            return cls(given.name.replace("\\", "/").rsplit("/", 1)[-1], given.content)
        path = Path(given)
        return cls(path.name, path)

    @property
    def path(self) -> Path | None:
        """Of the file, where it has one."""
        return self.content if isinstance(self.content, Path) else None

    @property
    def stem(self) -> str:
        """The name without ``.nii``, ``.nii.gz`` or ``.json``."""
        return stem(self.name)

    @contextmanager
    def open(self) -> Iterator[tuple[BinaryIO, int]]:
        """The file at its start, and its size in bytes.

        Raises
        ------
        FileRefusal
            If it does not exist, is a folder or a pipe, or cannot be read.
        """
        if isinstance(self.content, Path):
            with _opened(self.content, self.name) as stream:
                yield stream, _size(stream)
        elif isinstance(self.content, bytes):
            yield io.BytesIO(self.content), len(self.content)
        else:
            size = _size(self.content)
            yield self.content, size


def require_readable(files: Iterable[SourceFile | Path | None]) -> None:
    """Refuse what cannot be read, before any other question is asked.

    Parameters
    ----------
    files : sources or paths
        None for what was not given.

    Raises
    ------
    FileRefusal
    """
    for file in files:
        if file is not None:
            with SourceFile.of(file).open():
                pass


def _opened(path: Path, name: str) -> BinaryIO:
    try:
        # Asked before it is opened: a pipe that nobody writes to would never open.
        kind = path.stat().st_mode
        if stat.S_ISREG(kind):
            return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise FileRefusal("does not exist.", mend="Check the spelling and the folder.", file=name) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise FileRefusal(
                "has a longer name than a file can have.", mend="Check the spelling.", file=name
            ) from None
        raise FileRefusal(
            "cannot be opened.", mend="Check that you may read it and enter its folder.", file=name
        ) from None
    if stat.S_ISDIR(kind):
        raise FileRefusal("is a folder.", mend="Give a NIfTI file.", file=name)
    raise FileRefusal(
        "is a pipe or a device, which can be read once only.", mend="Save it as a file first.", file=name
    )


def stem(name: str) -> str:
    """A file name without the extensions that images and sidecars carry."""
    lower = name.lower()
    for extension in (".nii.gz", ".nii", ".json", ".gz"):
        if lower.endswith(extension):
            return name[: -len(extension)]
    return name


def _size(stream: BinaryIO) -> int:
    stream.seek(0, io.SEEK_END)
    size = stream.tell()
    stream.seek(0)
    return size
