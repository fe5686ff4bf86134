"""A batch goes on whatever befalls one of its scans, and is refused only where nothing can be written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from qsm_ai.client import ServiceError
from qsm_ai.inference.errors import BadAnswer, InferenceFailure
from qsm_ai.remote.batch import Ended, run_batch
from qsm_ai.remote.engines import Made, Note, Tell
from qsm_ai.remote.ledger import NAME, Entry
from qsm_ai.remote.scans import RESULTS, FoundScan
from qsm_ai.scan import OutputRefusal, Refusal


class Silent:
    """Shows nothing, and knows what it was told."""

    def __init__(self) -> None:
        self.told: list[Ended] = []

    def began(self, scan: str) -> None: ...

    def at(self, scan: str, title: str, fraction: float) -> None: ...

    def ended(self, ended: Ended) -> None:
        self.told.append(ended)


class Faulty:
    """Makes a file of every scan but those that are to fail."""

    def __init__(self, **faults: Exception) -> None:
        self.faults = faults
        self.asked: list[str] = []

    async def run(self, scan: FoundScan, entry: Entry, folder: Path, tell: Tell, note: Note) -> Made:
        del entry, tell, note
        self.asked.append(scan.name)
        await asyncio.sleep(0)
        if scan.name in self.faults:
            raise self.faults[scan.name]
        await asyncio.to_thread(self.write, folder)
        return Made(("chi.nii.gz",), 0.9)

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "chi.nii.gz").write_bytes(b"map")


class InTheWay(Faulty):
    """Leaves a folder where the state of the batch is to be written."""

    def write(self, folder: Path) -> None:
        super().write(folder)
        (folder.parent / f"{NAME}.part").mkdir(exist_ok=True)


@pytest.fixture
def scans(tmp_path: Path) -> list[FoundScan]:
    found = []
    for name in ("a", "b", "c"):
        phase = tmp_path / f"{name}_phase.nii"
        phase.write_bytes(name.encode())
        found.append(FoundScan(name, RESULTS / name, (phase,)))
    return found


def run(
    scans: Sequence[FoundScan], engine: Faulty, output: Path, display: Silent | None = None
) -> list[Ended]:
    return asyncio.run(run_batch(scans, engine, output, {}, at_once=2, display=display or Silent()))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ServiceError("queue-full", "Full.", "Later."), "Full. Later."),
        (Refusal("No.", mend="Yes."), "No. Yes."),
        (BadAnswer("Not finite.", mend="Look at the log."), "Not finite. Look at the log."),
        (InferenceFailure("Down.", mend="Start it."), "Down. Start it."),
        (OSError(28, "No space left on device"), "No space left on device"),
        (MemoryError(), "memory"),
        (KeyError("chi"), "KeyError"),
        (ExceptionGroup("several", [ValueError("x")]), "ExceptionGroup"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_the_failure_of_one_scan_holds_up_no_other(
    scans: list[FoundScan], tmp_path: Path, fault: Exception, words: str
) -> None:
    display = Silent()
    ended = run(scans, Faulty(b=fault), tmp_path, display)
    assert [(one.scan, one.state) for one in ended] == [("a", "done"), ("b", "failed"), ("c", "done")]
    assert words in str(ended[1].problem)
    assert {one.scan for one in display.told} == {"a", "b", "c"}
    entry = json.loads((tmp_path / RESULTS / NAME).read_text())["scans"]["b"]
    assert (entry["state"], entry["problem"]) == ("failed", ended[1].problem)


def test_the_next_run_does_what_failed_and_nothing_else(scans: list[FoundScan], tmp_path: Path) -> None:
    run(scans, Faulty(b=BadAnswer("Not finite.", mend="Again.")), tmp_path)
    mended = Faulty()
    assert [one.state for one in run(scans, mended, tmp_path)] == ["there", "done", "there"]
    assert mended.asked == ["b"]


def test_a_scan_whose_file_has_gone_holds_up_no_other(scans: list[FoundScan], tmp_path: Path) -> None:
    scans[0].phase[0].unlink()
    ended = run(scans, Faulty(), tmp_path)
    assert [one.state for one in ended] == ["failed", "done", "done"]
    assert "No such file" in str(ended[0].problem)


def test_a_batch_that_cannot_be_written_down_is_refused_in_one_sentence(
    scans: list[FoundScan], tmp_path: Path
) -> None:
    with pytest.raises(OutputRefusal, match="Is a directory"):
        run(scans, InTheWay(), tmp_path)


def test_what_a_file_manager_leaves_beside_slices_makes_no_other_scan(tmp_path: Path) -> None:
    folder = tmp_path / "sub-1"
    folder.mkdir()
    (folder / "slice.dcm").write_bytes(b"x")
    scan = FoundScan("sub-1", RESULTS / "sub-1", source=folder)
    assert run([scan], Faulty(), tmp_path)[0].state == "done"
    (folder / ".DS_Store").write_bytes(b"icons")
    assert run([scan], Faulty(), tmp_path)[0].state == "there"
    (folder / "another.dcm").write_bytes(b"y")
    assert run([scan], Faulty(), tmp_path)[0].state == "done"
