"""The record of an upload says which objects it is made of, whoever sends what at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from qsm_ai.api.upload_records import (
    NoRoomForUploadError,
    Part,
    PendingUpload,
    UploadNotFoundError,
    UploadRecords,
    new_name,
)
from qsm_ai.jobs.errors import OwnerStorageError
from qsm_ai.jobs.store import JobStore

HOUR = 3600.0


class Clock:
    """That of the database server: no machine's own."""

    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(database_url: str, clock: Clock) -> Iterator[UploadRecords]:
    store = JobStore(database_url, clock)
    yield UploadRecords(store)
    store.close()


def announce(records: UploadRecords, name: str = "a" * 32, size: int = 10) -> PendingUpload:
    upload = PendingUpload(name, "ann", "p.nii", size)
    return records.add(upload, lifetime=HOUR, most_bytes=100)


def a_part(start: int = 0, sha256: str = "x") -> Part:
    return Part(new_name(start), sha256)


def test_parts_follow_each_other(records: UploadRecords) -> None:
    upload = announce(records)
    first, second = a_part(0), a_part(4)
    assert records.advance(upload, first, 4)
    half = records.get(upload.id, "ann")
    assert (half.received, half.parts, half.digest) == (4, (first,), None)
    assert records.advance(half, second, 6)
    whole = records.get(upload.id, "ann")
    assert (whole.received, whole.parts) == (10, (first, second))
    assert whole.part_key(second.name).startswith(f"uploads/{upload.id}/parts/{4:016d}-")


def test_of_two_that_send_the_same_part_one_is_taken(records: UploadRecords) -> None:
    upload = announce(records)
    parts = [a_part() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(lambda part: records.advance(upload, part, 10), parts))
    assert sum(taken) == 1
    assert records.get(upload.id, "ann").parts == (parts[taken.index(True)],)


def test_who_began_before_the_file_was_replaced_comes_too_late(records: UploadRecords) -> None:
    """Even where as many bytes are there again."""
    upload = announce(records)
    records.advance(upload, a_part(), 4)
    before = records.get(upload.id, "ann")
    assert records.start_over(before)
    assert records.get(upload.id, "ann").received == 0
    other = a_part()
    assert records.advance(upload, other, 4)
    assert not records.advance(before, a_part(4), 6)
    assert not records.start_over(before)
    assert records.get(upload.id, "ann").parts == (other,)


def test_what_was_recorded_and_not_answered_may_be_recorded_again(records: UploadRecords) -> None:
    upload, part = announce(records), a_part()
    assert announce(records) == upload
    assert [records.advance(upload, part, 4) for _ in range(2)] == [True, True]
    half = records.get(upload.id, "ann")
    assert half.parts == (part,)
    assert [records.start_over(half) for _ in range(2)] == [True, True]


def test_a_deleted_upload_takes_no_part(records: UploadRecords) -> None:
    upload = announce(records)
    records.delete(upload.id)
    assert not records.advance(upload, a_part(), 4)
    assert not records.start_over(upload)
    with pytest.raises(UploadNotFoundError):
        records.get(upload.id, "ann")


def test_the_digest_is_the_announced_one_or_that_of_the_only_part(records: UploadRecords) -> None:
    upload = announce(records)
    assert upload.digest is None
    records.advance(upload, a_part(sha256="found"), 10)
    found = records.get(upload.id, "ann")
    assert (found.digest, found.sha256) == ("found", None)
    assert replace(found, sha256="announced").digest == "announced"


def test_uploads_expire_by_the_databases_clock(records: UploadRecords, clock: Clock) -> None:
    upload = announce(records)
    assert (upload.created_at, upload.expires_at) == (5000.0, 5000.0 + HOUR)
    clock.now += HOUR
    assert records.expired() == [upload.id]
    assert records.of("ann") == []
    assert records.known_ids() == {upload.id}
    with pytest.raises(UploadNotFoundError):
        records.get(upload.id, "ann")


def test_an_owner_announces_no_more_than_there_is_room_for(records: UploadRecords) -> None:
    announce(records, "a" * 32, 60)
    with pytest.raises(NoRoomForUploadError):
        announce(records, "b" * 32, 41)
    upload = PendingUpload("c" * 32, "ann", "p.nii", 20)
    with pytest.raises(OwnerStorageError):
        records.add(upload, lifetime=HOUR, most_bytes=100, max_stored=79)
    assert records.known_ids() == {"a" * 32}
