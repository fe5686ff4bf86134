"""The Python client does what the API can, against a real backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

from qsm_ai.client import Client, ServiceError
from qsm_ai.inference.ports import any_free


@pytest.fixture
def python(backend: Any, client: Any) -> Any:
    with Client(backend.url) as python:
        yield python


def test_a_scan_is_sent_followed_fetched_and_deleted(python: Client, files: Any, tmp_path: Path) -> None:
    job = python.submit(
        phase=[files.phase],
        magnitude=[files.magnitude],
        mask=files.mask,
        te_ms=[4, 8, 12],
        b0=3,
        method="tkd",
    )
    told = list(python.follow(job.id))
    assert told[-1].require_done().state == "done"
    assert [t.fraction for t in told] == sorted(t.fraction for t in told)
    assert {artefact.name for artefact in told[-1].artefacts} >= {"chi", "mask"}
    chi = python.fetch(job.id, "chi", tmp_path / "chi.nii.gz")
    assert nib.Nifti1Image.from_filename(chi).shape == (48, 44, 40)
    assert [path.name for path in tmp_path.iterdir()] == ["chi.nii.gz"]
    assert python.slice(job.id, axis="coronal", index=3, window=(-0.1, 0.1)).startswith(b"\x89PNG")
    assert [found.id for found in python.jobs("done")] == [job.id]
    python.delete(job.id)
    assert list(python.jobs()) == []


def test_many_jobs_come_page_by_page(python: Client, files: Any) -> None:
    for _ in range(3):
        job = python.submit(phase=[files.phase], te_ms=[4, 8, 12], b0=3, method="tkd")
        python.cancel(job.id)
    assert len({job.id for job in python.jobs()}) == 3
    assert python.wait(job.id, timeout=30).state in ("cancelled", "done")


def test_a_refusal_carries_its_mend(python: Client, files: Any) -> None:
    with pytest.raises(ServiceError) as refusal:
        python.submit(phase=[files.phase], te_ms=[4, 8], b0=3)
    assert refusal.value.code == "echo-times"
    assert refusal.value.status == 422
    assert "te_ms" in refusal.value.mend


def test_a_job_without_a_result_says_why(python: Client, files: Any) -> None:
    job = python.submit(phase=[files.phase], mask=files.mask, te_ms=[4, 8, 12], b0=3)
    ended = python.wait(job.id, timeout=30)
    with pytest.raises(ServiceError) as failure:
        ended.require_done()
    assert failure.value.code == "triton-unavailable"
    with pytest.raises(ServiceError, match="nothing here"):
        python.fetch(job.id, "chi", "never-written.nii.gz")
    assert not Path("never-written.nii.gz").exists()


def test_what_is_missing_is_named(python: Client) -> None:
    assert python.readiness() == {
        "triton": "The inference server cannot be reached.",
        "storage": None,
        "database": None,
        "worker": None,
    }


def test_nobody_at_the_address_is_said_plainly() -> None:
    with Client(f"http://127.0.0.1:{any_free()}") as nobody, pytest.raises(ServiceError) as failure:
        nobody.job("0" * 32)
    assert failure.value.code == "unreachable"
