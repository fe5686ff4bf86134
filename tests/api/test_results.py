"""What a finished job made can be fetched whole, in parts, as slices and as numbers."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def reader(backend: Any) -> Iterator[Any]:
    with backend.client() as client:
        yield client


@pytest.fixture(scope="module")
def done(reader: Any, files: Any) -> Iterator[dict[str, Any]]:
    """A finished job, which no test here changes."""
    given = {"phase": files.phase, "magnitude": files.magnitude, "mask": files.mask}
    job = reader.submit(given, expect=200, wait="60", te_ms="4 8 12", b0="3", method="tkd").json()
    yield job
    reader.delete(job["links"]["self"])


def test_events_continue_after_the_last_one_seen(reader: Any, done: dict[str, Any]) -> None:
    told = list(reader.events(done["id"]))
    rest = list(reader.events(done["id"], last=told[1]["id"]))
    assert rest == told[2:]


@pytest.mark.parametrize("last", [b"\xb2", b"-1", b"1_0", b"3x"])
def test_a_stream_begins_at_the_first_event_where_no_number_says_otherwise(
    reader: Any, done: dict[str, Any], last: bytes
) -> None:
    """The first has digits, as Python sees it, and is no number."""
    answer = reader.get(done["links"]["events"], headers=[(b"last-event-id", last)])
    assert answer.status_code == 200
    assert answer.text.count("id: ") == len(list(reader.events(done["id"])))


def test_a_stream_behind_the_last_event_is_empty(reader: Any, done: dict[str, Any]) -> None:
    answer = reader.get(done["links"]["events"], headers={"Last-Event-ID": "9" * 20})
    assert (answer.status_code, answer.text.count("id: ")) == (200, 0)


def test_every_volume_can_be_downloaded_and_lies_on_the_input_grid(
    reader: Any, done: dict[str, Any], phantom: Any
) -> None:
    for artefact in done["artefacts"]:
        answer = reader.get(artefact["href"])
        assert answer.headers["content-type"] == "application/gzip"
        assert artefact["file"] in answer.headers["content-disposition"]
        assert len(answer.content) == artefact["size"] == int(answer.headers["content-length"])
        image = nib.Nifti1Image.from_bytes(gzip.decompress(answer.content))
        np.testing.assert_allclose(image.affine, phantom.affine, atol=1e-4)


def test_the_report_and_the_picture_can_be_downloaded(reader: Any, done: dict[str, Any]) -> None:
    report = reader.get(done["links"]["report"])
    assert report.headers["content-type"] == "application/json"
    assert report.json()["options"]["method"] == "tkd"
    page = reader.get(done["links"]["page"])
    assert page.headers["content-type"].startswith("text/html")
    # It is somebody's file, not a page of the service.
    assert page.headers["content-disposition"].startswith("attachment")
    assert page.text.startswith("<!doctype html>")
    picture = reader.get(f"/api/v1/jobs/{done['id']}/artefacts/picture")
    assert Image.open(io.BytesIO(picture.content)).format == "PNG"


@pytest.mark.parametrize(
    ("asked", "part"),
    [("bytes=0-9", slice(0, 10)), ("bytes=100-", slice(100, None)), ("bytes=-7", slice(-7, None))],
)
def test_a_part_of_a_file_can_be_fetched(reader: Any, done: dict[str, Any], asked: str, part: slice) -> None:
    href = done["artefacts"][0]["href"]
    whole = reader.get(href).content
    answer = reader.get(href, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == whole[part]
    start = range(len(whole))[part][0]
    assert answer.headers["content-range"] == f"bytes {start}-{start + len(answer.content) - 1}/{len(whole)}"


def test_a_part_behind_the_end_is_refused_and_an_unchanged_file_not_sent_again(
    reader: Any, done: Any
) -> None:
    href = done["artefacts"][0]["href"]
    beyond = reader.get(href, headers={"Range": "bytes=99999999-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-range"].startswith("bytes */")
    etag = reader.get(href).headers["etag"]
    assert reader.get(href, headers={"If-None-Match": etag}).status_code == 304
    resumed = reader.get(href, headers={"Range": "bytes=0-1", "If-Range": '"another"'})
    assert resumed.status_code == 200


@pytest.mark.parametrize("axis", ["sagittal", "coronal", "axial"])
def test_a_slice_is_a_picture_of_one_pixel_per_voxel(reader: Any, done: dict[str, Any], axis: str) -> None:
    chi = done["artefacts"][0]
    x, y, z = chi["shape"]
    picture = Image.open(io.BytesIO(reader.get(chi["slices"], params={"axis": axis}).content))
    assert picture.mode == "L"
    assert picture.size == {"sagittal": (y, z), "coronal": (x, z), "axial": (x, y)}[axis]
    square = reader.get(chi["slices"], params={"axis": axis, "square_pixels": True}).content
    dx, dy, dz = chi["voxel_size"]
    width, height = {"sagittal": (y * dy, z * dz), "coronal": (x * dx, z * dz), "axial": (x * dx, y * dy)}[
        axis
    ]
    shown = Image.open(io.BytesIO(square)).size
    assert shown[0] / shown[1] == pytest.approx(width / height, rel=0.05)


def test_the_window_makes_the_difference(reader: Any, done: dict[str, Any]) -> None:
    slices = f"/api/v1/jobs/{done['id']}/slices/mask.png"
    black = reader.get(slices, params={"low": 2, "high": 3}).content
    white = reader.get(slices, params={"low": -2, "high": -1}).content
    assert np.asarray(Image.open(io.BytesIO(black))).max() == 0
    assert np.asarray(Image.open(io.BytesIO(white))).min() == 255


@pytest.mark.parametrize(
    "asked",
    [
        {"index": 48, "axis": "sagittal"},
        {"low": 1, "high": 1},
        {"axis": "diagonal"},
        {"index": -1},
        {"low": "nan"},
    ],
)
def test_a_slice_that_cannot_be_is_refused(reader: Any, done: dict[str, Any], asked: dict[str, Any]) -> None:
    answer = reader.get(done["artefacts"][0]["slices"], params=asked)
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid-parameter"


def test_statistics_agree_with_the_volume(reader: Any, done: dict[str, Any]) -> None:
    def volume(name: str) -> Any:
        content = reader.get(f"/api/v1/jobs/{done['id']}/artefacts/{name}").content
        return nib.as_closest_canonical(nib.Nifti1Image.from_bytes(gzip.decompress(content))).get_fdata()

    chi, mask = volume("chi"), volume("mask") > 0
    told = reader.get(f"/api/v1/jobs/{done['id']}/statistics/chi").json()
    assert told["voxels"] == mask.sum() == sum(told["counts"])
    assert told["mean"] == pytest.approx(chi[mask].mean(), abs=1e-6)
    assert told["percentiles"]["95"] == pytest.approx(np.percentile(chi[mask], 95), abs=1e-6)
    one = reader.get(
        f"/api/v1/jobs/{done['id']}/statistics/chi", params={"x": 24, "y": 22, "z": 20, "radius": 0.5}
    ).json()
    assert one["voxels"] == 1
    assert one["mean"] == pytest.approx(chi[24, 22, 20], abs=1e-6)
    outside = reader.get(f"/api/v1/jobs/{done['id']}/statistics/chi", params={"x": 0, "y": 0, "z": 0})
    assert outside.status_code == 422


def test_what_does_not_exist_is_not_found(reader: Any, done: dict[str, Any]) -> None:
    unknown = "/api/v1/jobs/" + "0" * 32
    for path in (
        unknown,
        f"{unknown}/events",
        f"{unknown}/result",
        f"{done['links']['self']}/artefacts/nothing",
    ):
        answer = reader.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "not-found"
    assert reader.get("/api/v1/jobs/not-an-id").status_code == 422
    assert reader.delete(unknown).status_code == 404
