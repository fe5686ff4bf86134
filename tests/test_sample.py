"""The sample is a BIDS data set that reads back as what was simulated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from qsm_ai.io import load_scan
from qsm_ai.sample import Sample, simulate_sample, write_sample
from qsm_ai.scan import Grid, OutputRefusal

if TYPE_CHECKING:
    from tests.conftest import Phantom


@pytest.fixture
def sample(phantom: Phantom) -> Sample:
    return Sample(
        "sub-sample", Grid(phantom.chi.shape, phantom.affine), phantom.phase, phantom.magnitude,
        (0.004, 0.008, 0.012), 3.0, phantom.chi, phantom.mask,
    )  # fmt: skip


def test_it_reads_back_without_a_single_option(sample: Sample, phantom: Phantom, tmp_path: Path) -> None:
    files = write_sample(sample, tmp_path / "new")
    scan = load_scan(files.phase, files.magnitude)
    assert scan.name == "sub-sample"
    assert scan.echo_times == (0.004, 0.008, 0.012)
    assert scan.field_strength == 3.0
    np.testing.assert_allclose(scan.phase, phantom.phase, atol=0.001)
    np.testing.assert_allclose(scan.b0_direction, phantom.b0_direction, atol=1e-6)
    np.testing.assert_array_equal(nib.load(files.chi).get_fdata(dtype=np.float32), phantom.chi)
    np.testing.assert_array_equal(nib.load(files.mask).get_fdata() > 0, phantom.mask)


def test_it_is_laid_out_as_bids(sample: Sample, tmp_path: Path) -> None:
    write_sample(sample, tmp_path)
    anat = tmp_path / "sub-sample" / "anat"
    assert {p.name for p in anat.iterdir()} == {
        f"sub-sample_echo-{e}_part-{part}_MEGRE.{kind}"
        for e in (1, 2, 3)
        for part in ("phase", "mag")
        for kind in ("nii.gz", "json")
    }
    truth = tmp_path / "derivatives" / "qsm-ai" / "sub-sample" / "anat"
    assert (truth / "sub-sample_desc-true_Chimap.nii.gz").is_file()
    for description in (tmp_path, tmp_path / "derivatives" / "qsm-ai"):
        content = json.loads((description / "dataset_description.json").read_text())
        assert content["BIDSVersion"]
    assert nib.load(anat / "sub-sample_echo-1_part-phase_MEGRE.nii.gz").get_data_dtype() == np.int16


def test_writing_twice_gives_the_same_bytes(sample: Sample, tmp_path: Path) -> None:
    first = {p.name: p.read_bytes() for p in _written(sample, tmp_path)}
    second = {p.name: p.read_bytes() for p in _written(sample, tmp_path)}
    assert first == second


def test_a_folder_that_cannot_be_made_is_refused(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputRefusal):
        write_sample(sample, tmp_path / "file")


def test_the_simulated_head_is_the_same_every_time_and_tilted() -> None:
    first, second = (simulate_sample(voxel_size=(4.0, 4.0, 4.0)) for _ in range(2))
    np.testing.assert_array_equal(first.phase, second.phase)
    np.testing.assert_array_equal(first.magnitude, second.magnitude)
    np.testing.assert_array_equal(first.chi, second.chi)
    assert first.phase.shape == (4, *first.grid.shape)
    assert abs(first.grid.b0_direction[2]) < 0.99
    litres = first.mask.sum() * 0.004**3 * 1000
    assert 0.9 < litres < 1.8
    inside = first.chi[first.mask]
    assert inside.max() > 0.08
    assert inside.min() < -0.5, "a calcification"
    assert not first.chi[~first.mask].any()


def _written(sample: Sample, folder: Path) -> list[Path]:
    write_sample(sample, folder)
    return [p for p in sorted(folder.rglob("*")) if p.is_file()]
