"""A zip is unpacked completely, or it is said why not."""

from __future__ import annotations

import errno
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qsm_ai.io.source import Limits, SourceFile
from qsm_ai.io.unzipping import unzip
from qsm_ai.scan import Damaged, FileRefusal

CONTENT = np.random.default_rng(1).integers(0, 40, 60_000, dtype=np.uint8).tobytes()


def packed(compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("a/b.dcm", CONTENT)
    return file.getvalue()


def test_names_are_ours(tmp_path: Path) -> None:
    assert unzip(SourceFile("a.zip", packed(zipfile.ZIP_DEFLATED)), tmp_path, Limits()) == ["a/b.dcm"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"000000": CONTENT}


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
@pytest.mark.parametrize("at", [60, 500, 5000])
def test_damaged_data_is_refused(tmp_path: Path, compression: int, at: int) -> None:
    content = bytearray(packed(compression))
    for i in range(at, at + 60):
        content[i] ^= 0xFF
    with pytest.raises(Damaged, match="damaged zip") as caught:
        unzip(SourceFile("a.zip", bytes(content)), tmp_path, Limits())
    assert caught.value.file == "a.zip"


def test_half_a_zip_is_a_zip(tmp_path: Path) -> None:
    content = packed(zipfile.ZIP_DEFLATED)
    with pytest.raises(Damaged, match="ends too early"):
        unzip(SourceFile("a.zip", content[: len(content) // 2]), tmp_path, Limits())


def test_a_full_disk_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    source = SourceFile("a.zip", packed(zipfile.ZIP_DEFLATED))
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(FileRefusal, match="no room") as caught:
        unzip(source, tmp_path, Limits())
    assert not isinstance(caught.value, Damaged)
    assert "TMPDIR" in caught.value.mend
