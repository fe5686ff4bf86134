"""Examples are finite, consistent with the head they were made of, and free of scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.network import examples
from qsm_ai.network.anatomy import Head
from qsm_ai.network.door import Example, Solvers, at_the_door
from qsm_ai.network.examples import (
    load_labels,
    prepare_examples,
    random_examples,
    random_scan,
    random_voxel,
    voxel_to_learn_from,
    write_pool,
)
from qsm_ai.network.simulation import Echoes
from qsm_ai.physics.dipole import forward_field
from qsm_ai.physics.fourier import bounding_box
from qsm_ai.reconstruction.inputs import CHANNELS
from qsm_ai.reconstruction.pipeline import MARGIN, PASSES

COARSE = (4.0, 4.5, 5.0)


@pytest.fixture(scope="module")
def scan() -> tuple[Head, Echoes]:
    return random_scan(np.random.default_rng(24), COARSE, None)


class Doubter:
    """A network that would rather have no contrast than the classical map's."""

    name = "doubter"

    def predict(
        self, patches: NDArray[np.float32], on_patch: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        return -0.5 * patches[:, CHANNELS.index("total_variation")][:, None]


@pytest.fixture(scope="module", params=range(3))
def example(request: pytest.FixtureRequest, scan: tuple[Head, Echoes]) -> Example:
    """Different seeds: masks too small, too large or right, local fields given or not."""
    return prepare_examples(np.random.default_rng(request.param), *scan)[0]


def test_an_example_is_finite_and_of_one_shape(example: Example) -> None:
    assert example.inputs.shape == (len(CHANNELS), *example.target.shape)
    assert example.weight.shape == example.target.shape
    for volume in (example.inputs, example.target, example.weight):
        assert volume.dtype == np.float32
        assert np.isfinite(volume).all()
    assert 0.005 < example.scale < 0.2


def test_nothing_counts_outside_the_brain(example: Example) -> None:
    assert set(np.unique(example.weight)) <= {np.float32(0), np.float32(0.2), np.float32(1)}
    assert 0.1 < (example.weight == 1).mean() < 0.9
    # The margin is outside.
    for axis in range(3):
        assert not example.weight.take([0, -1], axis).any()
        assert not example.target.take([0, -1], axis).any()
    measured = example.inputs[CHANNELS.index("mask")] > 0
    assert (example.weight[measured] != np.float32(0.2)).all()


def test_the_correction_leads_from_the_classical_map_to_the_truth(scan: tuple[Head, Echoes]) -> None:
    head, echoes = scan
    # A seed that leaves the mask as it is.
    seed = next(s for s in range(20) if np.random.default_rng(s).random() > 0.25)
    example = prepare_examples(np.random.default_rng(seed), head, echoes)[-1]
    box = bounding_box(head.brain, MARGIN)
    made = (example.inputs[CHANNELS.index("total_variation")] + example.target) * example.scale
    wrong = (made - head.chi[box])[head.brain[box]]
    assert wrong.std() < 1e-6  # a constant is nobody's to know
    assert not made[~head.brain[box]].any()
    assert np.average(example.target, weights=example.weight) == pytest.approx(0, abs=1e-5)


def test_a_network_brings_an_example_for_each_of_its_passes_and_its_map_changes_the_local_field(
    scan: tuple[Head, Echoes],
) -> None:
    without = prepare_examples(np.random.default_rng(2), *scan)
    unrolled = prepare_examples(np.random.default_rng(2), *scan, Doubter())
    assert len(unrolled) == len(without) + PASSES - 1
    for one, other in zip(without, unrolled, strict=False):
        np.testing.assert_array_equal(one.inputs, other.inputs)
    field = CHANNELS.index("local_field")
    first = len(without) - 1
    before, after = (e.inputs[field] * e.scale for e in unrolled[first : first + 2])
    moved = np.std(after - before) / np.std(before)
    assert 0.001 < moved < 0.5


def test_a_given_local_field_errs_by_noise_alone(scan: tuple[Head, Echoes]) -> None:
    head, echoes = scan
    seed = next(s for s in range(30) if len(prepare_examples(np.random.default_rng(s), head, echoes)) == 2)
    given, removed = prepare_examples(np.random.default_rng(seed), head, echoes)
    door = at_the_door(np.random.default_rng(seed), head, echoes)
    truth = forward_field(door.truth, *door.geometry, margin=24)
    field = CHANNELS.index("local_field")
    wrong = [(e.inputs[field] * e.scale - truth)[door.known] for e in (given, removed)]
    np.testing.assert_allclose(wrong[0], door.noise[door.known], atol=1e-5)


def test_the_noise_of_a_given_field_is_read_from_it_as_the_pipeline_does(scan: tuple[Head, Echoes]) -> None:
    door = at_the_door(np.random.default_rng(1), *scan)
    shown = CHANNELS.index("field_error")
    given, fitted = (
        door.example(door.given_field(), given=given)[0].inputs[shown] for given in (True, False)
    )
    assert np.ptp(given[door.known]) == 0 < given[door.known].min()
    assert np.ptp(fitted[door.known]) > 0


def test_a_given_local_field_beside_a_magnitude_has_no_source_outside(scan: tuple[Head, Echoes]) -> None:
    asked: list[tuple[bool, float]] = []

    def noting(*args: Any, **keywords: Any) -> np.ndarray:
        asked.append((keywords.get("edges") is not None, keywords.get("outside_weight", 0.0)))
        return np.zeros_like(args[0])

    given: list[tuple[bool, float]] = []
    for seed in range(12):
        asked.clear()
        made = prepare_examples(np.random.default_rng(seed), *scan, None, Solvers(total_variation=noting))
        if len(made) == 2:
            given.append(asked.pop(0))
        assert all(weight == 0 for _, weight in asked)
    assert set(given) == {(True, np.inf), (False, 0.0)}


def test_inputs_and_target_do_not_know_the_scale_of_susceptibility(scan: tuple[Head, Echoes]) -> None:
    head, echoes = scan
    # Twice the susceptibility at half the field strength: the very same phases.
    stronger = replace(head, chi=2 * head.chi)
    weaker = replace(echoes, field_strength=echoes.field_strength / 2, true_field=2 * echoes.true_field)
    first = prepare_examples(np.random.default_rng(1), head, echoes)[-1]
    second = prepare_examples(np.random.default_rng(1), stronger, weaker)[-1]
    assert second.scale == pytest.approx(2 * first.scale, rel=1e-4)
    same = first.weight == second.weight
    assert same.mean() > 0.999
    np.testing.assert_allclose(second.inputs, first.inputs, atol=2e-3)
    np.testing.assert_allclose(second.target, first.target, atol=2e-3)


def test_scans_are_such_as_scanners_make(scan: tuple[Head, Echoes]) -> None:
    _, echoes = scan
    assert echoes.field_strength in {1.5, 3.0, 7.0}
    assert 1 <= len(echoes.echo_times) <= 8
    assert list(echoes.echo_times) == sorted(echoes.echo_times)
    assert 0.001 < echoes.echo_times[0] <= echoes.echo_times[-1] < 0.07
    assert np.linalg.norm(echoes.b0_direction) == pytest.approx(1)


def test_voxels_are_such_as_scanners_make() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([random_voxel(rng) for _ in range(300)])
    assert sizes.min() >= 0.95
    assert sizes.max() <= 3.4
    longest = sizes.max(axis=1) / sizes.min(axis=1)
    assert longest.max() <= 2
    assert 0.3 < (longest == 1).mean() < 0.7


def test_fine_and_coarse_cubes_and_thick_slices_are_learnt_from() -> None:
    rng = np.random.default_rng(1)
    sizes = np.array([voxel_to_learn_from(rng) for _ in range(1000)])
    cubes = (sizes == sizes[:, :1]).all(1)
    fine, coarse = cubes & (sizes[:, 0] < 1.2), cubes & (sizes[:, 0] > 1.7)
    thick = np.sort(sizes)[:, 2] > 1.99
    assert 0.35 < fine.mean() < 0.5
    assert 0.1 < coarse.mean() < 0.25
    assert (thick & ~cubes).mean() > 0.07
    assert set(np.argmax(sizes[thick & ~cubes], axis=1)) == {0, 1, 2}
    assert sizes.min() >= 0.9
    assert sizes.max() <= 3.4


def test_the_contrast_of_the_magnitude_is_no_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """White matter is brighter than grey in some scans and darker in others, whatever their chi."""
    heads: list[list[Head]] = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(examples, "OTHER_CONTRAST", share)
        heads.append([random_scan(np.random.default_rng(seed), COARSE, None)[0] for seed in range(4)])
    slopes = []
    for usual, other in zip(*heads, strict=True):
        np.testing.assert_array_equal(usual.chi, other.chi)
        np.testing.assert_array_equal(usual.signal[~usual.brain], other.signal[~usual.brain])
        inside = usual.brain & (usual.signal > 0.05)
        slopes.append(np.polyfit(np.log(usual.signal[inside]), np.log(other.signal[inside]), 1)[0])
    assert min(slopes) < 0
    assert max(slopes) > 0.5


def test_some_of_the_heads_to_learn_from_are_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, bare = (random_scan(np.random.default_rng(3), COARSE, None, bare=share)[0] for share in (0.0, 1.0))
    np.testing.assert_array_equal(usual.brain, bare.brain)
    assert usual.signal[~usual.brain].any()
    assert not bare.signal[~bare.brain].any()
    asked: list[float] = []

    def scan(*_: Any, bare: float) -> None:
        asked.append(bare)
        raise StopIteration

    monkeypatch.setattr(examples, "random_scan", scan)
    with pytest.raises(StopIteration):
        examples.random_examples(np.random.default_rng(1), None)
    assert asked == [examples.BARE]


def test_an_empty_mask_is_no_example(scan: tuple[Head, Echoes]) -> None:
    head, echoes = scan
    speck = np.zeros_like(head.brain)
    speck[20, 20, 20] = True
    # A seed that shrinks the mask.
    seed = next(s for s in range(20) if np.random.default_rng(s).random() < 0.25)
    with pytest.raises(ValueError, match="nothing of the brain"):
        prepare_examples(np.random.default_rng(seed), replace(head, brain=speck), echoes)


def test_a_pool_is_written_once_and_holds_its_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "voxel_to_learn_from", lambda rng: COARSE)
    pool = tmp_path / "pool"
    written = write_pool(pool, range(7, 9), None)
    before = {p.name: p.stat().st_mtime_ns for p in pool.iterdir()}
    assert len(before) == written
    assert {name[:6] for name in before} == {"000007", "000008"}
    assert write_pool(pool, range(7, 9), None) == 0
    assert {p.name: p.stat().st_mtime_ns for p in pool.iterdir()} == before
    stored = np.load(pool / "000008-0.npy")
    made = random_examples(np.random.default_rng(8), None)[0]
    assert stored.dtype == np.float16
    np.testing.assert_array_equal(stored[:-2], made.inputs.astype(np.float16))
    np.testing.assert_array_equal(stored[-2], made.target.astype(np.float16))
    np.testing.assert_array_equal(stored[-1], made.weight.astype(np.float16))


def test_labels_are_turned_upright_and_cropped(tmp_path: Path) -> None:
    data = np.zeros((12, 10, 8), np.int16)
    data[2:7, 3:9, 1:5] = 2
    data[2, 3, 1] = 41
    # Stored left to right, and head downwards.
    nib.save(nib.Nifti1Image(data, np.diag([-1.0, 1.0, -1.0, 1.0])), tmp_path / "labels.nii.gz")
    labels = load_labels(tmp_path / "labels.nii.gz")
    assert labels.shape == (5, 6, 4)
    assert labels.dtype == np.int16
    assert np.argwhere(labels == 41).tolist() == [[4, 0, 3]]
