"""The database follows the program: up, down, once, and never beyond what the program knows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from qsm_ai.api.upload_records import UploadRecords
from qsm_ai.jobs import schema
from qsm_ai.jobs.database import Database
from qsm_ai.jobs.errors import DatabaseMismatchError
from qsm_ai.jobs.records import State
from qsm_ai.jobs.store import JobStore
from qsm_ai.jobs.tables import METADATA

OLD_JOB = {
    "id": "a" * 32, "owner": "ann", "state": "done", "parameters": json.dumps({"method": "tv"}),
    "uploads": json.dumps([{"role": "phase", "name": "p", "key": "uploads/0", "size": 70, "sha256": "x"}]),
    "summary": json.dumps({"voxels": 1000, "echoes": 3}), "priority": 0, "attempt": 1, "lost": 0,
    "created_at": 1.0, "queued_at": 1.0, "started_at": 2.0, "finished_at": 5.0, "fraction": 1.0,
    "scores": "{}", "timings": "{}", "warnings": "[]", "artefacts": "[]",
    "others": json.dumps([{"file": "f", "key": "results/1/0", "size": 30, "media_type": "image/png"}]),
    "cancel_requested": False,
}  # fmt: skip


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


def shape_of(database: Database) -> dict[str, list[tuple[str, str, bool]]]:
    found = sa.inspect(database.engine)
    return {
        table: sorted((c["name"], str(c["type"]), bool(c["nullable"])) for c in found.get_columns(table))
        for table in found.get_table_names()
        if table != "alembic_version"
    }


def test_an_empty_database_gets_the_tables_that_the_program_uses(database: Database) -> None:
    schema.prepare(database)
    assert schema.revision(database) == schema.HEAD == schema.revisions()[-1]
    found = shape_of(database)
    for table in METADATA.sorted_tables:
        expected = {(column.name, column.nullable) for column in table.columns}
        assert {(name, nullable) for name, _, nullable in found[table.name]} == expected
        indexes = {index["name"] for index in sa.inspect(database.engine).get_indexes(table.name)}
        assert indexes == {index.name for index in table.indexes}


def test_every_migration_can_be_taken_back_and_made_again(database: Database) -> None:
    shapes = {}
    for revision in schema.revisions():
        schema.move(database, revision)
        shapes[revision] = shape_of(database)
    for revision in reversed(schema.revisions()):
        schema.move(database, revision)
        assert shape_of(database) == shapes[revision]
    schema.move(database, "base")
    assert shape_of(database) == {}
    schema.move(database, schema.HEAD)
    assert shape_of(database) == shapes[schema.HEAD]


def test_jobs_live_through_the_way_up_and_down(database: Database, database_url: str) -> None:
    schema.move(database, "0001")
    columns = ", ".join(OLD_JOB)
    values = ", ".join(f":{name}" for name in OLD_JOB)
    with database.writing() as connection:
        connection.execute(sa.text(f"INSERT INTO jobs ({columns}) VALUES ({values})"), OLD_JOB)  # noqa: S608
    store = JobStore(database_url)
    job = store.get("a" * 32)
    assert (job.state, job.method, job.uploads[0].size, job.others[0].file) == (State.DONE, "tv", 70, "f")
    assert store.pace("tv") == pytest.approx(3.0 / 3000)
    assert store.usage("ann").stored_bytes == 100
    store.close()
    schema.move(database, "0001")
    with database.reading() as connection:
        assert connection.execute(sa.text("SELECT state FROM jobs")).scalar_one() == "done"


def test_a_database_from_before_there_were_migrations_is_taken_over(
    database: Database, database_url: str
) -> None:
    schema.move(database, "0001")
    with database.writing() as connection:
        connection.execute(sa.text("DROP TABLE alembic_version"))
    JobStore(database_url).close()
    assert schema.revision(database) == schema.HEAD


def test_a_database_newer_than_the_program_is_refused_with_a_sentence(
    database: Database, database_url: str
) -> None:
    schema.prepare(database)
    with database.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    for migrate in (True, False):
        with pytest.raises(DatabaseMismatchError, match="newer version of QSM-AI"):
            JobStore(database_url, migrate=migrate)
    assert schema.revision(database) == "9999"


def test_without_leave_to_migrate_an_older_database_is_refused_and_left_alone(
    database: Database, database_url: str
) -> None:
    schema.move(database, "0001")
    with pytest.raises(DatabaseMismatchError, match="qsm-ai migrate"):
        JobStore(database_url, migrate=False)
    assert schema.revision(database) == "0001"


def test_backends_that_start_at_once_do_not_clash(database: Database, database_url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(JobStore, [database_url] * 6))
    for store in stores:
        assert store.waiting() == []
        store.close()
    assert schema.revision(database) == schema.HEAD


def test_processes_that_start_at_once_do_not_clash(database: Database, database_url: str) -> None:
    program = "import sys; from qsm_ai.jobs.store import JobStore; JobStore(sys.argv[1]).close()"
    started = [subprocess.Popen([sys.executable, "-c", program, database_url]) for _ in range(3)]
    assert [process.wait(120) for process in started] == [0, 0, 0]
    assert schema.revision(database) == schema.HEAD


def test_a_migration_that_fails_leaves_the_database_as_it_was(database: Database) -> None:
    schema.move(database, "0001")
    with database.writing() as connection:
        # What the second migration makes is there already: it fails in its middle.
        connection.execute(sa.text("CREATE TABLE workers (name VARCHAR(200))"))
    before = shape_of(database)
    with pytest.raises(sa.exc.DBAPIError):
        schema.move(database, schema.HEAD)
    assert shape_of(database) == before
    assert schema.revision(database) == "0001"


def test_an_upload_under_way_holds_nothing_once_parts_are_recorded(
    database: Database, database_url: str
) -> None:
    """Its client asks how much is there, and sends the rest: of parts that nobody knows there is none."""
    schema.move(database, "0004")
    columns = "id, owner, name, size, received, created_at, expires_at"
    values = "'u', 'ann', 'p.nii', 10, 4, 1.0, 9e9"
    with database.writing() as connection:
        connection.execute(sa.text(f"INSERT INTO uploads ({columns}) VALUES ({values})"))  # noqa: S608
    store = JobStore(database_url)
    found = UploadRecords(store).get("u", "ann")
    store.close()
    assert (found.size, found.received, found.parts) == (10, 0, ())
