"""A folder is as good as its files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qsm_ai.io import load_scan
from qsm_ai.io.folders import open_given
from qsm_ai.scan import PhaseRefusal

if TYPE_CHECKING:
    from tests.conftest import Files


def test_files_stay_as_they_are(files: Files) -> None:
    with open_given([files.phase], [files.magnitude], []) as found:
        assert list(found.phase) == [files.phase]
        assert list(found.magnitude) == [files.magnitude]


def test_a_bids_folder_sorts_itself(files: Files, tmp_path: Path) -> None:
    for path in (*files.echo_phase, *files.echo_magnitude):
        shutil.copy(path, tmp_path)
        sidecar = path.name.replace(".nii.gz", ".json")
        shutil.copy(path.with_name(sidecar), tmp_path)
    with open_given([tmp_path], [], []) as found:
        scan = load_scan(found.phase, found.magnitude, sidecars=found.sidecars, name=found.name)
    assert scan.name == "sub-1"
    assert scan.echo_times == pytest.approx((0.004, 0.008, 0.012))
    assert scan.magnitude is not None


def test_a_folder_without_a_telling_name_is_refused(files: Files, tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        shutil.copy(files.phase, tmp_path / name)
    with pytest.raises(PhaseRefusal, match="none whose name"), open_given([tmp_path], [], []):
        pass
