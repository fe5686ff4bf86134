"""From a scan to a map: the stages run as the table says, and the map is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from qsm_ai.io import load_scan
from qsm_ai.reconstruction.options import Options
from qsm_ai.reconstruction.pipeline import PASSES, STEPS, Progress, planned_stages, reconstruct
from qsm_ai.reconstruction.stages import ARTEFACTS, STAGES
from qsm_ai.scan import MaskRefusal, Scan

if TYPE_CHECKING:
    from tests.conftest import Files, Phantom


@pytest.fixture(scope="module")
def scan(files: Files) -> Scan:
    return load_scan(files.echo_phase, files.echo_magnitude, files.mask)


class Halver:
    """A network that takes away half of the map it is given: simple enough to know the answer."""

    name = "halver 1"

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def predict(
        self, patches: NDArray[np.float32], on_patch: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        self.seen.append(patches.shape)
        if on_patch:
            for done in range(1, len(patches) + 1):
                on_patch(done)
        return -0.5 * patches[:, 1:2]


def agreement(chi: NDArray[np.float32], phantom: Phantom) -> float:
    return float(np.corrcoef(chi[phantom.mask], phantom.chi[phantom.mask])[0, 1])


def test_every_stage_of_the_table_can_be_done() -> None:
    assert list(STEPS) == [stage.name for stage in STAGES]


class Watched(dict[str, Any]):
    """Volumes that remember which of them were asked for, and which were made."""

    def __init__(self, volumes: dict[str, Any]) -> None:
        super().__init__(volumes)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)


@pytest.mark.parametrize("options", [Options(reference="csf"), Options(method="tv", reference="csf")])
def test_a_stage_reads_and_makes_what_its_row_of_the_table_says(
    scan: Scan, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, tuple[set[str], set[str]]] = {}

    def watch(name: str, step: Callable[[Any], None]) -> Callable[[Any], None]:
        def watched(work: Any) -> None:
            before = set(work.volumes)
            work.volumes = Watched(work.volumes)
            step(work)
            made = set(work.volumes) - before
            seen[name] = (work.volumes.read - made, made)

        return watched

    for name, step in STEPS.items():
        monkeypatch.setitem(STEPS, name, watch(name, step))
    reconstruct(scan, options, Halver())
    rows = {stage.name: stage for stage in planned_stages(scan, options)}
    assert list(seen) == list(rows)
    for name, (read, made) in seen.items():
        assert read <= set(rows[name].consumes), name
        assert made <= set(rows[name].produces) | {"chi"}, name
    assert {volume for _, made in seen.values() for volume in made} <= set(ARTEFACTS)


@pytest.mark.parametrize("method", ["tkd", "tikhonov", "tv"])
def test_a_map_from_the_local_field_is_the_truth(files: Files, phantom: Phantom, method: Any) -> None:
    scan = load_scan(local_field=files.local_field, mask_file=files.mask)
    result = reconstruct(scan, Options(method=method))
    assert agreement(result.chi, phantom) > 0.85
    assert list(result.timings) == ["mask", "inversion", "physics_check"]
    assert set(result.artefacts) == {"chi", "mask", "local_field", "residual"}
    assert result.scores["physics_check"] > 0.9


def test_a_map_from_phase_resembles_the_truth(scan: Scan, phantom: Phantom) -> None:
    result = reconstruct(scan, Options(method="tkd", background="pdf"))
    assert agreement(result.chi, phantom) > 0.7
    assert set(result.artefacts) == set(ARTEFACTS) - {"chi_uncertainty"}
    np.testing.assert_array_equal(result.artefacts["mask"], phantom.mask)
    inside = phantom.mask
    wrong = result.artefacts["total_field"][inside] - phantom.total_field[inside]
    assert np.abs(wrong - np.median(wrong)).std() < 0.002
    assert result.artefacts["r2star"][inside].mean() == pytest.approx(25, abs=1)
    assert result.network is None


@pytest.mark.parametrize("unwrapping", ["path", "laplacian"])
@pytest.mark.parametrize("background", ["lbv", "pdf", "v-sharp"])
def test_every_choice_gives_a_clean_map(
    scan: Scan, phantom: Phantom, unwrapping: Any, background: Any
) -> None:
    result = reconstruct(scan, Options("tikhonov", "mean", unwrapping, background))
    for name, volume in result.artefacts.items():
        assert volume.shape == scan.grid.shape, name
        assert np.isfinite(volume).all(), name
        assert not volume[~phantom.mask].any(), name
        assert volume.dtype == (np.bool_ if name == "mask" else np.float32), name
    assert agreement(result.chi, phantom) > 0.25


def test_a_mask_without_room_for_a_ball_is_refused_by_v_sharp(scan: Scan) -> None:
    thin = np.zeros_like(scan.mask)
    thin[20:24:2, 20:24:2, 20] = True
    with pytest.raises(MaskRefusal, match="no ball") as refused:
        reconstruct(replace(scan, mask=thin), Options("tkd", background="v-sharp"))
    assert "pdf" in refused.value.mend


def test_the_reference_is_what_was_asked(scan: Scan, phantom: Phantom) -> None:
    mean = reconstruct(scan, Options("tkd", "mean")).chi
    none = reconstruct(scan, Options("tkd", "none")).chi
    assert mean[phantom.mask].mean() == pytest.approx(0, abs=1e-6)
    shift = (none - mean)[phantom.mask]
    assert shift.std() < 1e-6
    assert abs(shift.mean()) > 1e-6


def test_the_network_corrects_and_the_field_decides(files: Files, phantom: Phantom) -> None:
    scan = load_scan(local_field=files.local_field, mask_file=files.mask)
    network = Halver()
    result = reconstruct(scan, network=network)
    assert network.seen == [(1, 6, 96, 96, 96)]
    assert result.network == "halver 1"
    assert list(result.timings) == [
        "mask",
        "inversion",
        "network",
        "consistency",
        "physics_check",
        "uncertainty",
    ]
    # Half the map would explain three quarters of the energy; where the field is certain it wins.
    assert result.scores["physics_check"] > 0.9
    assert agreement(result.chi, phantom) > 0.8


class Content(Halver):
    """A network that finds nothing to correct."""

    def predict(
        self, patches: NDArray[np.float32], on_patch: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        return np.float32(0) * super().predict(patches, on_patch)


def test_a_magnitude_tells_the_classical_map_where_tissue_ends(files: Files, phantom: Phantom) -> None:
    bare = load_scan(local_field=files.local_field, mask_file=files.mask)
    noise = np.random.default_rng(0).normal(0, 0.002, phantom.chi.shape).astype(np.float32)
    assert bare.local_field is not None
    noisy = replace(bare, local_field=(bare.local_field + noise) * phantom.mask)
    tissues = np.unique(phantom.chi)
    contrast = np.random.default_rng(1).permutation(np.linspace(0.6, 1.2, len(tissues)))
    magnitude = contrast[np.searchsorted(tissues, phantom.chi)].astype(np.float32)[None]
    without = reconstruct(noisy, network=Content()).chi
    guided = reconstruct(replace(noisy, magnitude=magnitude), network=Content()).chi
    assert 1 - agreement(guided, phantom) < 0.8 * (1 - agreement(without, phantom))


def test_a_local_field_with_background_left_in_it_is_found_out(files: Files, phantom: Phantom) -> None:
    clean = load_scan(local_field=files.local_field, mask_file=files.mask)
    clean = replace(clean, magnitude=phantom.magnitude)
    left = np.float32(0.3) * (phantom.total_field - phantom.local_field) * phantom.mask
    soiled = replace(clean, local_field=phantom.local_field * phantom.mask + left)
    warnings = [reconstruct(scan, network=Content()).warnings for scan in (clean, soiled)]
    assert ["background is left" in " ".join(told) for told in warnings] == [False, True]


def test_a_mask_that_lacks_the_rim_of_the_brain_is_found_out(files: Files, phantom: Phantom) -> None:
    scan = load_scan(local_field=files.local_field, mask_file=files.mask)
    less = binary_erosion(phantom.mask, iterations=9)
    assert np.abs(phantom.chi[phantom.mask & ~less]).max() > 0
    lacking = replace(scan, magnitude=phantom.magnitude, mask=less, local_field=phantom.local_field * less)
    assert "smaller than the brain" in " ".join(reconstruct(lacking, network=Content()).warnings)


def test_the_network_method_needs_a_network(scan: Scan) -> None:
    with pytest.raises(ValueError, match="needs a network"):
        reconstruct(scan)


def test_the_map_does_not_depend_on_how_much_air_surrounds_the_head(files: Files, phantom: Phantom) -> None:
    scan = load_scan(local_field=files.local_field, mask_file=files.mask)
    wide = np.pad(phantom.local_field, ((7, 3), (0, 9), (5, 5)))
    mask = np.pad(phantom.mask, ((7, 3), (0, 9), (5, 5)))
    x, y, z = wide.shape
    wider = replace(scan, grid=replace(scan.grid, shape=(x, y, z)), local_field=wide, mask=mask)
    small = reconstruct(scan, Options("tkd")).chi
    large = reconstruct(wider, Options("tkd")).chi[7:-3, :-9, 5:-5]
    np.testing.assert_allclose(large, small, atol=2e-6)


def test_a_given_mask_is_respected_and_a_missing_one_is_made(files: Files, phantom: Phantom) -> None:
    mine = phantom.mask.copy()
    mine[: mine.shape[0] // 2] = False
    scan = load_scan(files.echo_phase, files.echo_magnitude)
    kept = reconstruct(replace(scan, mask=mine), Options("tkd"))
    np.testing.assert_array_equal(kept.artefacts["mask"], mine)
    made = reconstruct(scan, Options("tkd")).artefacts["mask"]
    both = 2 * np.count_nonzero(made & phantom.mask) / (np.count_nonzero(made) + phantom.mask.sum())
    assert both > 0.95


def test_no_brain_is_a_refusal(scan: Scan) -> None:
    noise = np.random.default_rng(5).uniform(-np.pi, np.pi, np.shape(scan.phase)).astype(np.float32)
    empty = replace(scan, phase=noise, magnitude=np.zeros_like(noise), mask=None)
    with pytest.raises(MaskRefusal, match="No brain"):
        reconstruct(empty, Options("tkd"))


def test_progress_names_every_stage_and_never_falls(scan: Scan) -> None:
    told: list[Progress] = []
    network = Halver()
    reconstruct(scan, network=network, on_progress=told.append)
    fractions = [at.fraction for at in told]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == 1
    names = [stage.name for stage in STAGES]
    assert list(dict.fromkeys(at.stage for at in told)) == names
    assert [at.detail for at in told if at.stage == "network"][-1] == f"patch {PASSES} of {PASSES}"
    assert all(0 <= at.stage_fraction <= 1 and at.title for at in told)


@pytest.mark.parametrize("stage", [stage.name for stage in STAGES])
def test_an_exception_in_the_progress_ends_the_reconstruction(scan: Scan, stage: str) -> None:
    class CancelledError(Exception):
        pass

    reached: list[str] = []

    def on_progress(at: Progress) -> None:
        reached.append(at.stage)
        if at.stage == stage:
            raise CancelledError

    with pytest.raises(CancelledError):
        reconstruct(scan, network=Halver(), on_progress=on_progress)
    assert reached[-1] == stage


def test_stages_that_are_not_needed_are_not_planned(files: Files, scan: Scan) -> None:
    def names(some: Scan, options: Options) -> list[str]:
        return [stage.name for stage in planned_stages(some, options)]

    total = load_scan(total_field=files.total_field, mask_file=files.mask)
    assert names(total, Options("tv")) == ["mask", "background", "inversion", "physics_check"]
    assert names(scan, Options()) == [stage.name for stage in STAGES]


def test_missing_magnitude_and_single_echoes_are_noted(files: Files) -> None:
    without = reconstruct(load_scan(files.echo_phase, mask_file=files.mask), Options("tkd"))
    assert "r2star" not in without.artefacts
    assert any("No magnitude" in warning for warning in without.warnings)
    single = reconstruct(
        load_scan(files.echo_phase[2:], files.echo_magnitude[2:], files.mask), Options("tkd")
    )
    assert any("single echo" in warning for warning in single.warnings)
    assert np.isfinite(single.chi).all()
