"""Reading a file that may be gzipped, never more of it than was asked for."""

from __future__ import annotations

import zlib
from typing import BinaryIO

from qsm_ai.scan import Damaged, TooLarge, Truncated

CHUNK = 1 << 18
GZIP_MAGIC = b"\x1f\x8b"
HIGHEST_RATIO = 1032
"""DEFLATE cannot pack better than this."""

SEND_AGAIN = "Copy or export the file again."


class BoundedReader:
    """Reads a plain or gzipped stream piece by piece, so that a bomb never unfolds.

    Parameters
    ----------
    stream : binary file at its start
    name : str
        For refusals.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name
        head = stream.read(2)
        stream.seek(0)
        self.gzipped = head == GZIP_MAGIC
        self._member = zlib.decompressobj(wbits=31) if self.gzipped else None
        self._pending = b""
        self._ended = False

    def read(self, count: int) -> bytes:
        """Read up to ``count`` bytes; fewer only at the end."""
        pieces = []
        while count > 0 and (piece := self._some(count)):
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def read_exactly(self, count: int) -> bytes:
        """Exactly ``count`` bytes.

        Raises
        ------
        Truncated
            If the file ends before.
        """
        data = self.read(count)
        if len(data) < count:
            raise Truncated("ends before its image does.", mend=SEND_AGAIN, file=self._name)
        return data

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes."""
        while count > 0:
            count -= len(self.read_exactly(min(count, CHUNK)))

    def finish(self, tolerated: int) -> None:
        """Read to the end, where the checksum stands.

        Parameters
        ----------
        tolerated : bytes
            That some writers append to the image.

        Raises
        ------
        TooLarge
            If much more follows: a gzip bomb, or a header that belongs to another image.
        """
        while piece := self._some(CHUNK):
            tolerated -= len(piece)
            if tolerated < 0:
                raise TooLarge(
                    "holds far more data than its header announces.", mend=SEND_AGAIN, file=self._name
                )

    def _some(self, most: int) -> bytes:
        """At least one byte, at most ``most``; none at the end."""
        most = min(most, CHUNK)
        if self._member is None:
            return self._stream.read(most)
        while not self._ended:
            packed = self._pending or self._stream.read(CHUNK)
            if not packed and not self._member.eof:
                raise Truncated("is a gzip file that ends too early.", mend=SEND_AGAIN, file=self._name)
            try:
                piece = self._member.decompress(packed, most)
            except zlib.error:
                raise Damaged(
                    "is a damaged gzip file: its content does not match its checksum.",
                    mend=SEND_AGAIN,
                    file=self._name,
                ) from None
            self._pending = self._member.unconsumed_tail
            if self._member.eof:
                self._next_member(self._member.unused_data)
            if piece:
                return piece
        return b""

    def _next_member(self, rest: bytes) -> None:
        """After a gzip member comes another one, padding with zeros, or the end."""
        while True:
            # Zeros are legal padding of blocks on tapes; anything else is not.
            rest = rest.lstrip(b"\0")
            if rest:
                break
            rest = self._stream.read(CHUNK)
            if not rest:
                self._ended = True
                return
        if len(rest) == 1:
            rest += self._stream.read(1)
        if not rest.startswith(GZIP_MAGIC):
            raise Damaged("carries foreign bytes behind its gzip data.", mend=SEND_AGAIN, file=self._name)
        self._member = zlib.decompressobj(wbits=31)
        self._pending = rest
