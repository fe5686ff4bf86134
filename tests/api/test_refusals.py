"""Bad input is refused in one sentence with the mend, before any job, and nothing of it stays."""

from __future__ import annotations

import gzip
import socket
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

FORM = {"te_ms": "4 8 12", "b0": "3", "method": "tkd"}

Given = dict[str, Any]
Maker = Callable[[Any, Path], Given]


def changed(path: Path, into: Path, change: Callable[[Any], Any], affine: Any = None) -> Path:
    image = nib.Nifti1Image.from_filename(path)
    data = change(np.asarray(image.dataobj))
    nib.save(nib.Nifti1Image(data, image.affine if affine is None else affine), into)
    return into


def not_a_nifti(files: Any, folder: Path) -> Given:
    path = folder / "phase.nii.gz"
    path.write_bytes(gzip.compress(b"This is a letter, not a picture. " * 99))
    return {"phase": path}


def not_even_gzip(files: Any, folder: Path) -> Given:
    path = folder / "phase.nii"
    path.write_bytes(b"%PDF-1.7 " * 99)
    return {"phase": path}


def truncated(files: Any, folder: Path) -> Given:
    path = folder / "phase.nii.gz"
    path.write_bytes(files.phase.read_bytes()[:-20_000])
    return {"phase": path}


def flipped_bits(files: Any, folder: Path) -> Given:
    path = folder / "phase.nii.gz"
    content = bytearray(files.phase.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return {"phase": path}


def dimensions(count: int) -> Maker:
    def make(files: Any, folder: Path) -> Given:
        content = bytearray(gzip.decompress(files.phase.read_bytes()))
        struct.pack_into("<h", content, 40, count)
        path = folder / "phase.nii"
        path.write_bytes(content)
        return {"phase": path}

    return make


def another_shape(files: Any, folder: Path) -> Given:
    return {"magnitude": changed(files.magnitude, folder / "m.nii.gz", lambda a: a[:, :, 1:])}


def another_affine(files: Any, folder: Path) -> Given:
    moved = nib.Nifti1Image.from_filename(files.magnitude).affine.copy()
    moved[:3, 3] += 5
    return {"magnitude": changed(files.magnitude, folder / "m.nii.gz", lambda a: a, moved)}


def magnitude_as_phase(files: Any, folder: Path) -> Given:
    path = folder / "phase.nii.gz"
    path.write_bytes(files.magnitude.read_bytes())
    return {"phase": path}


def all_zeros(files: Any, folder: Path) -> Given:
    return {"phase": changed(files.phase, folder / "p.nii.gz", np.zeros_like)}


def all_nan(files: Any, folder: Path) -> Given:
    return {"phase": changed(files.phase, folder / "p.nii.gz", lambda a: np.full_like(a, np.nan))}


def empty_mask(files: Any, folder: Path) -> Given:
    return {"mask": changed(files.mask, folder / "m.nii.gz", np.zeros_like)}


def mask_of_another_grid(files: Any, folder: Path) -> Given:
    return {"mask": changed(files.mask, folder / "m.nii.gz", lambda a: a[1:])}


def gzip_bomb(files: Any, folder: Path) -> Given:
    """Tens of kilobytes that unpack to more than may be unpacked."""
    header = bytearray(gzip.decompress(files.phase.read_bytes())[:352])
    struct.pack_into("<8h", header, 40, 4, 320, 320, 320, 3, 1, 1, 1)
    path = folder / "phase.nii.gz"
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        file.write(packer.compress(bytes(header)))
        for _ in range(320 * 320 * 320 * 3 * 4 // (1 << 20)):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())
    return {"phase": path}


def broken_sidecar(files: Any, folder: Path) -> Given:
    path = folder / "phase.json"
    path.write_text("{EchoTime: 4")
    return {"sidecar": path}


def empty_file(files: Any, folder: Path) -> Given:
    path = folder / "phase.nii.gz"
    path.write_bytes(b"")
    return {"phase": path}


BAD_FILES: list[tuple[Maker, int, str]] = [
    (not_a_nifti, 415, "not-an-image"),
    (not_even_gzip, 415, "not-an-image"),
    (empty_file, 422, "truncated"),
    (truncated, 422, "truncated"),
    (flipped_bits, 422, "damaged"),
    (dimensions(0), 422, "wrong-dimensions"),
    (dimensions(5), 422, "wrong-dimensions"),
    (another_shape, 422, "grid-mismatch"),
    (another_affine, 422, "grid-mismatch"),
    (magnitude_as_phase, 422, "not-a-phase"),
    (all_zeros, 422, "not-a-phase"),
    (all_nan, 422, "not-a-phase"),
    (empty_mask, 422, "mask"),
    (mask_of_another_grid, 422, "grid-mismatch"),
    (gzip_bomb, 413, "too-large"),
    (broken_sidecar, 422, "sidecar"),
]

BAD_FIELDS: list[tuple[dict[str, str | None], str]] = [
    ({"te_ms": None}, "echo-times"),
    ({"te_ms": "4 8"}, "echo-times"),
    ({"te_ms": "4 12 8"}, "echo-times"),
    ({"te_ms": "0.004 0.008 0.012"}, "echo-times"),
    ({"te_ms": "4000 8000 12000"}, "echo-times"),
    ({"te_ms": "four"}, "invalid-parameter"),
    ({"te_ms": "4 8 nan"}, "invalid-parameter"),
    ({"te_ms": "[[4]]"}, "invalid-parameter"),
    ({"b0": None}, "field-strength"),
    ({"b0": "30000"}, "field-strength"),
    ({"b0": "three"}, "invalid-parameter"),
    ({"b0_direction": "0 0 0"}, "b0-direction"),
    ({"b0_direction": "0 1"}, "invalid-parameter"),
    ({"method": "magic"}, "invalid-parameter"),
    ({"reference": "moon"}, "invalid-parameter"),
    ({"phase_sign": "0"}, "invalid-parameter"),
    ({"wait": "-1"}, "invalid-parameter"),
    ({"priority": "urgent"}, "invalid-parameter"),
    ({"deadline": "0"}, "invalid-parameter"),
    ({"echo_times": "4 8 12"}, "unknown-field"),
    ({"phase": "not a file"}, "invalid-parameter"),
]


def require_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == code, problem
    assert problem["status"] == status
    assert problem["type"] == f"urn:qsm-ai:problem:{code}"
    assert problem["title"]
    assert problem["detail"].endswith(".")
    assert problem["mend"].endswith(".")
    assert "--" not in problem["mend"], "options of the command line help nobody here"
    assert tempfile.gettempdir() not in str(problem)
    assert "Doe" not in str(problem)
    return problem


def require_nothing_left(backend: Any, client: Any) -> None:
    assert client.get("/api/v1/jobs").json()["jobs"] == []
    assert backend.files == []
    assert list((backend.folder / "data/scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("make", "status", "code"), BAD_FILES, ids=[f"{m.__name__}-{c}" for m, _, c in BAD_FILES]
)
def test_a_bad_file_is_refused(
    backend: Any, client: Any, files: Any, tmp_path: Path, make: Maker, status: int, code: str
) -> None:
    bad = make(files, tmp_path)
    given = {"phase": files.phase, "magnitude": files.magnitude, **bad}
    problem = require_problem(client.submit(given, expect=None, **FORM), status, code)
    assert problem["file"] in {path.name for path in given.values()}
    require_nothing_left(backend, client)


@pytest.mark.parametrize(("fields", "code"), BAD_FIELDS, ids=[str(fields) for fields, _ in BAD_FIELDS])
def test_a_bad_parameter_is_refused(
    backend: Any, client: Any, files: Any, fields: dict[str, str | None], code: str
) -> None:
    asked = {name: value for name, value in {**FORM, **fields}.items() if value is not None}
    answer = client.submit({"magnitude": files.magnitude, "phase": files.phase}, expect=None, **asked)
    require_problem(answer, 422, code)
    require_nothing_left(backend, client)


def test_nothing_at_all_is_refused(backend: Any, client: Any) -> None:
    answer = client.post("/api/v1/reconstruct", files={"phase": ("", b"")}, data=FORM)
    require_problem(answer, 422, "refused")
    require_nothing_left(backend, client)


def test_two_masks_are_refused(backend: Any, client: Any, files: Any) -> None:
    answer = client.submit({"phase": files.phase, "mask": [files.mask, files.mask]}, expect=None, **FORM)
    require_problem(answer, 422, "refused")


def test_a_file_in_a_field_that_does_not_exist_is_refused(client: Any, files: Any) -> None:
    answer = client.submit({"phase": files.phase, "Phase": files.phase}, expect=None, **FORM)
    require_problem(answer, 422, "unknown-field")


def test_an_upload_over_the_limit_is_refused_by_its_declared_length(backend: Any, client: Any) -> None:
    answer = client.post("/api/v1/reconstruct", files={"phase": ("p.nii", bytes(41 << 20))})
    problem = require_problem(answer, 413, "too-large")
    assert "40 MiB" in problem["detail"]
    require_nothing_left(backend, client)


def test_an_upload_that_declares_no_length_is_stopped_at_the_limit(backend: Any, client: Any) -> None:
    sent = 0

    def body() -> Any:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="phase"; filename="p.nii"\r\n\r\n'
        for _ in range(200):
            sent += 1 << 20
            yield bytes(1 << 20)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    require_problem(client.post("/api/v1/reconstruct", content=body(), headers=headers), 413, "too-large")
    assert sent < 200 << 20
    require_nothing_left(backend, client)


def test_an_upload_that_breaks_off_leaves_nothing(backend: Any, client: Any) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="phase"; filename="p.nii"\r\n\r\nabc'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    require_problem(
        client.post("/api/v1/reconstruct", content=body, headers=headers), 400, "malformed-upload"
    )
    require_nothing_left(backend, client)


def test_a_client_that_hangs_up_leaves_nothing(backend: Any, client: Any) -> None:
    head = (
        f"POST /api/v1/reconstruct HTTP/1.1\r\nHost: {backend.url[7:]}\r\nContent-Length: 9000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="phase"; filename="p.nii"\r\n\r\n'
    )
    deadline = time.monotonic() + 20
    with socket.create_connection(("127.0.0.1", backend.port)) as connection:
        connection.sendall(head.encode() + bytes(3 << 20))
        while not backend.files:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    while backend.files:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    require_nothing_left(backend, client)
    assert '"request.error"' not in backend.log.read_text()


@pytest.mark.parametrize(
    "kind", ["application/json", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_another_kind_of_body_is_refused(client: Any, kind: str) -> None:
    answer = client.post("/api/v1/reconstruct", content=b"{}", headers={"Content-Type": kind})
    require_problem(
        answer, *((400, "malformed-upload") if kind == "multipart/form-data" else (415, "media-type"))
    )


def test_a_file_name_cannot_lead_out_of_its_folder(backend: Any, client: Any, files: Any) -> None:
    part = ("../../../../tmp/evil\r\n\x00/../x.nii.gz", files.phase.read_bytes())
    job = client.post("/api/v1/reconstruct", files={"phase": part}, data=FORM).json()
    assert job["files"][0]["name"] == "x.nii.gz"
    assert all(file.is_relative_to(backend.folder) for file in backend.files)


def test_refusals_are_counted_by_reason(client: Any, files: Any) -> None:
    client.submit({"phase": files.phase}, expect=422, b0="3")
    lines = client.get("/metrics").text.splitlines()
    count = next(line for line in lines if line.startswith('qsm_input_refusals_total{code="echo-times"}'))
    assert float(count.split()[-1]) >= 1
