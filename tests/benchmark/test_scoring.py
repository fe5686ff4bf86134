"""Scores mean what they say."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

pytest.importorskip("qsm_ci")
pytest.importorskip("qsm_forward")

from qsm_ai.benchmark.phantoms import DSEG, Phantom
from qsm_ai.benchmark.scoring import METRICS, RIM, assess

Truth = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.uint8]]


@pytest.fixture
def truth(coarse: Phantom) -> Truth:
    assert coarse.scan.mask is not None
    return coarse.chi, coarse.scan.mask, coarse.regions


def test_a_perfect_map_scores_zero_error_and_full_similarity(truth: Truth) -> None:
    chi, *where = truth
    perfect = assess(chi, chi, *where)
    for part in (perfect.interior, perfect.brain):
        assert set(part) == set(METRICS)
        assert part["nrmse"] == pytest.approx(0, abs=1e-3)
        assert part["hfen"] == pytest.approx(0, abs=1e-3)
        assert part["xsim"] == pytest.approx(1, abs=1e-3)
        assert part["correlation"] == pytest.approx(1, abs=1e-3)
    assert perfect.coverage == pytest.approx(1, abs=1e-3)
    assert perfect.slope == pytest.approx(1, abs=1e-4)
    assert perfect.lesion is not None
    assert perfect.lesion["moment"] == pytest.approx(1, abs=1e-4)
    assert max(perfect.depths.values()) < 1e-6


def test_an_empty_map_is_wrong_by_all_there_is(truth: Truth) -> None:
    chi, mask, regions = truth
    empty = assess(np.zeros_like(chi), chi, mask, regions)
    assert empty.interior["nrmse"] == pytest.approx(100, abs=1)
    assert empty.coverage == 0
    assert empty.slope == pytest.approx(0, abs=1e-6)
    assert empty.lesion is not None
    assert empty.lesion["moment"] == pytest.approx(0, abs=1e-6)


def test_error_and_slope_follow_a_map_that_is_too_weak(truth: Truth) -> None:
    chi, *where = truth
    weak = assess(0.7 * chi, chi, *where)
    assert weak.brain["nrmse"] == pytest.approx(30, abs=0.5)
    assert weak.brain["nrmse_detrend"] == pytest.approx(0, abs=0.1)
    assert weak.slope == pytest.approx(0.7, abs=1e-3)
    assert weak.lesion is not None
    assert weak.lesion["moment"] == pytest.approx(0.7, abs=1e-3)


def test_a_constant_makes_no_error(truth: Truth) -> None:
    chi, *where = truth
    shifted = assess(chi + np.float32(0.05), chi, *where)
    assert shifted.brain["nrmse"] == pytest.approx(0, abs=0.1)
    true, estimated, spread = shifted.regions["thalamus"]
    assert estimated == pytest.approx(true, abs=1e-4)
    assert spread == pytest.approx(0, abs=1e-4)


def test_a_lost_rim_costs_coverage_and_the_whole_brain_but_not_the_interior(truth: Truth) -> None:
    chi, mask, regions = truth
    inner = distance_transform_edt(mask) > 2
    eroded = assess(chi * inner, chi, mask, regions)
    assert eroded.coverage == pytest.approx(np.count_nonzero(inner) / np.count_nonzero(mask), abs=1e-3)
    assert eroded.brain["nrmse"] > 10
    assert eroded.interior["nrmse"] == pytest.approx(0, abs=1e-3)
    assert eroded.depths["0–2"] > 3 * eroded.depths["6–12"]


def test_an_error_inside_is_seen_in_the_interior(truth: Truth) -> None:
    chi, mask, regions = truth
    wrong = chi.copy()
    deep = distance_transform_edt(mask) > RIM + 1
    wrong[deep] = -wrong[deep]
    assert assess(wrong, chi, mask, regions).interior["nrmse"] > 50


def test_a_lesion_that_is_halved_is_told_as_such(truth: Truth) -> None:
    chi, mask, regions = truth
    halved = chi.copy()
    halved[regions == DSEG["lesion"]] *= 0.5
    found = assess(halved, chi, mask, regions).lesion
    assert found is not None
    assert found["moment"] < 0.85


def test_without_regions_there_is_neither_slope_nor_lesion(truth: Truth) -> None:
    chi, mask, _ = truth
    plain = assess(chi, chi, mask)
    assert plain.slope is None
    assert plain.lesion is None
