"""The trained network through the command line: in process, and on a real Triton."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from qsm_ai.inference.errors import InferenceFailure
from qsm_ai.inference.repository import model_file
from qsm_ai.inference.server import TritonServer
from qsm_ai.reconstruction.stages import STAGES

if TYPE_CHECKING:
    from tests.conftest import Files

PROGRAM = Path(sys.executable).with_name("qsm-ai")


@pytest.fixture(scope="module", autouse=True)
def _weights() -> None:
    try:
        model_file()
    except InferenceFailure as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def triton() -> Iterator[TritonServer]:
    with TritonServer(precision="f32") as server:
        yield server


def reconstruct(files: Files, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "reconstruct", *files.echo_phase, "--magnitude", *files.echo_magnitude,
         "--mask", files.mask, "--output", out, *more],
        capture_output=True, text=True, timeout=250, check=False, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip


@pytest.mark.slow  # tests/api/test_triton.py and tests/inference/test_openvino.py compare the two, too
def test_both_give_the_same_map_to_rounding(files: Files, triton: TritonServer, tmp_path: Path) -> None:
    here = reconstruct(files, tmp_path / "here", "--precision", "f32")
    there = reconstruct(files, tmp_path / "there", "--triton", triton.grpc_url)
    assert here.returncode == 0, here.stderr
    assert there.returncode == 0, there.stderr
    maps = [nib.load(tmp_path / way / "sub-1_Chimap.nii.gz").get_fdata() for way in ("here", "there")]
    assert maps[0].std() > 1e-3
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-5)
    reports = [json.loads((tmp_path / way / "sub-1_qsm.json").read_text()) for way in ("here", "there")]
    assert "in process" in reports[0]["network"]
    assert "Triton" in reports[1]["network"]
    for report in reports:
        assert [stage["name"] for stage in report["stages"]] == [stage.name for stage in STAGES]
        assert "QSM-ViT" in report["methods"]


def test_a_server_that_went_away_is_said_plainly(files: Files, triton: TritonServer, tmp_path: Path) -> None:
    done = reconstruct(files, tmp_path / "out", "--triton", "127.0.0.1:9")
    assert done.returncode == 1
    assert "No Triton server answers" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
