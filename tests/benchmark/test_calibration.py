"""A calibration finds the error it was shown, tells how well, and knows what it has not seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.benchmark import calibration
from qsm_ai.benchmark.calibration import (
    FIRST_CALIBRATION_SEED,
    KINDS,
    TRAILING,
    Sample,
    calibrate,
    collect,
    false_alarms,
    fit_errors,
    found_faults,
    judge,
    ranges_of,
)
from qsm_ai.benchmark.faults import FAULTS
from qsm_ai.benchmark.phantoms import FIRST_TEST_SEED
from qsm_ai.benchmark.reliability import BEGIN, END, write_reliability
from qsm_ai.network import commands
from qsm_ai.reconstruction.calibration import parse_calibration
from qsm_ai.reconstruction.out_of_distribution import SENTENCES
from qsm_ai.reconstruction.uncertainty import FEATURES, ErrorModel

TRUTH = ErrorModel(-0.5, dict(zip(FEATURES, (0.3, 0.1, 0.4, 0.2, -0.25, 0.5), strict=True)))


def heads(count: int, seed: int = 0) -> list[Sample]:
    """Heads whose errors are normal with the spread that ``TRUTH`` tells."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        features = rng.normal(-1, 1, (len(FEATURES), 4000)).astype(np.float32)
        features[-1] = rng.random(4000) < 0.05
        errors = TRUTH.spread(features) * rng.standard_normal(4000).astype(np.float32)
        statistics = {name: float(rng.uniform(-1, 1)) for name in SENTENCES}
        faulty = {fault: {**statistics, "cone": 9.0 if fault == "direction" else 0.0} for fault in FAULTS}
        made.append(Sample(features, errors, statistics, faulty))
    return made


def test_the_fit_finds_the_model_that_made_the_errors() -> None:
    found = fit_errors(heads(8))
    assert found.intercept == pytest.approx(TRUTH.intercept, abs=0.1)
    for name in FEATURES:
        assert found.weights[name] == pytest.approx(TRUTH.weights[name], abs=0.05)


def test_a_true_model_is_told_to_be_reliable_and_a_wrong_one_is_not() -> None:
    told = judge(TRUTH, heads(4, seed=1))
    assert told["within_one"] == pytest.approx(0.683, abs=0.02)
    assert told["within_two"] == pytest.approx(0.954, abs=0.01)
    for spread, error in told["curve"]:
        assert error == pytest.approx(spread, rel=0.1)
    assert all(head == pytest.approx(1, abs=0.05) for head in told["heads"])
    sure = judge(ErrorModel(TRUTH.intercept - 1, TRUTH.weights), heads(4, seed=1))
    assert sure["within_two"] < 0.8


def test_weights_keep_their_signs_against_the_data() -> None:
    contrary = []
    for sample in heads(3):
        errors = np.exp(-sample.features[0] + sample.features[4]) * np.sign(sample.errors)
        contrary.append(Sample(sample.features, errors.astype(np.float32), sample.statistics))
    found = fit_errors(contrary)
    assert found.weights["residual"] == 0
    assert found.weights["depth"] == 0
    assert found.weights["noise"] > 0


def test_ranges_cover_every_head_and_the_voxels_of_the_training() -> None:
    samples = heads(6)
    ranges = ranges_of(samples)
    for name, (low, high) in ranges.items():
        values = [s.statistics[name] for s in samples]
        assert max(values) <= high
        assert low == np.median(values) if name in TRAILING else low <= min(values)
    assert ranges["finest_voxel"][0] <= np.log(0.96)


def test_a_range_that_begins_at_the_median_does_so_on_a_side_without_harm() -> None:
    assert all(SENTENCES[name][0] is None for name in TRAILING)


def test_alike_heads_raise_few_alarms_and_a_stray_one_is_found() -> None:
    samples = heads(12)
    assert false_alarms(samples) < 0.35
    stray = Sample(samples[0].features, samples[0].errors, {**samples[0].statistics, "noise": 5.0})
    assert false_alarms([stray, *samples[1:]]) >= 1 / 12


def test_faults_that_are_told_are_counted_among_the_heads_that_had_them() -> None:
    samples = heads(6)
    without = [Sample(s.features, s.errors, s.statistics) for s in heads(3)]
    ranges = {"cone": (-1.0, 1.0)}
    assert found_faults([*samples, *without], ranges) == {"direction": 1.0, "sign": 0.0}
    assert found_faults(without, ranges) == {}


def test_what_is_fitted_can_be_used_and_is_judged_on_heads_that_were_kept_from_it() -> None:
    samples = heads(9)
    found, record = calibrate(dict.fromkeys(KINDS, samples))
    usable = parse_calibration({"sha256": "0" * 64, **found})
    assert usable.removed.weights["edges"] == pytest.approx(0.4, abs=0.1)
    for kind in KINDS:
        assert (record[kind]["heads_fitted"], record[kind]["heads_held_out"]) == (6, 3)
        assert record[kind]["held_out"]["voxels"] == 3 * 4000


def test_calibration_heads_are_nobody_elses() -> None:
    seeds = range(FIRST_CALIBRATION_SEED, FIRST_CALIBRATION_SEED + 1000)
    validation = range(commands.VALIDATION_SEED, commands.VALIDATION_SEED + commands.VALIDATION_EXAMPLES)
    assert set(seeds).isdisjoint(validation)
    assert seeds.stop <= FIRST_TEST_SEED


class Still:
    """A network that changes nothing."""

    name = "still"

    def predict(
        self, patches: NDArray[np.float32], on_patch: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        return np.zeros_like(patches[:, :1])


def test_heads_are_sampled_once_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "voxel_to_learn_from", lambda _: (5.0, 5.0, 5.0))
    told: list[int] = []
    first = collect(tmp_path, [FIRST_CALIBRATION_SEED], Still(), None, tell=told.append)
    monkeypatch.setattr(calibration, "sample_head", None)
    again = collect(tmp_path, [FIRST_CALIBRATION_SEED], Still(), None)
    assert told == [FIRST_CALIBRATION_SEED]
    for kind in KINDS:
        (once,), (twice,) = first[kind], again[kind]
        np.testing.assert_array_equal(once.features, twice.features)
        np.testing.assert_array_equal(once.errors, twice.errors)
        assert once.statistics == twice.statistics
        assert 0.05 < once.errors.std() < 20
        assert set(once.statistics) == set(SENTENCES)
        assert once.faulty == twice.faulty
        assert set(once.faulty) == set(FAULTS)
        assert all(set(faulty) == set(SENTENCES) for faulty in once.faulty.values())


def test_the_model_card_gets_its_numbers_between_the_marks(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    _, record = calibrate({kind: heads(9) for kind in KINDS})
    file = tmp_path / "calibration.json"
    header = {"command": "qsm-ai benchmark calibrate", "date": "2026-11-23", "network": {"sha256": "0" * 64}}
    file.write_text(json.dumps({**header, **record}))
    card = tmp_path / "model_card.md"
    card.write_text(f"# Card\n\n{BEGIN}\nold\n{END}\n\n## Limits\n")
    write_reliability(file, tmp_path)
    text = card.read_text()
    assert "old" not in text
    assert text.endswith("## Limits\n")
    assert f"{100 * record['removed']['held_out']['within_one']:.1f}" in text
    assert "| 100 | 0 |" in text
    assert (tmp_path / "images" / "reliability.png").stat().st_size > 5000
