"""Where bytes come from: a refusal in words for everything that is no file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qsm_ai.io.source import SourceFile
from qsm_ai.scan import FileRefusal


def refusal(path: Path) -> FileRefusal:
    with pytest.raises(FileRefusal) as caught, SourceFile.of(path).open():
        pass
    assert caught.value.file == path.name
    return caught.value


@pytest.mark.timeout(20)
def test_a_pipe_that_nobody_writes_to_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "phase.nii.gz")
    found = refusal(tmp_path / "phase.nii.gz")
    assert "pipe" in found.sentence
    assert "Save it as a file" in found.mend


def test_a_process_substitution_is_a_pipe_too() -> None:
    reading, writing = os.pipe()
    try:
        assert "pipe" in refusal(Path(f"/dev/fd/{reading}")).sentence
    finally:
        os.close(reading)
        os.close(writing)


def test_a_name_that_no_file_can_have_is_said_so(tmp_path: Path) -> None:
    assert "longer name" in refusal(tmp_path / ("a" * 300 + ".nii")).sentence


@pytest.mark.parametrize("place", ["missing.nii", "file.nii/phase.nii"])
def test_a_missing_file_is_missing(tmp_path: Path, place: str) -> None:
    (tmp_path / "file.nii").write_bytes(b"")
    assert "does not exist" in refusal(tmp_path / place).sentence


def test_a_circle_of_links_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "a.nii").symlink_to(tmp_path / "a.nii")
    assert "cannot be opened" in refusal(tmp_path / "a.nii").sentence


def test_a_folder_that_may_not_be_entered_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", denied)
    assert "enter its folder" in refusal(tmp_path / "a.nii").mend


def test_names_are_taken_apart_without_waiting_for_scipy() -> None:
    program = "import sys, qsm_ai.io.bids; print('scipy' in sys.modules, 'nibabel' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
