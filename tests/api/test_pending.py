"""What belongs to no announced upload any more is swept, and what is on its way is not."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsm_ai.api.pending import PendingUploads
from qsm_ai.api.presigning import Presigner
from qsm_ai.api.upload_records import UploadRecords
from qsm_ai.jobs.store import JobStore
from qsm_ai.jobs.sweeping import ORPHAN_AGE, IncompleteSweepError
from qsm_ai.storage import Storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def pending(database_url: str, folder: Path) -> Iterator[PendingUploads]:
    store = JobStore(database_url)
    yield PendingUploads(
        records=UploadRecords(store),
        storage=Storage.from_url(str(folder)),
        presigner=Presigner(None, 0.0),
        lifetime=60.0,
        limit=100,
        most_bytes=100,
        stall=1.0,
    )
    store.close()


def put(folder: Path, key: str, age: float = 0.0) -> Path:
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    for place in (path, *list(path.parents)[: len(Path(key).parts) - 2]):
        then = place.stat().st_mtime - age
        os.utime(place, (then, then))
    return path


def test_objects_without_a_record_go_once_they_are_old(pending: PendingUploads, folder: Path) -> None:
    known = asyncio.run(pending.announce("ann", "p.nii", 5, None))
    kept = {
        put(folder, f"uploads/{known.id}/content", 2 * ORPHAN_AGE),
        put(folder, "uploads/recent/content"),
    }
    put(folder, "uploads/ancient/parts/0", 2 * ORPHAN_AGE)
    assert asyncio.run(pending.sweep()) == 1
    assert {path for path in folder.rglob("*") if path.is_file()} == kept


def test_an_object_that_is_being_written_is_nobodys_orphan(pending: PendingUploads, folder: Path) -> None:
    """The store names no object that is not complete."""
    partial = put(folder, "uploads/new/parts/0#1")
    assert asyncio.run(pending.sweep()) == 0
    assert partial.exists()


def test_an_upload_that_cannot_be_removed_keeps_no_other(
    pending: PendingUploads, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "_lifetime", 0.5)
    uploads = [asyncio.run(pending.announce("ann", f"{n}.nii", 5, None)) for n in range(3)]
    put(folder, "uploads/ancient/parts/0", 2 * ORPHAN_AGE)
    put(folder, "uploads/stubborn/parts/0", 2 * ORPHAN_AGE)
    time.sleep(0.6)
    stuck = {f"uploads/{uploads[1].id}", "uploads/stubborn"}
    remove = Storage.delete_prefix

    async def refuse(storage: Storage, prefix: str) -> int:
        if prefix in stuck:
            raise PermissionError
        return await remove(storage, prefix)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "delete_prefix", refuse)
        with pytest.raises(IncompleteSweepError) as told:
            asyncio.run(pending.sweep())
    assert told.value.removed == 3
    assert asyncio.run(pending.sweep()) == 2
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_the_rest_of_used_uploads_goes_and_a_store_that_is_away_is_no_matter(
    pending: PendingUploads, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, "uploads/used/parts/0")
    with monkeypatch.context() as patch:

        async def away(_self: Storage, _prefix: str) -> int:
            raise OSError

        patch.setattr(Storage, "delete_prefix", away)
        asyncio.run(pending.discard(["used"]))
    assert (folder / "uploads/used").exists()
    asyncio.run(pending.discard(["used"]))
    assert not (folder / "uploads/used").exists()
