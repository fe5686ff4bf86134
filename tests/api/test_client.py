"""The Python client does what the API can, blocking and not, against a real backend."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

from qsm_ai.client import AsyncClient, Client, Retrying, ServiceError
from qsm_ai.inference.ports import any_free


class Awaited:
    """An ``AsyncClient`` whose methods are waited for, so that one test serves both clients."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*arguments, **options)

    def __enter__(self) -> Awaited:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            found = method(*arguments, **options)
            return self._iterate(found) if inspect.isasyncgen(found) else self._runner.run(found)

        return call

    def _iterate(self, found: AsyncIterator[Any]) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(found, None)

        while (item := self._runner.run(following())) is not None:
            yield item


KINDS = {"blocking": Client, "asynchronous": Awaited}


@pytest.fixture(params=KINDS)
def kind(request: Any) -> Any:
    return KINDS[request.param]


@pytest.fixture
def python(kind: Any, backend: Any, client: Any) -> Any:
    with kind(backend.url) as python:
        yield python


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    def surface(cls: type) -> dict[str, list[str]]:
        public = {name: method for name, method in vars(cls).items() if not name.startswith("_")}
        return {name.removeprefix("a"): [*inspect.signature(m).parameters] for name, m in public.items()}

    assert surface(Client) == surface(AsyncClient)


def test_a_scan_is_sent_followed_fetched_and_deleted(python: Any, files: Any, tmp_path: Path) -> None:
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


def test_files_can_be_sent_before_the_job(python: Any, files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small parts, so that this small scan needs several.
    monkeypatch.setattr("qsm_ai.client.operations.upload.__defaults__", (50_000,))
    job = python.submit(phase=[files.phase], te_ms=[4, 8, 12], b0=3, method="tkd", upload_first=True)
    assert job.raw["files"][0]["size"] == files.phase.stat().st_size
    assert python.wait(job.id, timeout=60).require_done()


def test_many_jobs_come_page_by_page(python: Any, files: Any) -> None:
    for _ in range(3):
        job = python.submit(phase=[files.phase], te_ms=[4, 8, 12], b0=3, method="tkd")
        python.cancel(job.id)
    assert len({job.id for job in python.jobs()}) == 3
    assert python.wait(job.id, timeout=30).state in ("cancelled", "done")


def test_a_refusal_carries_its_mend(python: Any, files: Any) -> None:
    with pytest.raises(ServiceError) as refusal:
        python.submit(phase=[files.phase], te_ms=[4, 8], b0=3)
    assert refusal.value.code == "echo-times"
    assert refusal.value.status == 422
    assert "te_ms" in refusal.value.mend


def test_a_job_without_a_result_says_why(python: Any, files: Any, tmp_path: Path) -> None:
    job = python.submit(phase=[files.phase], mask=files.mask, te_ms=[4, 8, 12], b0=3, method="tkd")
    python.cancel(job.id)
    ended = python.wait(job.id, timeout=30)
    if ended.state == "cancelled":
        with pytest.raises(ServiceError, match="cancelled"):
            ended.require_done()
    with pytest.raises(ServiceError, match="nothing here"):
        python.fetch(job.id, "nothing", tmp_path / "never-written.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named(python: Any) -> None:
    found = python.readiness()
    assert found["triton"]
    assert found["storage"] is None
    assert found["database"] is None


def test_nobody_at_the_address_is_said_plainly(kind: Any) -> None:
    with (
        kind(f"http://127.0.0.1:{any_free()}", retrying=Retrying(attempts=2, first=0.01)) as nobody,
        pytest.raises(ServiceError) as failure,
    ):
        nobody.job("0" * 32)
    assert failure.value.code == "unreachable"
