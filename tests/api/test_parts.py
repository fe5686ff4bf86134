"""The small parts of the gateway by themselves: negotiation, ranges, settings, orientation of slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qsm_ai.api.negotiation import negotiate
from qsm_ai.api.ranges import UNSATISFIABLE, parse_range
from qsm_ai.api.settings import Settings
from qsm_ai.api.slices import Volume, VolumeCache, plane
from qsm_ai.api.statistics import sphere
from qsm_ai.api.uploads import safe_name
from qsm_ai.jobs.problem import Problem
from qsm_ai.scan import EchoTimeRefusal

OFFERS = ("application/json", "application/gzip", "image/png")


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "image/png"),
        ("image/*", "image/png"),
        ("application/*;q=0.5, image/png;q=0.4", "application/json"),
        ("application/gzip, application/json;q=0.9", "application/gzip"),
        ("text/html, */*;q=0.1", "application/json"),
        ("application/json;q=0, */*", "application/gzip"),
        ("IMAGE/PNG", "image/png"),
        ("text/html", None),
        ("image/png;q=0", None),
        ("image/png;q=lots", None),
    ],
)
def test_the_best_acceptable_form_is_chosen(accept: str | None, wanted: str | None) -> None:
    assert negotiate(accept, OFFERS) == wanted


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-", (90, 100)),
        ("bytes=90-999", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-999", (0, 100)),
        ("bytes=100-", UNSATISFIABLE),
        ("bytes=-0", UNSATISFIABLE),
        ("bytes=20-10", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("pages=1-2", None),
    ],
)
def test_ranges_are_read_as_the_standard_says(header: str | None, part: object) -> None:
    assert parse_range(header, 100) == part


def test_slices_lie_as_a_radiologist_expects() -> None:
    """Volume axes run to the right, to the front and up."""
    shape = (4, 5, 6)
    right, front, top = (np.broadcast_to(a, shape).astype(np.float32) for a in np.ogrid[:4, :5, :6])
    axial, coronal, sagittal = (0, "axial"), (0, "coronal"), (0, "sagittal")
    for index, axis in (axial, coronal):
        shown = plane(right, axis, index)
        assert (np.diff(shown, axis=1) < 0).all(), "the patient's right is on the left"
    assert (np.diff(plane(front, "axial", 0), axis=0) < 0).all(), "the front is on top"
    assert (np.diff(plane(top, "coronal", 0), axis=0) < 0).all(), "the top is on top"
    assert (np.diff(plane(top, "sagittal", 0), axis=0) < 0).all(), "the top is on top"
    assert (np.diff(plane(front, sagittal[1], 0), axis=1) < 0).all(), "the front is on the left"
    assert plane(right, "sagittal", 3).tolist() == np.full((6, 5), 3).tolist()


def test_the_cache_stays_within_its_memory_and_forgets_whole_jobs() -> None:
    import asyncio

    loads: list[str] = []

    async def scenario() -> None:
        cache = VolumeCache(limit=2 * 4000)

        async def ask(job: str, artefact: str = "chi") -> None:
            async def load() -> Volume:
                loads.append(job + artefact)
                await asyncio.sleep(0)
                return Volume(np.zeros((10, 10, 10), np.float32), (1, 1, 1))

            await cache.get(job, artefact, load)

        await asyncio.gather(*(ask("a") for _ in range(5)))
        assert loads == ["achi"], "loaded once, however many ask"
        await ask("b")
        await ask("a")
        await ask("c")
        await ask("a")
        assert loads == ["achi", "bchi", "cchi"], "the least recently used one is dropped"
        cache.forget("a")
        await ask("a")
        assert loads[-1] == "achi"

    asyncio.run(scenario())


def test_a_sphere_is_round_in_millimetres() -> None:
    volume = Volume(np.zeros((21, 21, 21), np.float32), (1.0, 1.0, 2.0))
    inside = sphere(volume, (10, 10, 10), 4.0)
    assert [int(np.ptp(np.flatnonzero(inside.any(axis=axes)))) for axes in ((1, 2), (0, 2), (0, 1))] == [
        8,
        8,
        4,
    ]
    assert inside.sum() * 2.0 == pytest.approx(4 / 3 * np.pi * 4**3, rel=0.1)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("phase.nii.gz", "phase.nii.gz"),
        ("/home/doe/phase.nii", "phase.nii"),
        (r"C:\Doe\phase.nii", "phase.nii"),
        ("../../x", "x"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("a\x00b\n.nii", "ab.nii"),
        ("x" * 300 + ".nii.gz", "x" * 193 + ".nii.gz"),
    ],
)
def test_file_names_lose_whatever_is_no_name(given: str, kept: str) -> None:
    assert safe_name(given) == kept


def test_mends_speak_of_form_fields_over_http() -> None:
    refusal = EchoTimeRefusal(
        "Missing.", mend="Give them with --te-ms (for example --te-ms 4 12), or --b0-direction."
    )
    assert (
        Problem.from_refusal(refusal).mend
        == "Give them with te_ms (for example te_ms 4 12), or b0_direction."
    )


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QSM_CORS_ORIGINS", "https://a.example, http://b.example:8501/")
    monkeypatch.setenv("QSM_DATA_DIR", str(tmp_path))
    settings = Settings()
    assert settings.cors_origins == ["https://a.example", "http://b.example:8501"]
    assert settings.database == f"sqlite:///{tmp_path}/jobs.db"
    assert settings.storage == str(tmp_path / "objects")


@pytest.mark.parametrize("origins", ["*", "https://*.example", "example.org", "https://a.example,*"])
def test_wildcard_origins_are_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("QSM_CORS_ORIGINS", origins)
    with pytest.raises(ValueError, match="origin"):
        Settings()
