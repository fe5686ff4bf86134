"""Echo times are those of the images, and a refusal names the file that is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from qsm_ai.io.loading import load_scan
from qsm_ai.io.source import SourceFile
from qsm_ai.scan import EchoTimeRefusal, GridRefusal, SidecarRefusal

if TYPE_CHECKING:
    from tests.conftest import Files


@pytest.fixture
def copied(files: Files, tmp_path: Path) -> tuple[list[Path], list[Path]]:
    """Phase and magnitude of every echo, with sidecars that a test may change."""
    for path in (*files.echo_phase, *files.echo_magnitude):
        shutil.copy(path, tmp_path)
        shutil.copy(path.with_name(path.name.replace(".nii.gz", ".json")), tmp_path)
    return [tmp_path / p.name for p in files.echo_phase], [tmp_path / p.name for p in files.echo_magnitude]


def sidecar(image: Path) -> Path:
    return image.with_name(image.name.replace(".nii.gz", ".json"))


def write(image: Path, **values: Any) -> None:
    sidecar(image).write_text(json.dumps({"MagneticFieldStrength": 3} | values))


@pytest.mark.parametrize("time", [12, 12000, 0, -0.012])
def test_the_sidecar_that_is_wrong_is_named(copied: tuple[list[Path], list[Path]], time: float) -> None:
    write(copied[0][2], EchoTime=time)
    with pytest.raises(EchoTimeRefusal) as caught:
        load_scan(copied[0])
    assert sidecar(copied[0][2]).name in str(caught.value)
    assert "sub-1_echo-1" not in str(caught.value)
    assert "Correct EchoTime there" in caught.value.mend


def test_sidecars_that_are_all_in_milliseconds_are_mended_by_one_option(
    copied: tuple[list[Path], list[Path]],
) -> None:
    for path, time in zip(copied[0], (4, 8, 12), strict=True):
        write(path, EchoTime=time)
    with pytest.raises(EchoTimeRefusal, match="--te-ms 4 8 12"):
        load_scan(copied[0])


@pytest.mark.parametrize("change", [{}, None])
def test_the_image_without_an_echo_time_is_named(
    copied: tuple[list[Path], list[Path]], change: dict[str, Any] | None
) -> None:
    sidecar(copied[0][1]).unlink() if change is None else write(copied[0][1], **change)
    with pytest.raises(EchoTimeRefusal, match="2 echo times for 3 echoes") as caught:
        load_scan(copied[0], b0=3)
    assert caught.value.file == copied[0][1].name


def test_the_sidecar_whose_time_does_not_increase_is_named(copied: tuple[list[Path], list[Path]]) -> None:
    write(copied[0][2], EchoTime=0.008)
    with pytest.raises(EchoTimeRefusal, match="4, 8, 8 ms") as caught:
        load_scan(copied[0])
    assert caught.value.file == sidecar(copied[0][2]).name
    with pytest.raises(EchoTimeRefusal) as caught:
        load_scan(copied[0], te_ms=[4, 8, 8])
    assert caught.value.file is None


def test_an_echo_time_of_hundreds_of_digits_is_no_number(files: Files) -> None:
    content = SourceFile("s.json", b'{"EchoTime": [0.004, 0.008, 1' + b"0" * 400 + b"]}")
    with pytest.raises(SidecarRefusal, match="no number"):
        load_scan([files.phase], sidecars=[content], b0=3)


def test_a_magnitude_of_another_echo_is_refused_by_its_name(copied: tuple[list[Path], list[Path]]) -> None:
    phase, magnitude = copied
    other = magnitude[2].with_name(magnitude[2].name.replace("echo-3", "echo-4"))
    magnitude[2].rename(other)
    with pytest.raises(GridRefusal, match="echo 4") as caught:
        load_scan(phase, [*magnitude[:2], other], te_ms=[4, 8, 12])
    assert caught.value.file == other.name
    assert phase[2].name in str(caught.value)


def test_a_magnitude_of_another_echo_is_refused_by_its_sidecar(
    copied: tuple[list[Path], list[Path]],
) -> None:
    phase, magnitude = copied
    write(magnitude[2], EchoTime=0.016)
    with pytest.raises(GridRefusal, match="16 ms here, 12 ms in") as caught:
        load_scan(phase, magnitude)
    assert caught.value.file == magnitude[2].name
    assert load_scan(phase, magnitude, te_ms=[4, 8, 12]).magnitude is not None


@pytest.mark.parametrize("content", ['{"EchoTime": 0.01205}', "{}", "no JSON", '{"EchoTime": "long"}'])
def test_a_sidecar_of_the_magnitude_need_not_be_right(
    copied: tuple[list[Path], list[Path]], content: str
) -> None:
    sidecar(copied[1][2]).write_text(content)
    assert load_scan(*copied).magnitude is not None
