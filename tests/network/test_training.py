"""Training resumes to the very same weights, survives bad steps, and learns."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from qsm_ai.network.training import (  # noqa: E402
    SMALLEST_CROP,
    Plan,
    Pool,
    Trainer,
    has_bfloat16,
    learning_rate,
    loss,
)

if TYPE_CHECKING:
    from qsm_ai.network.qsm_vit import QsmVit

    Make = Callable[..., QsmVit]

PLAN = Plan(steps=4, warmup=2, decay=2, batch=2, crop=24, large_crop=24, rate=1e-2)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in trainer.model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first | second)


class TestPlan:
    @pytest.mark.parametrize("edges", [{"crop": 16}, {"crop": 28}, {"large_crop": 100}])
    def test_crops_that_cannot_be_trained_on_are_refused(self, edges: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="multiples of 8"):
            Plan(**edges)

    def test_gradients_are_the_same_every_time_on_the_smallest_crop(self, small_network: Make) -> None:
        """What lay in memory before does not matter: it would on 16 voxels."""
        model = small_network(1).to(memory_format=torch.channels_last_3d)
        patches = torch.randn(2, 6, SMALLEST_CROP, SMALLEST_CROP, SMALLEST_CROP)
        seen = []
        for junk in (float("nan"), 7.0, -3.0):
            model.zero_grad()
            torch.full((1 << 20,), junk)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                correction = model(patches)
            correction.float().square().sum().backward()
            seen.append({name: p.grad.clone() for name, p in model.named_parameters()})
        assert same(seen[0], seen[1])
        assert same(seen[0], seen[2])


class TestLoss:
    shape = (2, 1, 8, 8, 8)

    def test_it_is_zero_at_the_truth(self) -> None:
        target = torch.randn(self.shape)
        assert float(loss(target, target, torch.ones(self.shape))) == pytest.approx(0, abs=1e-6)

    def test_it_grows_with_the_error(self) -> None:
        torch.manual_seed(0)
        target, weight = torch.randn(self.shape), torch.ones(self.shape)
        wrong = torch.randn(self.shape)
        values = [float(loss(target + size * wrong, target, weight)) for size in (0.1, 0.5, 2.0)]
        assert 0 < values[0] < values[1] < values[2]

    def test_it_is_blind_to_what_has_no_weight(self) -> None:
        torch.manual_seed(0)
        correction, target = torch.randn(self.shape), torch.randn(self.shape)
        weight = (torch.rand(self.shape) > 0.4).float()
        elsewhere = 100 * torch.randn(self.shape) * (weight == 0)
        expected = loss(correction, target, weight)
        torch.testing.assert_close(loss(correction + elsewhere, target, weight), expected)
        torch.testing.assert_close(loss(correction, target + elsewhere, weight), expected)

    def test_no_gradient_comes_from_what_has_no_weight(self) -> None:
        torch.manual_seed(0)
        correction = torch.randn(self.shape, requires_grad=True)
        weight = (torch.rand(self.shape) > 0.4).float()
        loss(correction, torch.zeros(self.shape), weight).backward()
        assert not correction.grad[weight == 0].any()
        assert correction.grad[weight > 0].any()

    def test_it_prefers_an_even_error_to_a_rough_one(self) -> None:
        target, weight = torch.zeros(self.shape), torch.ones(self.shape)
        even = torch.full(self.shape, 0.5)
        rough = even * (1 - 2 * (torch.arange(8) % 2))
        alone = partial(loss, smooth_share=0.0)
        assert alone(even, target, weight) < alone(rough, target, weight)

    def test_a_batch_without_any_weight_is_no_error(self) -> None:
        assert float(loss(torch.ones(self.shape), torch.zeros(self.shape), torch.zeros(self.shape))) == 0


class TestLearningRate:
    plan = Plan(steps=1000, warmup=100, decay=300, rate=0.01)

    def test_it_rises_stays_and_falls_to_nothing(self) -> None:
        rates = [learning_rate(self.plan, step) for step in range(1000)]
        assert rates[0] == pytest.approx(0.01 / 100)
        assert (np.diff(rates[:100]) > 0).all()
        assert set(rates[100:700]) == {0.01}
        assert (np.diff(rates[700:]) < 0).all()
        assert rates[-1] == pytest.approx(0.01 / 300)
        assert learning_rate(self.plan, 1000) == 0

    def test_a_longer_plan_is_the_same_up_to_the_fall_of_the_shorter(self) -> None:
        longer = Plan(steps=5000, warmup=100, decay=300, rate=0.01)
        for step in range(701):
            assert learning_rate(longer, step) == learning_rate(self.plan, step)

    def test_it_falls_over_the_same_share_of_a_time_that_ends_the_training(self) -> None:
        assert learning_rate(self.plan, 9000, left=0.31) == 0.01
        assert learning_rate(self.plan, 9000, left=0.15) == pytest.approx(0.005)
        assert learning_rate(self.plan, 9000, left=0) == 0
        assert learning_rate(self.plan, 49, left=0.9) == pytest.approx(0.005)

    def test_neither_warmup_nor_decay_is_needed(self) -> None:
        plan = Plan(steps=10, warmup=0, decay=0, rate=0.5)
        assert {learning_rate(plan, step) for step in range(10)} == {0.5}


class TestPool:
    def test_a_step_has_the_same_crops_every_time(self, examples: Path) -> None:
        first, second = (Pool(examples).batch(PLAN, 7) for _ in range(2))
        assert torch.equal(first, second)
        assert not torch.equal(first, Pool(examples).batch(PLAN, 8))
        assert first.shape == (2, 8, 24, 24, 24)
        assert first.dtype == torch.float32

    @pytest.mark.parametrize(("batch", "large"), [(1, 1), (3, 1), (5, 2), (12, 5)])
    def test_one_step_in_so_many_has_large_crops_of_no_more_voxels(
        self, examples: Path, batch: int, large: int
    ) -> None:
        plan = Plan(batch=batch, crop=24, large_crop=32, large_every=4)
        shapes = [tuple(Pool(examples).batch(plan, step).shape) for step in range(4)]
        assert shapes[:3] == 3 * [(batch, 8, 24, 24, 24)]
        assert shapes[3] == (large, 8, 32, 32, 32)

    def test_a_crop_larger_than_its_example_holds_all_of_it(self, tmp_path: Path) -> None:
        stack = np.random.default_rng(0).standard_normal((8, 5, 6, 7)).astype(np.float16)
        stack[-1] = 1
        np.save(tmp_path / "0.npy", stack)
        crop = Pool(tmp_path).crop(np.random.default_rng(1), 8)
        assert crop.shape == (8, 8, 8, 8)
        for made, stored in zip(crop.numpy(), stack, strict=True):
            np.testing.assert_array_equal(np.sort(made[made != 0]), np.sort(stored.ravel()))

    def test_crops_are_turned_every_way_with_all_channels_alike(self, tmp_path: Path) -> None:
        stack = np.zeros((8, 8, 8, 8), np.float16)
        stack[:, 0, 1, 3] = 5
        stack[-1] = 1
        np.save(tmp_path / "0.npy", stack)
        pool, rng = Pool(tmp_path), np.random.default_rng(2)
        seen = set()
        for _ in range(300):
            crop = pool.crop(rng, 8).numpy()
            places = {tuple(int(i[0]) for i in np.nonzero(channel == 5)) for channel in crop[:-1]}
            assert len(places) == 1
            seen |= places
        assert len(seen) == 48

    def test_crops_look_for_the_brain(self, tmp_path: Path) -> None:
        stack = np.zeros((8, 48, 16, 16), np.float16)
        stack[-1, 40:] = 1
        np.save(tmp_path / "0.npy", stack)
        rng = np.random.default_rng(3)
        found = [Pool(tmp_path).crop(rng, 16)[-1].mean() > 0.3 for _ in range(40)]
        # One corner in eight holds enough.
        assert np.mean(found) > 0.4

    def test_new_files_are_seen_when_looked_for(self, examples: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(examples, tmp_path / "pool")
        pool = Pool(folder)
        count = len(pool.files)
        shutil.copy(pool.files[0], folder / "900000.npy")
        assert len(pool.files) == count
        pool.refresh()
        assert len(pool.files) == count + 1

    def test_an_empty_folder_is_said_plainly(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no examples"):
            Pool(tmp_path)


class TestTrainer:
    def test_four_steps_are_two_and_two_to_the_last_bit(
        self, tmp_path: Path, examples: Path, small_network: Make
    ) -> None:
        pool = Pool(examples)
        whole = Trainer(PLAN, tmp_path / "whole", model=small_network(1))
        list(whole.run(pool, None, save_every=2))

        first = Trainer(PLAN, tmp_path / "halves", model=small_network(1))
        next(curve := first.run(pool, None, save_every=2))
        curve.close()
        assert first.step == 2
        # What the second process begins with is not what it goes on with.
        second = Trainer(PLAN, tmp_path / "halves", model=small_network(2))
        assert second.step == 2
        list(second.run(pool, None, save_every=2))

        assert second.step == whole.step == 4
        assert same(weights(whole), weights(second))
        assert same(whole.average, second.average)
        assert not same(weights(whole), weights(first))
        moments = [
            [state[name] for state in t.optimiser.state.values() for name in ("exp_avg", "exp_avg_sq")]
            for t in (whole, second)
        ]
        assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))

    @pytest.mark.parametrize("steps", [2, 10**6])
    def test_time_can_end_it_whatever_the_steps(
        self, tmp_path: Path, examples: Path, small_network: Make, steps: int
    ) -> None:
        trainer = Trainer(replace(PLAN, steps=steps, decay=steps // 2), tmp_path, model=small_network(1))
        curve = list(trainer.run(Pool(examples), None, save_every=10**9, seconds=1.5))
        assert [row["step"] for row in curve] == [trainer.step]
        assert trainer.step > 2
        assert curve[0]["seconds"] >= 1.5
        assert curve[0]["rate"] < 0.3 * PLAN.rate
        assert Trainer(PLAN, tmp_path, model=small_network(2)).step == trainer.step

    def test_a_finished_training_has_nothing_left_to_do(
        self, tmp_path: Path, examples: Path, small_network: Make
    ) -> None:
        list(Trainer(PLAN, tmp_path, model=small_network(1)).run(Pool(examples), None))
        again = Trainer(PLAN, tmp_path, model=small_network(1))
        before = weights(again)
        assert list(again.run(Pool(examples), None)) == []
        assert same(before, weights(again))

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
    def test_a_step_that_is_not_finite_changes_nothing(
        self, bad: float, tmp_path: Path, examples: Path, small_network: Make
    ) -> None:
        trainer = Trainer(PLAN, tmp_path, model=small_network(1))
        batch = Pool(examples).batch(PLAN, 0)
        trainer.update(batch)
        before, average = weights(trainer), {k: v.clone() for k, v in trainer.average.items()}
        moments = [s["exp_avg"].clone() for s in trainer.optimiser.state.values()]
        spoilt = batch.clone()
        spoilt[0, 0] = bad
        assert np.isnan(trainer.update(spoilt))
        assert same(before, weights(trainer))
        assert same(average, trainer.average)
        assert all(torch.equal(m, s["exp_avg"]) for m, s in zip(moments, trainer.optimiser.state.values(),
                                                                 strict=True))  # fmt: skip
        assert trainer.step == 2
        assert np.isfinite(trainer.update(batch))
        assert not same(before, weights(trainer))

    def test_a_curve_of_bad_steps_is_not_a_number_but_goes_on(
        self, tmp_path: Path, small_network: Make
    ) -> None:
        np.save(tmp_path / "0.npy", np.full((8, 24, 24, 24), np.nan, np.float16))
        (row,) = Trainer(PLAN, tmp_path, model=small_network(1)).run(Pool(tmp_path), None)
        assert row["step"] == 4
        assert np.isnan(row["loss"])

    def test_it_learns(self, tmp_path: Path, examples: Path, small_network: Make) -> None:
        """The target is half of an input: a few dozen steps begin to find it."""
        plan = Plan(steps=80, warmup=1, decay=1, crop=24, large_every=0, rate=1e-2)
        trainer = Trainer(plan, tmp_path, model=small_network())
        pool = Pool(examples)
        losses = [trainer.update(pool.batch(plan, step)) for step in range(plan.steps)]
        assert np.mean(losses[-4:]) < 0.8 * losses[0]

    def test_the_average_lags_behind(self, tmp_path: Path, examples: Path, small_network: Make) -> None:
        trainer = Trainer(PLAN, tmp_path, model=small_network(1))
        start = weights(trainer)
        for step in range(3):
            trainer.update(Pool(examples).batch(PLAN, step))
        name = "enter.weight"
        moved, lagged = ((x[name] - start[name]).norm() for x in (weights(trainer), trainer.average))
        assert 0 < lagged < moved
        assert same(trainer.averaged().state_dict(), trainer.average)
        assert not trainer.averaged().training

    def test_the_curve_is_kept_with_what_validation_measures(
        self, tmp_path: Path, examples: Path, small_network: Make
    ) -> None:
        run = tmp_path / "run"
        trainer = Trainer(PLAN, run, model=small_network())
        rows = list(trainer.run(Pool(examples), Pool(examples), save_every=2))
        with (run / "curve.csv").open() as file:
            stored = list(csv.DictReader(file))
        assert [float(row["step"]) for row in stored] == [row["step"] for row in rows] == [2, 4]
        for row, kept in zip(rows, stored, strict=True):
            assert 0 < row["nrmse"] < 200
            # The target is half of the first map: the truth is 1.5 times it.
            assert row["nrmse_first"] == pytest.approx(100 / 3, rel=0.05)
            assert float(kept["nrmse"]) == pytest.approx(row["nrmse"], rel=1e-4)
        assert not list(run.glob("*.part"))

    def test_a_checkpoint_of_another_architecture_is_refused(
        self, tmp_path: Path, small_network: Make
    ) -> None:
        Trainer(PLAN, tmp_path, model=small_network(1)).save()
        with pytest.raises(ValueError, match="another architecture"):
            Trainer(PLAN, tmp_path, model=small_network(1, depth=2))


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_used_where_the_device_computes_in_it(
    native: bool, tmp_path: Path, small_network: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qsm_ai.network.training.has_bfloat16", lambda _device: native)
    trainer = Trainer(PLAN, tmp_path, model=small_network(1))
    seen: list[bool] = []
    trainer.model.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    batch = torch.randn(1, 8, 24, 24, 24)
    batch[:, -1] = 1
    trainer.update(batch)
    assert seen == [native]


def test_every_gpu_is_taken_to_compute_in_bfloat16() -> None:
    assert has_bfloat16("cuda:0")
    assert isinstance(has_bfloat16("cpu"), bool)
