"""What is measured, and what is not measured again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("qsm_ci")
pytest.importorskip("qsm_forward")

from qsm_ai.benchmark.accuracy import STARTS, Score, key_of, measure, read_scores, slice_file
from qsm_ai.benchmark.cases import Case
from qsm_ai.benchmark.charts import draw_maps
from qsm_ai.benchmark.record import write_record
from qsm_ai.benchmark.report import BEGIN, END, write_report

CASE = Case("coarse", axis="reference", voxel_size=(5.0, 5.0, 5.0), lesion=-3.0)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slices")


@pytest.fixture(scope="module")
def scores(slices: Path) -> list[Score]:
    return measure([CASE], None, ("tkd", "tikhonov"), slices=slices)


def test_every_start_and_method_is_measured(scores: list[Score]) -> None:
    expected = [(start, method) for start in STARTS for method in ("tkd", "tikhonov")]
    assert [(s.start, s.method) for s in scores] == expected
    assert all(0 < s.quality.interior["nrmse"] < 200 for s in scores)
    assert all(s.seconds > 0 for s in scores)
    assert len({s.key for s in scores}) == len(scores)


def test_the_later_the_start_the_smaller_the_error(scores: list[Score]) -> None:
    phase, total, local = (next(s for s in scores if s.start == start) for start in STARTS)
    assert local.quality.brain["nrmse"] < total.quality.brain["nrmse"] < phase.quality.brain["nrmse"]


def test_what_is_known_is_not_measured_again(scores: list[Score]) -> None:
    told: list[Score] = []
    again = measure([CASE], None, ("tkd", "tikhonov"), done=scores, tell=told.append)
    assert again == scores
    assert not told
    measure([CASE], None, ("tkd", "tikhonov"), ("local field",), done=scores[:-1], tell=told.append)
    assert [s.key for s in told] == [scores[-1].key]


def test_a_score_is_kept_for_as_long_as_phantom_weights_and_code_stay() -> None:
    key = key_of(CASE, "phase", "qsm-vit", "abc")
    assert key != key_of(CASE, "phase", "qsm-vit", "abd")
    assert key != key_of(Case("coarse", axis="reference", lesion=-3.0), "phase", "qsm-vit", "abc")
    assert key_of(CASE, "phase", "tv", "abc") == key_of(CASE, "phase", "tv", "abd")
    assert key_of(CASE, "phase", "tv", "", "this code") != key_of(CASE, "phase", "tv", "", "that code")


def test_scores_survive_being_written_and_read(scores: list[Score], tmp_path: Path) -> None:
    record = tmp_path / "accuracy.json"
    write_record(record, ["qsm-ai"], None, scores=[s.as_dict() for s in scores])
    assert read_scores(record) == scores


@pytest.mark.parametrize("text", ["", "{}", '{"scores": [{"case": "of an older form", "nrmse": 3}]}'])
def test_a_record_that_cannot_be_read_holds_no_scores(tmp_path: Path, text: str) -> None:
    (tmp_path / "accuracy.json").write_text(text)
    assert read_scores(tmp_path / "accuracy.json") == []


def test_slices_of_truth_and_maps_are_kept(scores: list[Score], slices: Path) -> None:
    truth = np.load(slice_file(slices, CASE.name, "truth"))
    assert truth.min() < -1
    assert np.load(slice_file(slices, CASE.name, "phase, tkd")).shape == truth.shape


def test_maps_are_drawn_of_one_set_where_another_has_scores_and_no_slices(
    scores: list[Score], slices: Path, tmp_path: Path
) -> None:
    for kind in ("truth", "phase, tkd"):
        slice_file(tmp_path, "quick reference", kind).write_bytes(
            slice_file(slices, CASE.name, kind).read_bytes()
        )
    both = [replace(score, case=name) for name in ("quick reference", "bare head") for score in scores]
    assert draw_maps(both, tmp_path, tmp_path / "maps.png")
    assert not draw_maps([s for s in both if s.case == "bare head"], tmp_path, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_head_with_real_anatomy_needs_its_labels() -> None:
    with pytest.raises(ValueError, match="labels"):
        measure([Case("labelled", anatomy="labelled")], None, ("tkd",))


def test_the_report_goes_between_its_marks_and_leaves_the_rest(scores: list[Score], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    record = tmp_path / "accuracy.json"
    write_record(record, ["qsm-ai", "benchmark", "accuracy"], None, scores=[s.as_dict() for s in scores])
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Benchmarks\n\n{BEGIN}\n\nold\n\n{END}\n\n## Speed\n")
    write_report(record, tmp_path)
    write_report(record, tmp_path)
    text = page.read_text()
    assert text.startswith("# Benchmarks\n")
    assert text.endswith("## Speed\n")
    assert "old" not in text
    assert text.count(BEGIN) == text.count("#### From phase") == text.count("#### Lesions") == 1
    nrmse = scores[0].quality
    assert f"{nrmse.interior['nrmse']:.1f} / {nrmse.brain['nrmse']:.1f}" in text
