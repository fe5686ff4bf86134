"""What goes out: headers that say how an answer may be used, and nothing of patients, users or keys."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import nibabel as nib
import pytest

if TYPE_CHECKING:
    from tests.access.conftest import Backend, StartBackend
    from tests.conftest import Files

SECRET_WORDS = ("Doe", "Jane", "1970", "doe.txt", "hospital", "Charité")


@pytest.fixture(scope="module")
def backend(start_backend: StartBackend) -> Iterator[Backend]:
    with start_backend(QSM_ACCESS="keys", QSM_LOG_LEVEL="debug") as running:
        yield running


def test_every_answer_says_how_it_may_be_used(backend: Backend) -> None:
    with backend.client(backend.key("alice")) as alice, backend.client() as nobody:
        answers = [
            alice.get("/api/v1/jobs"), alice.get("/nothing"), alice.post("/api/v1/reconstruct"),
            nobody.get("/api/v1/jobs"), nobody.get("/healthz"), nobody.get("/openapi.json"),
        ]  # fmt: skip
        assert [answer.status_code for answer in answers] == [200, 404, 415, 401, 200, 200]
        for answer in answers:
            headers = answer.headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cross-origin-resource-policy"] == "same-site"
            assert headers["cache-control"] == "no-store"
            assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert "server" not in headers
            assert "x-powered-by" not in headers


def zipped(content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("phase.nii", content)
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "declared"),
    [
        (b"\x7fELF" + bytes(2000), "application/gzip"),
        (b"<html><script>alert(1)</script></html>", "application/gzip"),
        (b"%PDF-1.7\n" + bytes(1000), "application/octet-stream"),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), "image/png"),
        (gzip.compress(b"#!/bin/sh\nrm -rf /\n" * 100), "application/gzip"),
        (zipped(bytes(2000)), "application/gzip"),
        (b"", "application/gzip"),
    ],
    ids=["program", "page", "pdf", "picture", "packed script", "zip", "nothing"],
)
def test_files_are_told_by_their_content(backend: Backend, content: bytes, declared: str) -> None:
    with backend.client(backend.key("alice")) as alice:
        answer = alice.post(
            "/api/v1/reconstruct",
            files=[("phase", ("phase.nii.gz", content, declared))],
            data={"te_ms": "4", "b0": "3"},
        )
        assert answer.status_code in (415, 422), answer.text
        assert answer.json()["code"] != "internal"
        assert alice.get("/api/v1/jobs").json()["jobs"] == []


def test_an_honest_image_is_taken_whatever_it_is_called(backend: Backend, files: Files) -> None:
    with backend.client(backend.key("bob")) as bob:
        answer = bob.post(
            "/api/v1/reconstruct",
            files=[
                ("local_field", ("field.txt", files.local_field.read_bytes(), "text/html")),
                ("mask", ("mask.exe", gzip.decompress(files.mask.read_bytes()), "image/png")),
            ],
            data={"method": "tkd"},
        )
        assert answer.status_code == 202, answer.text


def test_free_text_of_headers_and_sidecars_goes_nowhere(backend: Backend, files: Files) -> None:
    """The phantom's images name a patient in every free field, and its sidecars do too."""
    image = nib.load(files.echo_phase[0])
    assert b"Doe" in bytes(image.header["descrip"].tobytes())  # type: ignore[attr-defined]
    parts = [("phase", (f"p{n}.nii.gz", path.read_bytes())) for n, path in enumerate(files.echo_phase)]
    for number, path in enumerate(files.echo_phase):
        sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        text = json.dumps({**sidecar, "InstitutionName": "Charité", "PatientBirthDate": "19700101"})
        parts.append(("sidecar", (f"p{number}.json", text.encode())))
    with backend.client(backend.key("carl")) as carl:
        done = carl.post("/api/v1/reconstruct", files=parts, data={"method": "tkd", "wait": "120"})
        assert done.status_code == 200, done.text
        job = done.json()
        told = [done.content, carl.get(job["links"]["report"]).content]
        for artefact in job["artefacts"]:
            volume = gzip.decompress(carl.get(artefact["href"]).raise_for_status().content)
            header = nib.Nifti1Image.from_bytes(volume).header
            assert not header.extensions
            assert bytes(header["aux_file"].tobytes()).strip(b"\0") == b""
            assert bytes(header["db_name"].tobytes()).strip(b"\0") == b""
            told.append(volume[:2000])
        for document in told:
            for word in SECRET_WORDS:
                assert word.encode() not in document
    log = backend.log.read_text()
    assert not any(word in log for word in SECRET_WORDS)


def test_logs_hold_neither_keys_nor_users(backend: Backend) -> None:
    owner = "dr.eve@hospital.example"
    key = backend.key(owner)
    with backend.client(key) as eve:
        alias = eve.get("/api/v1/me").json()["alias"]
        eve.get("/api/v1/jobs", params={"access_token": key})
        eve.get(f"/api/v1/{key}")
    with backend.client(key[:-1] + ("A" if key[-1] != "A" else "B")) as forged:
        forged.get("/api/v1/me")
    with backend.client("eyJhbGciOiJub25lIn0.eyJzdWIiOiJzZWNyZXQtc3ViamVjdCJ9.") as token:
        assert token.get("/api/v1/me").status_code == 401
    log = backend.log.read_text()
    assert alias in log
    for secret in (key, key[15:], key[15:30], owner, "dr.eve", "eyJ", "secret-subject"):
        assert secret not in log
    assert '"reason": "mismatch"' in log or '"reason":"mismatch"' in log
