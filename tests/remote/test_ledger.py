"""A batch knows what it has done, whatever interrupted it."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsm_ai.remote.ledger import NAME, Ledger, key_of
from qsm_ai.scan import OutputRefusal


def test_what_is_noted_is_known_to_the_next_run(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    (tmp_path / "a.nii").write_bytes(b"")
    ledger.note("one", ledger.get("one", "k1"), state="done", job="j", files=("a.nii",), score=0.5)
    again = Ledger(tmp_path)
    assert again.is_done("one", "k1")
    assert again.get("one", "k1").job == "j"


def test_results_that_are_gone_are_made_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.note("one", ledger.get("one", "k1"), state="done", files=("gone.nii",))
    assert not ledger.is_done("one", "k1")


def test_another_scan_or_other_options_begin_anew(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.note("one", ledger.get("one", "k1"), state="done", job="j")
    assert ledger.get("one", "k2").job is None
    assert not ledger.is_done("one", "k2")


def test_the_key_follows_content_and_options_and_nothing_else(tmp_path: Path) -> None:
    image = tmp_path / "phase.nii"
    image.write_bytes(b"1")
    key = key_of([("phase", image)], {"method": "tv", "b0": 3})
    assert len(key) == 64
    image.touch()
    assert key_of([("phase", image)], {"b0": 3, "method": "tv"}) == key
    assert key_of([("phase", image)], {"b0": 3, "method": "tkd"}) != key
    assert key_of([("magnitude", image)], {"method": "tv", "b0": 3}) != key
    image.write_bytes(b"2")
    assert key_of([("phase", image)], {"method": "tv", "b0": 3}) != key


@pytest.mark.parametrize(
    "content", ["", "[]", '{"scans": {"a": 1}}', '{"scans": {"a": {"files": [], "x": 1}}}']
)
def test_a_state_that_cannot_be_read_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    with pytest.raises(OutputRefusal, match="state of a batch"):
        Ledger(tmp_path)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputRefusal, match="--output"):
        Ledger(tmp_path / "file" / "below")
