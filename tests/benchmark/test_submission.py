"""The folders of the QSM-CI submission keep its contract: canonical files in, a map in ppm out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

pytest.importorskip("openvino")
pytest.importorskip("qsm_ci")

from qsm_ci.stages import STAGES as CONTRACT

from qsm_ai.benchmark import submission
from qsm_ai.benchmark.phantoms import Phantom
from qsm_ai.benchmark.scoring import assess

ROOT = Path(__file__).parents[2] / "benchmarks/qsm-ci"
FOLDERS = sorted(path.parent.name for path in ROOT.glob("*/algorithm.yml"))


@pytest.fixture(scope="module")
def canonical(coarse: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom as QSM-CI lays it out."""
    folder = tmp_path_factory.mktemp("canonical")
    scan = coarse.scan
    assert scan.phase is not None
    assert scan.magnitude is not None
    assert scan.mask is not None
    volumes = {
        "phase": np.moveaxis(scan.phase, 0, -1),
        "magnitude": np.moveaxis(scan.magnitude, 0, -1),
        "totalfield": coarse.total_field,
        "localfield": coarse.local_field,
        "mask": scan.mask.astype(np.uint8),
        "truth": coarse.chi,
    }
    for name, volume in volumes.items():
        nib.save(nib.Nifti1Image(volume, scan.grid.affine), folder / f"{name}.nii.gz")
    params = {
        "TE": list(scan.echo_times),
        "B0": scan.field_strength,
        "B0_dir": list(scan.b0_direction),
        "voxel_size": list(scan.grid.voxel_size),
    }
    (folder / "params.json").write_text(json.dumps(params))
    return folder


def about(folder: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((ROOT / folder / "algorithm.yml").read_text(encoding="utf-8"))
    return found


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHON": sys.executable}


def test_there_is_a_folder_for_each_stage() -> None:
    assert {about(folder)["stage"] for folder in FOLDERS} == set(submission.STAGES)


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_a_folder_tells_is_what_the_contract_wants(folder: str) -> None:
    told = about(folder)
    stage = CONTRACT[told["stage"]]
    assert told["slug"] == folder
    assert stage["produces"] == ["chimap"]
    assert set(told["inputs"]) <= set(stage["consumes"])  # type: ignore[call-overload]
    assert told.get("optional_inputs", []) == ([] if "magnitude" in told["inputs"] else ["magnitude"])  # type: ignore[operator]
    assert f"submission {told['stage']} " in (ROOT / folder / "run.sh").read_text()


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_run_script_makes_a_map_in_ppm_that_resembles_the_truth(
    folder: str, canonical: Path, coarse: Phantom, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    told = about(folder)
    for name in [*told["inputs"], *told.get("optional_inputs", [])]:  # type: ignore[misc,call-overload]
        file = f"{name}.json" if name == "params" else f"{name}.nii.gz"
        (source / file).symlink_to(canonical / file)
    if told["stage"] != "end-to-end":  # the network once is enough
        (source / "config.json").write_text('{"method": "tkd"}')
    run = subprocess.run(
        ["bash", "run.sh", source, tmp_path / "out"],
        cwd=ROOT / folder, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    image = nib.load(tmp_path / "out/chimap.nii.gz")
    np.testing.assert_allclose(image.affine, coarse.scan.grid.affine, atol=1e-4)
    chi = np.asarray(image.dataobj, np.float32)
    assert coarse.scan.mask is not None
    assert not chi[~coarse.scan.mask].any()
    assert assess(chi, coarse.chi, coarse.scan.mask).brain["correlation"] > 0.5


def test_the_public_runner_runs_and_scores_it(canonical: Path, tmp_path: Path) -> None:
    command = [
        Path(sys.executable).parent / "qsm-ci", "run", ROOT / "qsm-vit-local", "--runner", "local",
        "--localfield", canonical / "localfield.nii.gz", "--mask", canonical / "mask.nii.gz",
        "--params", canonical / "params.json", "--truth", canonical / "truth.nii.gz",
        "--set", "method=tkd", "-o", tmp_path / "chimap.nii.gz",
    ]  # fmt: skip
    run = subprocess.run(
        command, env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "chimap.nii.gz").is_file()
    assert "xsim" in run.stdout.lower()


@pytest.mark.parametrize("stage", submission.STAGES)
def test_a_magnitude_is_read_where_there_is_one(stage: str, canonical: Path, tmp_path: Path) -> None:
    assert submission.read_scan(stage, canonical).magnitude is not None
    for file in canonical.iterdir():
        if file.name != "magnitude.nii.gz":
            (tmp_path / file.name).symlink_to(file)
    assert submission.read_scan(stage, tmp_path).magnitude is None


def test_another_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="chi-separation"):
        submission.read_scan("chi-separation", tmp_path)
