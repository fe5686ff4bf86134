"""What the commands for a service say before there is one, and how they show what it tells."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from qsm_ai.cli import app
from qsm_ai.client import Client, Job, ServiceError
from qsm_ai.client.records import job_from
from qsm_ai.remote.commands import ADDRESS

if TYPE_CHECKING:
    from tests.conftest import Files

RUNNING: dict[str, Any] = {
    "id": "0123456789abcdef" * 2,
    "state": "running",
    "stage": "field_mapping",
    "title": "Unwrapping and fitting the echoes",
    "fraction": 0.4,
    "created_at": "2026-01-02T03:04:05Z",
    "files": [{"name": "[bold]phase[/b].nii.gz"}],
}
CHI = {
    "name": "chi", "title": "Susceptibility", "unit": "ppm", "file": "local_Chimap.nii.gz", "size": 1,
    "window": [-0.1, 0.2], "shape": [1, 1, 1], "voxel_size": [1, 1, 1],
}  # fmt: skip
MASK = {**CHI, "name": "mask", "file": "local_mask.nii.gz"}
DONE = {**RUNNING, "state": "done", "artefacts": [CHI, MASK]}


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service whose every job is done, with files that say which they are."""

    def fetch(_client: Client, _job: str, name: str, path: Path, *, direct: bool = False) -> Path:
        path.write_text(json.dumps({"artefacts": {}}) if name == "report" else name)
        return path

    monkeypatch.setattr(Client, "submit", lambda *_, **__: job_from(RUNNING))
    monkeypatch.setattr(Client, "follow", lambda *_: iter([job_from(DONE)]))
    monkeypatch.setattr(Client, "job", lambda *_: job_from(DONE))
    monkeypatch.setattr(Client, "fetch", fetch)


def test_the_list_says_where_each_scan_lies(tmp_path: Path) -> None:
    for folder in ("Mü ller", "M ller", "dicom/1"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("Mü ller", "M ller"):
        (tmp_path / folder / "phase.nii").touch()
    (tmp_path / "dicom/1/IM1").touch()
    result = CliRunner().invoke(app, ["batch", str(tmp_path), "--list"])
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert len({row[0] for row in rows}) == 3
    assert {row[2] for row in rows} == {"Mü ller", "M ller", "dicom"}


def test_jobs_are_listed_by_whole_ids_and_by_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "jobs", lambda *_: iter([job_from(RUNNING)]))
    listed = CliRunner().invoke(app, ["jobs"])
    assert listed.exit_code == 0, listed.output
    assert RUNNING["id"] in listed.stdout
    assert "[bold]phase[/b].nii.gz" in listed.stdout


def test_jobs_are_listed_on_the_clock_of_who_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "jobs", lambda *_: iter([job_from(RUNNING)]))
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert "2026-01-02 08:34" in CliRunner().invoke(app, ["jobs"]).stdout
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("command", ["cancel", "retry", "delete"])
def test_a_wrong_id_keeps_no_other_job_back(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(_: Client, one: str) -> Job:
        if one == "wrong":
            raise ServiceError("unknown-job", "There is no such job.", status=404)
        return job_from(RUNNING)

    monkeypatch.setattr(Client, command, act)
    ended = CliRunner().invoke(app, [command, "a" * 32, "wrong", "b" * 32])
    assert ended.exit_code == 1
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["a" * 32, "b" * 32]
    assert ended.stderr.startswith("wrong: There is no such job.")
    assert CliRunner().invoke(app, [command, "wrong"]).exit_code == 2


@pytest.mark.parametrize("status", [None, 401, 503])
def test_what_is_no_fault_of_one_job_ends_them_all(
    status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def act(_: Client, one: str) -> Job:
        asked.append(one)
        raise ServiceError("unwell", "Not now.", status=status)

    monkeypatch.setattr(Client, "cancel", act)
    assert CliRunner().invoke(app, ["cancel", "a" * 32, "b" * 32]).exit_code in (1, 2)
    assert asked == ["a" * 32]


@pytest.mark.parametrize("arguments", [["status", "--follow"], ["fetch"], ["delete"]])
def test_an_interruption_does_not_say_that_the_job_was_cancelled(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "job", interrupted)
    monkeypatch.setattr(Client, "delete", interrupted)
    ended = CliRunner().invoke(app, [*arguments, "0" * 32])
    assert ended.exit_code == 130
    assert "goes on" in ended.stderr
    assert "nothing was written" not in ended.stderr


@pytest.mark.parametrize("command", ["submit", "batch"])
def test_a_sign_that_does_not_exist_is_refused_and_not_taken_for_positive(
    command: str, tmp_path: Path
) -> None:
    (tmp_path / "phase.nii").touch()
    given = tmp_path if command == "batch" else tmp_path / "phase.nii"
    local = ["--local"] if command == "batch" else []
    refused = CliRunner().invoke(app, [command, str(given), *local, "--phase-sign", "neg"])
    assert refused.exit_code == 2
    assert "--phase-sign" in refused.stderr


@pytest.mark.parametrize("url", ["http://host:port", "http://[::1", "host:8080"])
def test_what_is_no_address_is_said_to_be_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    refused = CliRunner().invoke(app, ["jobs", "--url", url])
    assert refused.exit_code == 1
    assert "This is no address." in refused.stderr


def test_a_key_that_cannot_be_sent_is_said_to_be_none() -> None:
    refused = CliRunner().invoke(app, ["jobs", "--api-key", "schlüssel"])
    assert refused.exit_code == 1
    assert "The key holds characters" in refused.stderr


def test_the_service_is_sought_where_this_machine_starts_one() -> None:
    shown = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).output
    assert ADDRESS == "http://127.0.0.1:8080"
    assert "QSM_API_PORT] [default: 8080]" in " ".join(shown.split())


@pytest.mark.parametrize("option", ["", "--magnitude", "--mask", "--local-field"])
@pytest.mark.parametrize(("name", "why"), [("nowhere.nii", "does not exist"), ("folder", "is a folder")])
def test_a_file_that_cannot_be_read_is_named_before_anything_is_sent(
    option: str, name: str, why: str, files: Files, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    phase = [] if option in ("", "--local-field") else [str(files.phase)]
    given = [*phase, option, str(tmp_path / name)] if option else [str(files.phase), str(tmp_path / name)]
    refused = CliRunner().invoke(app, ["submit", *given])
    assert refused.exit_code == 2
    assert f"{name}: {why}" in refused.stderr


def test_what_was_sent_is_not_replaced_by_what_is_fetched(done: None, files: Files, tmp_path: Path) -> None:
    mask = tmp_path / "local_mask.nii.gz"
    shutil.copy(files.mask, mask)
    sent = ["submit", "--local-field", str(files.local_field), "--mask", str(mask), "-q", "-o"]
    refused = CliRunner().invoke(app, [*sent, str(tmp_path)])
    assert refused.exit_code == 2, refused.output
    assert "local_mask.nii.gz: was given" in refused.stderr
    assert mask.read_bytes() == files.mask.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [mask.name]
    fetched = CliRunner().invoke(app, [*sent, str(tmp_path / "out")])
    assert fetched.exit_code == 0, fetched.output
    assert (tmp_path / "out/local_mask.nii.gz").read_text() == "mask"


def test_volumes_of_an_earlier_run_do_not_pass_for_those_that_are_fetched(done: None, tmp_path: Path) -> None:
    error, other = tmp_path / "local_Chierror.nii.gz", tmp_path / "other_Chierror.nii.gz"
    for path in (error, other):
        path.write_text("of another map")
    earlier = {"artefacts": {"chi_uncertainty": {"file": error.name}}}
    (tmp_path / "local_qsm.json").write_text(json.dumps(earlier))
    one = CliRunner().invoke(app, ["fetch", RUNNING["id"], "-o", str(tmp_path), "--artefact", "mask"])
    assert one.exit_code == 0, one.output
    assert error.exists()
    everything = CliRunner().invoke(app, ["fetch", RUNNING["id"], "-o", str(tmp_path)])
    assert everything.exit_code == 0, everything.output
    assert not error.exists()
    assert other.exists()
