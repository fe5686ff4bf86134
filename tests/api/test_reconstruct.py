"""A scan goes in by HTTP, and a map comes out in the form that was asked for."""

from __future__ import annotations

import gzip
import io
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

FORM = {"te_ms": "4 8 12", "b0": "3", "method": "tkd"}


@pytest.fixture
def scan(files: Any) -> dict[str, Any]:
    return {"phase": files.phase, "magnitude": files.magnitude, "mask": files.mask}


def volume(content: bytes) -> Any:
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


def test_a_scan_becomes_a_job_and_the_job_a_map(client: Any, scan: dict[str, Any], phantom: Any) -> None:
    answer = client.submit(scan, **FORM)
    job = answer.json()
    assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}" == job["links"]["self"]
    assert job["state"] in ("queued", "running")
    done = client.until(job["id"])
    assert done["state"] == "done", done
    assert done["fraction"] == 1
    assert {artefact["name"] for artefact in done["artefacts"]} >= {"chi", "mask", "total_field", "residual"}
    assert set(done["timings"]) >= {"field_mapping", "background", "inversion"}
    assert done["scores"]
    assert done["scan"]["sources"]["echo_times"] == "option"
    chi = volume(client.get(f"/api/v1/jobs/{job['id']}/artefacts/chi").content)
    np.testing.assert_allclose(chi.affine, phantom.affine, atol=1e-4)
    inside = phantom.mask & (phantom.chi > 0)
    assert chi.get_fdata()[inside].mean() > 0.02 > chi.get_fdata()[phantom.mask & (phantom.chi == 0)].mean()


def test_the_map_is_the_command_lines_map(client: Any, scan: dict[str, Any], files: Any) -> None:
    from qsm_ai.io.loading import load_scan
    from qsm_ai.reconstruction.options import Options
    from qsm_ai.reconstruction.pipeline import reconstruct

    loaded = load_scan([files.phase], [files.magnitude], files.mask, te_ms=[4, 8, 12], b0=3.0)
    expected = reconstruct(loaded, Options(method="tkd")).chi
    answer = client.submit(scan, expect=200, wait="60", headers={"Accept": "application/gzip"}, **FORM)
    np.testing.assert_array_equal(np.asarray(volume(answer.content).dataobj), expected)


def test_echoes_in_files_of_their_own_with_sidecars_need_no_numbers(client: Any, files: Any) -> None:
    sidecars = [path.with_name(path.name.replace(".nii.gz", ".json")) for path in files.echo_phase]
    given = {"phase": files.echo_phase[::-1], "magnitude": files.echo_magnitude, "sidecar": sidecars}
    job = client.submit(given, expect=200, wait="60", method="tkd").json()
    assert job["scan"]["echo_times_ms"] == [4, 8, 12]
    assert job["scan"]["sources"]["echo_times"] == "sidecar"
    assert [file["role"] for file in job["files"]].count("sidecar") == 3


@pytest.mark.parametrize("start", ["total_field", "local_field"])
def test_a_field_with_a_mask_is_enough(client: Any, files: Any, start: str) -> None:
    given = {start: getattr(files, start), "mask": files.mask}
    job = client.submit(given, expect=200, wait="60", method="tikhonov").json()
    assert "field_mapping" not in job["timings"]
    assert "chi" in {artefact["name"] for artefact in job["artefacts"]}


def test_a_magnitude_may_stand_beside_a_field(client: Any, files: Any) -> None:
    given = {"local_field": files.local_field, "mask": files.mask, "magnitude": files.magnitude}
    job = client.submit(given, expect=200, wait="60", method="tkd").json()
    assert sorted(file["role"] for file in job["files"]) == ["local_field", "magnitude", "mask"]
    assert client.get(f"/api/v1/jobs/{job['id']}/artefacts/report").json()["scan"]["magnitude"]


@pytest.mark.parametrize("kind", ["application/gzip", "application/x-nifti", "application/octet-stream"])
def test_the_result_is_had_as_nifti(client: Any, scan: dict[str, Any], kind: str) -> None:
    answer = client.submit(scan, expect=200, wait="60", headers={"Accept": kind}, **FORM)
    assert answer.headers["content-type"] == kind
    assert "phase_Chimap.nii.gz" in answer.headers["content-disposition"]
    assert volume(answer.content).shape == (48, 44, 40)


def test_the_result_is_had_as_a_picture(client: Any, scan: dict[str, Any]) -> None:
    answer = client.submit(scan, expect=200, wait="60", headers={"Accept": "image/png"}, **FORM)
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).width > 100


def test_a_result_that_takes_longer_than_the_wait_is_a_job(client: Any, large: dict[str, Any]) -> None:
    answer = client.submit(large, wait="0.2", method="tv", headers={"Accept": "image/png"})
    assert answer.status_code == 202
    assert answer.headers["content-type"] == "application/json"


def test_the_result_of_a_job_is_had_later_in_any_form(client: Any, scan: dict[str, Any]) -> None:
    job = client.submit(scan, expect=200, wait="60", **FORM).json()
    for kind in ("application/json", "application/gzip", "image/png"):
        answer = client.get(job["links"]["result"], headers={"Accept": kind})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == kind
        assert answer.headers["vary"].startswith("Accept")


def test_what_cannot_be_had_is_refused_before_the_upload_is_read(
    backend: Any, client: Any, scan: Any
) -> None:
    answer = client.submit(scan, expect=406, headers={"Accept": "application/pdf"}, **FORM)
    assert answer.json()["code"] == "not-acceptable"
    assert backend.files == []


@pytest.mark.parametrize("te_ms", ["4 8 12", "4,8,12", "4, 8, 12", "[4, 8, 12]", ["4", "8", "12"]])
def test_echo_times_are_read_however_they_are_written(client: Any, scan: Any, te_ms: Any) -> None:
    job = client.submit(scan, te_ms=te_ms, b0="3", method="tkd").json()
    assert job["scan"]["echo_times_ms"] == [4, 8, 12]


def test_the_page_words_for_the_sign_are_understood(client: Any, scan: Any) -> None:
    job = client.submit(scan, phase_sign="-1", **FORM).json()
    assert job["scan"]["sources"]["phase_sign"] == "option (negative)"


def test_uploads_are_hashed_on_the_way(client: Any, scan: Any, files: Any) -> None:
    import hashlib

    job = client.submit(scan, **FORM).json()
    sent = {file["role"]: file["sha256"] for file in job["files"]}
    assert sent["phase"] == hashlib.sha256(files.phase.read_bytes()).hexdigest()
