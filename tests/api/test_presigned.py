"""With a real S3 server, clients send to it and fetch from it directly, for a while and nothing else."""

from __future__ import annotations

import gzip
import hashlib
import time
from collections.abc import Iterator
from typing import Any

import httpx
import nibabel as nib
import pytest

UPLOADS = "/api/v1/uploads"
FORM = {"te_ms": [4, 8, 12], "b0": 3, "method": "tkd"}


@pytest.fixture(scope="module")
def bucket(s3: Any) -> str:
    found: str = s3.new_bucket()
    return found


@pytest.fixture(scope="module")
def on_s3(start_backend: Any, s3: Any, bucket: str) -> Iterator[Any]:
    with start_backend(QSM_STORAGE_URL=f"{bucket}/here", **s3.environment) as backend:
        yield backend


@pytest.fixture(scope="module")
def client(on_s3: Any) -> Iterator[Any]:
    with on_s3.client() as client:
        yield client


def announce(client: Any, path: Any, **more: Any) -> dict[str, Any]:
    answer = client.post(UPLOADS, json={"name": path.name, "size": path.stat().st_size, **more})
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


@pytest.fixture(scope="module")
def done(client: Any, files: Any) -> Iterator[dict[str, Any]]:
    """A job whose files never went through the backend."""
    uses = []
    for role, path in (("phase", files.phase), ("mask", files.mask)):
        upload = announce(client, path)
        assert upload["target"]["direct"]
        httpx.put(upload["target"]["href"], content=path.read_bytes()).raise_for_status()
        assert client.get(f"{UPLOADS}/{upload['id']}").json()["complete"]
        uses.append({"upload": upload["id"], "role": role})
    answer = client.post("/api/v1/jobs", json={"files": uses, "wait": 90, **FORM})
    assert answer.status_code == 200, answer.text
    yield answer.json()
    client.delete(answer.json()["links"]["self"])


def test_a_scan_goes_straight_to_the_store_and_becomes_a_job(
    done: dict[str, Any], files: Any, client: Any, s3: Any, bucket: str
) -> None:
    assert done["state"] == "done"
    assert done["files"][0]["sha256"] == hashlib.sha256(files.phase.read_bytes()).hexdigest()
    assert client.get(UPLOADS).json()["uploads"] == []
    assert not [path for path in s3.files(bucket) if "uploads" in path.parts[-3:-1]][2:]


def test_a_result_comes_straight_from_the_store(
    client: Any, done: dict[str, Any], s3: Any, phantom: Any
) -> None:
    href = done["artefacts"][0]["href"]
    through = client.get(href)
    answer = client.get(href, params={"direct": True})
    assert answer.status_code == 307
    assert answer.headers["location"].startswith(f"http://127.0.0.1:{s3.port}/")
    assert answer.headers["cache-control"] == "no-store"
    direct = httpx.get(answer.headers["location"])
    assert direct.content == through.content
    assert nib.Nifti1Image.from_bytes(gzip.decompress(direct.content)).shape == phantom.chi.shape
    part = httpx.get(answer.headers["location"], headers={"Range": "bytes=5-9"})
    assert part.content == through.content[5:10]


@pytest.mark.parametrize(
    ("asked", "part"),
    [("bytes=0-9", slice(0, 10)), ("bytes=100-", slice(100, None)), ("bytes=-7", slice(-7, None))],
)
def test_parts_of_results_come_through_the_backend_too(
    client: Any, done: dict[str, Any], asked: str, part: slice
) -> None:
    href = done["artefacts"][0]["href"]
    answer = client.get(href, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == client.get(href).content[part]


def test_an_address_is_good_for_one_object_and_one_method(client: Any, files: Any) -> None:
    upload = announce(client, files.mask)
    href = upload["target"]["href"]
    assert httpx.get(href).status_code in (401, 403)
    elsewhere = href.replace(upload["id"], "0" * 32)
    assert httpx.put(elsewhere, content=b"x").status_code in (401, 403)
    client.delete(f"{UPLOADS}/{upload['id']}")


def test_an_address_ends_with_its_time(start_backend: Any, s3: Any, bucket: str, files: Any) -> None:
    settings = {"QSM_STORAGE_URL": f"{bucket}/short", "QSM_PRESIGNED_S": "1", "QSM_WORKERS": "0"}
    with start_backend(**settings, **s3.environment) as backend, backend.client() as client:
        upload = announce(client, files.mask)
        time.sleep(2.5)
        answer = httpx.put(upload["target"]["href"], content=files.mask.read_bytes())
        # S3 says 403, this server 400.
        assert answer.is_client_error
        assert client.get(f"{UPLOADS}/{upload['id']}").json()["received"] == 0


def test_more_than_announced_is_refused_and_removed(
    client: Any, files: Any, s3: Any, bucket: str, done: dict[str, Any]
) -> None:
    upload = announce(client, files.mask)
    httpx.put(upload["target"]["href"], content=files.mask.read_bytes() + b"x").raise_for_status()
    answer = client.post("/api/v1/jobs", json={"files": [{"upload": upload["id"], "role": "phase"}], **FORM})
    assert answer.status_code == 413
    assert client.get(f"{UPLOADS}/{upload['id']}").status_code == 404
    assert not [path for path in s3.files(bucket) if upload["id"] in str(path)]


def test_who_cannot_reach_the_store_sends_to_the_backend(client: Any, files: Any) -> None:
    upload = announce(client, files.phase)
    content = files.phase.read_bytes()
    half = len(content) // 2
    for start, end in ((0, half), (half, len(content))):
        sent = client.put(
            upload["content"],
            content=content[start:end],
            headers={"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"},
        ).json()
    assert sent["complete"]
    body = {"files": [{"upload": upload["id"], "role": "phase"}], **FORM}
    job = client.post("/api/v1/jobs", json=body)
    assert job.status_code == 202, job.text
    assert job.json()["files"][0]["sha256"] == hashlib.sha256(content).hexdigest()
    client.delete(job.json()["links"]["self"])


def test_clients_may_know_the_store_by_another_address(
    start_backend: Any, s3: Any, bucket: str, files: Any
) -> None:
    settings = {
        "QSM_STORAGE_URL": f"{bucket}/other",
        "QSM_STORAGE_PUBLIC_ENDPOINT": f"http://localhost:{s3.port}",
        "QSM_WORKERS": "0",
    }
    with start_backend(**settings, **s3.environment) as backend, backend.client() as client:
        upload = announce(client, files.mask)
        assert upload["target"]["href"].startswith(f"http://localhost:{s3.port}/")
        httpx.put(upload["target"]["href"], content=files.mask.read_bytes()).raise_for_status()
        assert client.get(f"{UPLOADS}/{upload['id']}").json()["complete"]


def test_no_address_is_given_away_where_that_is_switched_off(
    start_backend: Any, s3: Any, bucket: str, files: Any
) -> None:
    settings = {"QSM_STORAGE_URL": f"{bucket}/none", "QSM_PRESIGNED_S": "0", "QSM_WORKERS": "0"}
    with start_backend(**settings, **s3.environment) as backend, backend.client() as client:
        upload = announce(client, files.mask)
        assert upload["target"]["href"] == upload["content"]
        assert not upload["target"]["direct"]
