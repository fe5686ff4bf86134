"""The command line of a service: submit, status, jobs, fetch, cancel, retry, delete, batch."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from qsm_ai.cli import app
from qsm_ai.inference.ports import any_free

GIVEN = ["--te-ms", "4", "8", "12", "--b0", "3", "--method", "tkd"]


@pytest.fixture
def qsm_ai(backend: Any, client: Any) -> Callable[..., Result]:
    def run(*arguments: object, url: str = backend.url) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments)], env={"QSM_URL": url, "QSM_API_KEY": ""})

    return run


@pytest.fixture
def dataset(files: Any, tmp_path: Path) -> Path:
    """Two subjects, and one whose echo times are missing."""
    root = tmp_path / "dataset"
    for subject in ("sub-1", "sub-2", "sub-3"):
        anat = root / subject / "anat"
        anat.mkdir(parents=True)
        for path in (*files.echo_phase, *files.echo_magnitude):
            name = path.name.replace("sub-1", subject)
            shutil.copy(path, anat / name)
            if subject != "sub-3":
                sidecar = name.replace(".nii.gz", ".json")
                shutil.copy(path.with_name(path.name.replace(".nii.gz", ".json")), anat / sidecar)
    return root


def test_a_scan_is_sent_looked_at_fetched_and_deleted(qsm_ai: Any, files: Any, tmp_path: Path) -> None:
    sent = qsm_ai("submit", files.phase, "--magnitude", files.magnitude, "--mask", files.mask, *GIVEN)
    assert sent.exit_code == 0, sent.output
    job = sent.stdout.strip()
    stands = qsm_ai("status", job, "--follow", "-q")
    assert stands.exit_code == 0, stands.output
    assert "State    done" in stands.stdout
    assert "The map explains" in stands.stdout
    assert job in qsm_ai("jobs", "--json").stdout
    assert qsm_ai("jobs", "--state", "failed", "--json").stdout == ""
    out = tmp_path / "out"
    fetched = qsm_ai("fetch", job, "--output", out)
    assert fetched.exit_code == 0, fetched.output
    assert {path.name for path in out.iterdir()} >= {
        "phase_Chimap.nii.gz", "phase_mask.nii.gz", "phase_qsm.json", "phase_qsm.html", "phase_Chimap.png"
    }  # fmt: skip
    assert nib.load(out / "phase_Chimap.nii.gz").shape == (48, 44, 40)
    one = qsm_ai("fetch", job, "-o", tmp_path / "one", "--artefact", "chi")
    assert one.stdout.strip() == str(tmp_path / "one/phase_Chimap.nii.gz")
    assert qsm_ai("fetch", job, "--artefact", "nothing").exit_code == 2
    assert qsm_ai("delete", job).exit_code == 0
    gone = qsm_ai("status", job)
    assert gone.exit_code == 2
    assert "nothing here" in gone.stderr


def test_sending_and_fetching_at_once_gives_what_reconstructing_here_gives(
    qsm_ai: Any, files: Any, tmp_path: Path
) -> None:
    there = qsm_ai("submit", *files.echo_phase, "--magnitude", *files.echo_magnitude, "--method", "tkd",
                   "--output", tmp_path / "there", "-q")  # fmt: skip
    assert there.exit_code == 0, there.output
    here = qsm_ai("reconstruct", *files.echo_phase, "--magnitude", *files.echo_magnitude, "--method", "tkd",
                  "--output", tmp_path / "here", "-q")  # fmt: skip
    assert here.exit_code == 0, here.output
    name = "sub-1_Chimap.nii.gz"
    assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_nothing_of_a_patient_in_a_sidecar_is_sent(
    qsm_ai: Any, files: Any, backend: Any, client: Any
) -> None:
    job = qsm_ai("submit", *files.echo_phase, "--method", "tkd").stdout.strip()
    stored = [path.read_bytes() for path in backend.files if job in str(path)]
    assert stored
    assert any(b"EchoTime" in content for content in stored)
    assert not any(b"Doe" in content for content in stored)


def test_jobs_are_stopped_and_started_again(qsm_ai: Any, large: Any, client: Any) -> None:
    job = qsm_ai(
        "submit", "--local-field", large["local_field"], "--mask", large["mask"], "--method", "tv"
    ).stdout.strip()
    assert qsm_ai("cancel", job).exit_code == 0
    client.until(job, "cancelled")
    assert qsm_ai("status", job).exit_code == 1
    assert qsm_ai("retry", job).exit_code == 0
    assert client.job(job)["state"] in ("queued", "running")


def test_refusals_are_a_sentence_and_another_exit_status(qsm_ai: Any, files: Any) -> None:
    refused = qsm_ai("submit", files.phase, "--te-ms", "4", "8", "--b0", "3")
    assert refused.exit_code == 2
    assert "echo" in refused.stderr
    assert "Traceback" not in refused.output
    away = qsm_ai("status", "0" * 32, url=f"http://127.0.0.1:{any_free()}")
    assert away.exit_code == 1
    assert "cannot be reached" in away.stderr


def test_the_same_scan_sent_twice_with_a_key_makes_one_job(qsm_ai: Any, files: Any) -> None:
    sent = [qsm_ai("submit", files.phase, *GIVEN, "--idempotency-key", "once").stdout for _ in range(2)]
    assert sent[0] == sent[1]


def test_a_dataset_is_reconstructed_into_derivatives(qsm_ai: Any, dataset: Path, client: Any) -> None:
    done = qsm_ai("batch", dataset, "--method", "tkd", "-q")
    assert done.exit_code == 1, done.output
    results = dataset / "derivatives/qsm-ai"
    for subject in ("sub-1", "sub-2"):
        chi = nib.load(results / subject / f"anat/{subject}_Chimap.nii.gz")
        assert np.isfinite(chi.get_fdata()).all()
    assert not (results / "sub-3").exists()
    description = json.loads((results / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert "2 of 3 scans done; 1 failed." in done.stdout
    assert "field strength" in " ".join(done.stdout.replace("│", " ").split())

    jobs = len(client.get("/api/v1/jobs").json()["jobs"])
    again = qsm_ai("batch", dataset, "--method", "tkd", "-q", "--only", "sub-1", "--only", "sub-2")
    assert again.exit_code == 0
    assert again.stdout.count("was there already") == 2
    assert len(client.get("/api/v1/jobs").json()["jobs"]) == jobs

    mended = qsm_ai("batch", dataset, *GIVEN, "-q", "--only", "sub-3", "--delete")
    assert mended.exit_code == 0, mended.output
    assert (results / "sub-3/anat/sub-3_Chimap.nii.gz").is_file()
    assert len(client.get("/api/v1/jobs").json()["jobs"]) == jobs


def test_a_batch_killed_in_the_middle_goes_on_with_the_same_jobs(
    backend: Any, client: Any, files: Any, large: Any, tmp_path: Path
) -> None:
    root = tmp_path / "scans"
    for name in ("a", "b", "c"):
        (root / name).mkdir(parents=True)
        shutil.copy(files.phase, root / name / "phase.nii.gz")
        # Three different scans: the same one would be one job.
        image = nib.load(files.phase)
        nib.save(nib.Nifti1Image(np.roll(image.get_fdata(), ord(name) % 7, 0), image.affine),
                 root / name / "phase.nii.gz")  # fmt: skip
    # A long job before them, so that they wait.
    first = client.submit(large, method="tv").json()
    client.until(first["id"], "running")
    command = [Path(sys.executable).with_name("qsm-ai"), "batch", root, *GIVEN, "-q"]
    environment = {**os.environ, "QSM_URL": backend.url}
    running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(before := ids(client) - {first["id"]}) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    running.send_signal(signal.SIGKILL)
    running.wait()
    client.post(f"/api/v1/jobs/{first['id']}/cancel")
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert ids(client) - {first["id"]} == before
    assert len(list(root.rglob("*_Chimap.nii.gz"))) == 3


def ids(client: httpx.Client) -> set[str]:
    return {job["id"] for job in client.get("/api/v1/jobs").json()["jobs"]}


def test_a_batch_can_be_computed_here(qsm_ai: Any, dataset: Path) -> None:
    nowhere = f"http://127.0.0.1:{any_free()}"
    done = qsm_ai("batch", dataset, "--local", "--method", "tkd", "--only", "sub-1", "-q", url=nowhere)
    assert done.exit_code == 0, done.output
    assert (dataset / "derivatives/qsm-ai/sub-1/anat/sub-1_Chimap.nii.gz").is_file()


def test_an_empty_folder_is_refused(qsm_ai: Any, tmp_path: Path) -> None:
    refused = qsm_ai("batch", tmp_path)
    assert refused.exit_code == 2
    assert "No scan was found" in refused.stderr
    assert list(tmp_path.iterdir()) == []
