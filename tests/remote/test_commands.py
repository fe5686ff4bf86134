"""What the commands for a service say before there is one."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from qsm_ai.cli import app


def test_the_list_says_where_each_scan_lies(tmp_path: Path) -> None:
    for folder in ("Mü ller", "M ller", "dicom/1"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("Mü ller", "M ller"):
        (tmp_path / folder / "phase.nii").touch()
    (tmp_path / "dicom/1/IM1").touch()
    result = CliRunner().invoke(app, ["batch", str(tmp_path), "--list"])
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert len({row[0] for row in rows}) == 3
    assert {row[2] for row in rows} == {"Mü ller", "M ller", "dicom"}
