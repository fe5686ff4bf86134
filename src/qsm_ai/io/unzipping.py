"""A zip unpacked into a folder, never more of it than was allowed."""

from __future__ import annotations

import errno
import lzma
import struct
import zipfile
import zlib
from pathlib import Path

from qsm_ai.io.source import Limits, SourceFile
from qsm_ai.io.unpacking import SEND_AGAIN
from qsm_ai.scan import Damaged, FileRefusal, NotAnImage, TooLarge

MOST_FILES = 50_000
CHUNK = 1 << 20
ZIP_MAGIC = b"PK\x03\x04"

MAKE_ROOM = "Make room in the folder for temporary files, or choose another one by setting TMPDIR."

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def unzip(source: SourceFile, folder: Path, limits: Limits) -> list[str]:
    """Unpack a zip under names of our own, so that no name in it can lead anywhere.

    Parameters
    ----------
    source : zip file
    folder : Path
    limits : Limits
        As it is stored and unpacked.

    Returns
    -------
    list of str
        The names in the zip.

    Raises
    ------
    FileRefusal
        If it is no zip, too large, damaged or locked, or there is no room for its files.
    """
    with source.open() as (stream, size):
        if size > limits.stored:
            raise TooLarge(
                f"is larger than the limit of {limits.stored >> 20:,} MiB.",
                mend="Give the multi-echo series alone.",
                file=source.name,
            )
        if not zipfile.is_zipfile(stream):
            stream.seek(0)
            if stream.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
                raise Damaged("is a zip file that ends too early.", mend=SEND_AGAIN, file=source.name)
            raise NotAnImage(
                "is neither a NIfTI image nor a zip of DICOM files.",
                mend="Give NIfTI files, or a folder or zip of DICOM files.",
                file=source.name,
            )
        try:
            with zipfile.ZipFile(stream) as archive:
                return _unpack(archive, folder, limits, source.name)
        except OSError as error:
            # The unpacker of one kind of zip says so, without a number, where bytes make no sense.
            if error.errno is None:
                raise Damaged("is a damaged zip file.", mend=SEND_AGAIN, file=source.name) from None
            is_full = error.errno in _NO_ROOM
            raise FileRefusal(
                "cannot be unpacked: there is no room for it." if is_full else "cannot be unpacked.",
                mend=MAKE_ROOM,
                file=source.name,
            ) from None
        except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error, lzma.LZMAError, struct.error,
                ValueError):  # fmt: skip
            raise Damaged("is a damaged zip file.", mend=SEND_AGAIN, file=source.name) from None
        except RuntimeError:
            raise FileRefusal(
                "is a zip file with a password.", mend="Give it without one.", file=source.name
            ) from None


def _unpack(archive: zipfile.ZipFile, folder: Path, limits: Limits, name: str) -> list[str]:
    members = [m for m in archive.infolist() if not m.is_dir()]
    if len(members) > MOST_FILES:
        raise TooLarge(
            f"holds more than {MOST_FILES} files.", mend="Give the multi-echo series alone.", file=name
        )
    room = limits.unpacked
    for number, member in enumerate(members):
        with archive.open(member) as packed, (folder / f"{number:06d}").open("wb") as file:
            # Counted as it unfolds: what the zip says about itself may be wrong.
            while piece := packed.read(CHUNK):
                room -= len(piece)
                if room < 0:
                    raise TooLarge(
                        f"unpacks to more than the limit of {limits.unpacked >> 20:,} MiB.",
                        mend="Give the multi-echo series alone.",
                        file=name,
                    )
                file.write(piece)
    return [member.filename for member in members]
