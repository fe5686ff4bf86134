"""``qsm-ai train``, ``qsm-ai export`` and ``qsm-ai ablate``, as people run them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from qsm_ai.network import examples  # noqa: E402
from qsm_ai.network.commands import (  # noqa: E402
    VALIDATION_EXAMPLES,
    VALIDATION_SEED,
    app,
    make_examples,
)
from qsm_ai.network.export import load_checkpoint  # noqa: E402
from qsm_ai.network.training import Plan, Trainer  # noqa: E402
from qsm_ai.reconstruction.pipeline import PASSES  # noqa: E402

if TYPE_CHECKING:
    from qsm_ai.network.qsm_vit import QsmVit

    Make = Callable[..., QsmVit]

SMALL = ["--crop", "24", "--large-crop", "24", "--batch", "1", "--threads", "1"]
EXAMPLES = 8


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """All that the makers would make lies there already: they find nothing to do."""
    rng = np.random.default_rng(0)
    for name, first, count in (("train", 0, EXAMPLES), ("validation", VALIDATION_SEED, VALIDATION_EXAMPLES)):
        folder = tmp_path / "pool" / name
        folder.mkdir(parents=True)
        for number in range(first, first + count):
            stack = rng.standard_normal((8, 24, 24, 24)).astype(np.float16)
            stack[-1] = 1
            np.save(folder / f"{number:06d}-0.npy", stack)
    return tmp_path / "pool"


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "curve.csv").open() as file:
        return list(csv.DictReader(file))


def test_training_goes_on_where_it_was_left(tmp_path: Path, pool: Path) -> None:
    folder = tmp_path / "run"
    common = ["--directory", folder, "--pool", pool, "--examples", EXAMPLES, *SMALL]
    code, output = run("train", *common, "--steps", 1)
    assert code == 0, output
    assert "1 steps done" in output
    code, output = run("train", *common, "--steps", 2)
    assert code == 0, output
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    assert [float(row["step"]) for row in rows(folder)] == [1, 2]
    assert all(np.isfinite(float(value)) for row in rows(folder) for value in row.values())


def test_time_ends_a_training_and_its_weights_are_kept(tmp_path: Path, pool: Path) -> None:
    common = ["--directory", tmp_path / "run", "--pool", pool, "--examples", EXAMPLES, *SMALL]
    kept = tmp_path / "kept" / "weights.pt"
    code, output = run("train", *common, "--steps", 10**6, "--minutes", 0.02, "--keep", kept)
    assert code == 0, output
    assert 0 < float(rows(tmp_path / "run")[-1]["step"]) < 1000
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt").state_dict()
    for name, value in load_checkpoint(kept).state_dict().items():
        np.testing.assert_allclose(value, state[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--crop", "20", "multiples of 8"),
        ("--large-crop", "8", "multiples of 8"),
        ("--labels", "no.nii", "exist"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_made(
    option: str, value: str, said: str, tmp_path: Path
) -> None:
    code, output = run("train", "--directory", tmp_path / "run", option, value)
    assert code == 2
    assert said in " ".join(output.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--start", "--unroll"])
def test_a_checkpoint_that_cannot_see_examples_is_refused(
    option: str, tmp_path: Path, small_network: Make
) -> None:
    Trainer(Plan(), tmp_path / "old", model=small_network(5, channels=5)).save()
    other = tmp_path / "notes.pt"
    other.write_text("no network")
    for path, said in (
        (tmp_path / "old" / "checkpoint.pt", "has 5 inputs; examples have 6"),
        (other, "notes.pt is no checkpoint"),
    ):
        code, output = run("train", "--directory", tmp_path / "run", option, path)
        assert code == 2
        assert said in " ".join(output.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


def test_a_network_of_other_inputs_is_not_exported(tmp_path: Path, small_network: Make) -> None:
    pytest.importorskip("onnxscript")
    Trainer(Plan(), tmp_path, model=small_network(5, channels=5)).save()
    code, output = run("export", tmp_path / "checkpoint.pt", tmp_path / "models" / "model.onnx")
    assert code == 2
    assert "has 5 inputs; examples have 6" in " ".join(output.replace("│", " ").split())
    assert not (tmp_path / "models").exists()


def test_examples_go_through_an_earlier_training(
    tmp_path: Path, small_network: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer(Plan(), tmp_path, model=small_network(5)).save()
    monkeypatch.setattr(examples, "voxel_to_learn_from", lambda rng: (4.0, 4.5, 5.0))
    make_examples(tmp_path / "without", range(2, 3), None, None)
    make_examples(tmp_path / "with", range(2, 3), None, tmp_path / "checkpoint.pt")
    without, through = (sorted((tmp_path / name).glob("000002-*.npy")) for name in ("without", "with"))
    assert len(through) == len(without) + PASSES - 1
    for one, other in zip(without, through, strict=False):
        np.testing.assert_array_equal(np.load(one), np.load(other))


def test_a_checkpoint_becomes_a_model_that_computes_the_same(tmp_path: Path, small_network: Make) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    Trainer(Plan(), tmp_path, model=small_network(5)).save()
    target = tmp_path / "models" / "1" / "model.onnx"
    code, output = run("export", tmp_path / "checkpoint.pt", target, "--keep", tmp_path / "kept.pt")
    assert code == 0, output
    assert [p.name for p in target.parent.iterdir()] == ["model.onnx"]
    for backend in ("ONNX Runtime float32", "OpenVINO f32", "OpenVINO bf16"):
        assert backend in output
    assert (tmp_path / "kept.pt").stat().st_size < 0.3 * (tmp_path / "checkpoint.pt").stat().st_size
    load_checkpoint(tmp_path / "kept.pt")


def test_a_model_that_computes_something_else_replaces_nothing(
    tmp_path: Path, small_network: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qsm_ai.network import export

    Trainer(Plan(), tmp_path, model=small_network(5)).save()
    other = small_network(6)
    target = tmp_path / "model.onnx"
    target.write_bytes(b"the model in use")
    # A fault of the exporter: it writes the weights of another network, of patches as small as can be.
    real = export.export_onnx
    monkeypatch.setattr(export, "export_onnx", lambda model, path: real(other, path, edge=8))
    compare = export.parity
    monkeypatch.setattr(export, "parity", lambda model, path: compare(model, path, edge=8))
    code, output = run("export", tmp_path / "checkpoint.pt", target)
    assert code == 1
    assert "model.onnx stays as it was" in output
    assert target.read_bytes() == b"the model in use"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "model.onnx"]


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing of the kind")
    code, output = run("export", tmp_path / "checkpoint.pt", tmp_path / "model.onnx")
    assert code == 2
    assert "no checkpoint of QSM-ViT" in " ".join(output.split())
    assert not (tmp_path / "model.onnx").exists()


def test_variants_are_trained_and_come_out_as_a_table(tmp_path: Path) -> None:
    few = ["--steps", "20", "--edge", "32", "--heads", "6", "--judges", "6", "--threads", "1"]
    chosen = ["--only", "as it is", "--only", "consistency in the loss"]
    code, output = run("ablate", *few, *chosen, "--pool", tmp_path)
    assert code == 0, output
    table = [line.split("|")[1].strip() for line in output.splitlines() if line.startswith("|")]
    assert table == ["variant", "---", "as it is", "consistency in the loss", "*uncorrected*"]


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--only", "with luck"], "There is no variant 'with luck'"), (["--edge", "36"], "multiples of 8")],
)
def test_variants_that_cannot_be_are_refused_before_anything_is_made(
    tmp_path: Path, options: list[str], said: str
) -> None:
    code, output = run("ablate", *options, "--pool", tmp_path / "pool")
    assert code == 2
    assert said in " ".join(output.replace("│", " ").split())
    assert not (tmp_path / "pool").exists()
