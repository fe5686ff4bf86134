"""With a real Triton: ready, used, late, gone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_network import write_known_repository

from qsm_ai.inference.server import TritonServer
from qsm_ai.io.loading import load_scan
from qsm_ai.reconstruction.options import Options
from qsm_ai.reconstruction.pipeline import reconstruct

FORM = {"te_ms": "4 8 12", "b0": "3"}

LATE = '''
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    """Takes longer than anyone waits."""

    def execute(self, requests):
        time.sleep(30)
        return [pb_utils.InferenceResponse(error=pb_utils.TritonError("too late")) for _ in requests]
'''


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_known_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def triton(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository, precision="f32") as server:
        yield server


@pytest.fixture
def scan(files: Any) -> dict[str, Any]:
    return {"phase": files.phase, "magnitude": files.magnitude, "mask": files.mask}


def test_the_network_is_asked_over_grpc_and_gives_the_map_it_gives_in_process(
    start_backend: Any, triton: TritonServer, scan: dict[str, Any], files: Any
) -> None:
    import gzip

    import nibabel as nib

    from qsm_ai.inference.triton import TritonNetwork

    with start_backend(QSM_TRITON_URL=triton.grpc_url) as backend, backend.client() as client:
        ready = client.get("/readyz")
        assert ready.status_code == 200, ready.text
        answer = client.submit(scan, expect=200, wait="120", headers={"Accept": "application/gzip"}, **FORM)
        chi = np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(answer.content)).dataobj)
        job = client.get("/api/v1/jobs").json()["jobs"][0]
        assert {"network", "consistency"} <= set(job["timings"])
        report = client.get(job["links"]["report"]).json()
        assert "Triton" in report["options"].get("network", "") or "Triton" in str(report)
    loaded = load_scan([files.phase], [files.magnitude], files.mask, te_ms=[4, 8, 12], b0=3.0)
    with TritonNetwork(triton.grpc_url) as network:
        expected = reconstruct(loaded, Options(), network).chi
    np.testing.assert_allclose(chi, expected, atol=1e-6)


def test_a_job_waits_for_a_triton_that_comes_back(
    start_backend: Any, repository: Path, scan: dict[str, Any]
) -> None:
    server = TritonServer(repository, precision="f32")
    server.start()
    address, ports = server.grpc_url, server.ports
    server.stop()
    with (
        start_backend(QSM_TRITON_URL=address, QSM_TRITON_PATIENCE_S="120") as backend,
        backend.client() as client,
    ):
        job = client.submit(scan, **FORM).json()
        deadline = time.monotonic() + 20
        while not (client.job(job["id"])["note"] or "").startswith("Waiting"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert client.job(job["id"])["timings"] == {}
        with TritonServer(repository, precision="f32", ports=ports):
            assert client.until(job["id"], within=120)["state"] == "done"


def test_a_triton_that_answers_too_late_is_given_up_with_a_plain_reason(
    start_backend: Any, repository: Path, scan: dict[str, Any], tmp_path: Path
) -> None:
    late = tmp_path / "late"
    shutil.copytree(repository, late)
    (late / "qsm_vit/1/model.py").write_text(LATE)
    with (
        TritonServer(late) as server,
        start_backend(QSM_TRITON_URL=server.grpc_url, QSM_TRITON_TIMEOUT_S="1") as backend,
        backend.client() as client,
    ):
        began = time.monotonic()
        answer = client.submit(scan, expect=504, wait="60", **FORM)
        assert time.monotonic() - began < 40
        problem = answer.json()
        assert problem["code"] == "triton-timeout"
        assert problem["detail"] == "The inference server did not answer in time."
        assert "retry" in problem["mend"]
        assert client.job(problem["job"])["state"] == "failed"


def test_without_triton_a_job_fails_before_heavy_work_and_keeps_its_upload(
    start_backend: Any, scan: dict[str, Any]
) -> None:
    with start_backend(QSM_TRITON_PATIENCE_S="0.5") as backend, backend.client() as client:
        answer = client.submit(scan, expect=503, wait="30", **FORM)
        problem = answer.json()
        assert problem["code"] == "triton-unavailable"
        assert int(answer.headers["retry-after"]) > 0
        job = client.job(problem["job"])
        assert job["state"] == "failed"
        assert job["timings"] == {}
        assert len(backend.files) == 3
        assert client.get("/api/v1/jobs", params={"state": "failed"}).json()["jobs"][0]["id"] == job["id"]
        # Who does not want to wait gets the closed form from the same server.
        assert client.submit(scan, expect=200, wait="60", method="tikhonov", **FORM).json()["state"] == "done"
