"""``qsm-ai benchmark``, from the command line to JSON."""

import json
import platform
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("qsm_ci")
pytest.importorskip("qsm_forward")

from qsm_ai.benchmark import cases
from qsm_ai.benchmark.cases import Case
from qsm_ai.cli import app
from qsm_ai.inference.repository import model_file
from qsm_ai.reconstruction.pipeline import PASSES

runner = CliRunner()

NEVER = Case("never asked for", axis="SNR", anatomy="labelled")


@pytest.fixture
def _one_coarse_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "CASES", (Case("very coarse", voxel_size=(5.0, 5.0, 5.0)), NEVER))


@pytest.mark.usefixtures("_one_coarse_case")
def test_accuracy_prints_a_row_for_each_start_and_writes_the_same(tmp_path: Path) -> None:
    output = tmp_path / "results" / "accuracy.json"
    arguments = ["benchmark", "accuracy", "--case", "very coarse", "--method", "tkd"]
    answer = runner.invoke(app, [*arguments, "--output", str(output)])
    assert answer.exit_code == 0, answer.output
    record = json.loads(output.read_text())
    assert [(s["case"], s["start"], s["method"]) for s in record["scores"]] == [
        ("very coarse", "phase", "tkd"),
        ("very coarse", "total field", "tkd"),
        ("very coarse", "local field", "tkd"),
    ]
    for row in record["scores"]:
        inner, whole = row["quality"]["interior"], row["quality"]["brain"]
        assert f"{inner['nrmse']:.1f} / {whole['nrmse']:.1f}" in answer.stdout
        assert f"{inner['xsim']:.3f} / {whole['xsim']:.3f}" in answer.stdout


@pytest.mark.usefixtures("_one_coarse_case")
def test_an_interrupted_run_goes_on_and_a_fresh_one_begins_anew(tmp_path: Path) -> None:
    output = tmp_path / "accuracy.json"
    arguments = ["benchmark", "accuracy", "--method", "tkd", "--axis", "heads", "-o", str(output)]
    assert runner.invoke(app, [*arguments, "--start", "phase"]).exit_code == 0
    first = json.loads(output.read_text())["scores"]
    assert len(first) == 1
    answer = runner.invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    assert "| very coarse | phase |" not in answer.stdout
    second = json.loads(output.read_text())["scores"]
    assert len(second) == 3
    assert second[0] == first[0]
    answer = runner.invoke(app, [*arguments, "--start", "phase", "--fresh"])
    assert "| very coarse | phase |" in answer.stdout


@pytest.mark.usefixtures("_one_coarse_case")
def test_heads_with_real_anatomy_are_left_out_aloud_where_there_are_no_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QSM_SHARED_DATA", raising=False)
    output = tmp_path / "accuracy.json"
    answer = runner.invoke(
        app, ["benchmark", "accuracy", "--method", "tkd", "--axis", "SNR", "-o", str(output)]
    )
    assert answer.exit_code == 0, answer.output
    assert "--labels" in answer.stderr
    assert json.loads(output.read_text())["scores"] == []


@pytest.mark.usefixtures("_one_coarse_case")
def test_a_record_tells_all_that_is_needed_to_measure_again_and_not_whose_machine_it_was(
    tmp_path: Path,
) -> None:
    output = tmp_path / "accuracy.json"
    answer = runner.invoke(
        app, ["benchmark", "accuracy", "--case", "very coarse", "--method", "tkd", "-o", str(output)]
    )
    assert answer.exit_code == 0, answer.output
    text = output.read_text()
    record = json.loads(text)
    assert record["command"] == 'qsm-ai benchmark accuracy --case "very coarse" --method tkd'
    assert record["network"] is None
    assert record["machine"]["cores"] >= 1
    assert record["machine"]["cpu"]
    assert {"python", "qsm-ai", "numpy", "scipy", "qsm-ci", "qsm-forward"} <= set(record["versions"])
    assert record["date"].endswith("+00:00")
    assert str(tmp_path) not in text
    assert platform.node() not in text


@pytest.mark.usefixtures("_one_coarse_case")
def test_markdown_is_a_table_and_nothing_else(tmp_path: Path) -> None:
    arguments = ["benchmark", "accuracy", "--case", "very coarse", "--method", "tkd", "--markdown"]
    answer = runner.invoke(app, [*arguments, "--output", str(tmp_path / "a.json")])
    lines = answer.stdout.splitlines()
    assert len(lines) == 5
    assert {line.count("|") for line in lines} == {8}
    assert lines[1].startswith("| --- | --- | --- | ---: |")


def test_an_unknown_phantom_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    output = tmp_path / "a.json"
    answer = runner.invoke(app, ["benchmark", "accuracy", "--case", "nobody", "--output", str(output)])
    assert answer.exit_code == 2
    assert "quick reference" in answer.stderr
    assert not output.exists()


def test_speed_times_every_stage_and_sets_a_floor_beside_it(tmp_path: Path) -> None:
    output = tmp_path / "speed.json"
    arguments = ["benchmark", "speed", "--shape", "40", "--repeat", "1", "--method", "tkd"]
    answer = runner.invoke(app, [*arguments, "--output", str(output), "--markdown"])
    assert answer.exit_code == 0, answer.output
    timing = json.loads(output.read_text())["timing"]
    stages = {stage["stage"]: stage for stage in timing["stages"]}
    assert list(stages) == ["mask", "field_mapping", "background", "inversion", "physics_check"]
    assert stages["inversion"]["transforms"] == 2
    assert stages["background"]["transforms"] > 80
    for stage in stages.values():
        assert (stage["floor"] is None) == (stage["transforms"] == 0)
        assert stage["stage"] in answer.stdout
    assert timing["floor"] == pytest.approx(sum(s["floor"] or 0 for s in stages.values()))
    assert timing["peak_memory"] > 2**26
    assert timing["network"] is None
    assert "whole run" in answer.stdout


@pytest.mark.slow
def test_speed_of_the_network_is_held_against_its_operations(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    output = tmp_path / "speed.json"
    answer = runner.invoke(app, ["benchmark", "speed", "--shape", "40", "--repeat", "1", "-o", str(output)])
    assert answer.exit_code == 0, answer.output
    record = json.loads(output.read_text())
    timing = record["timing"]
    stage = next(stage for stage in timing["stages"] if stage["stage"] == "network")
    assert timing["patches"] == PASSES  # one patch, predicted again and again
    assert stage["operations"] > 1e10
    # Between its passes the stage removes the background again, by transforms.
    network = stage["operations"] / timing["convolution_rate"]
    assert network < stage["floor"]
    assert record["network"]["sha256"][:12] in timing["network"]
    assert model_file().name not in record["command"]
