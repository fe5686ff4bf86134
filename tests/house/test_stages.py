"""The table of stages is the single truth: it hangs together, and its page says what it says."""

import runpy
from pathlib import Path

import pytest

from qsm_ai.reconstruction.stages import ARTEFACTS, STAGES

ROOT = Path(__file__).parents[2]
GENERATE = runpy.run_path(str(ROOT / "docs/generate.py"))
INPUTS = {"phase", "magnitude"}


@pytest.mark.parametrize("name", GENERATE["PAGES"])
def test_a_generated_page_is_current(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == GENERATE["PAGES"][name](), "run make docs"


def test_every_artefact_is_made_by_one_stage() -> None:
    made = [name for stage in STAGES for name in stage.produces]
    assert sorted(made) == sorted(ARTEFACTS)


def test_a_stage_takes_only_what_was_made_before_it() -> None:
    known = set(INPUTS)
    for stage in STAGES:
        assert set(stage.consumes) <= known, stage.name
        known |= set(stage.produces)


def test_the_shares_of_the_time_add_up() -> None:
    assert sum(stage.share for stage in STAGES) == pytest.approx(1.0)


def test_names_and_files_are_unambiguous() -> None:
    assert len({stage.name for stage in STAGES}) == len(STAGES)
    assert len({artefact.suffix for artefact in ARTEFACTS.values()}) == len(ARTEFACTS)
    assert all(low < high for low, high in (artefact.window for artefact in ARTEFACTS.values()))
