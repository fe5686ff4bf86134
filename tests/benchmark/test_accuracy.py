"""Scores mean what they say."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

pytest.importorskip("qsm_ci")
pytest.importorskip("qsm_forward")

from qsm_ai.benchmark.accuracy import RIM, measure, score
from qsm_ai.benchmark.phantoms import Case, Phantom

Truth = tuple[NDArray[np.float32], NDArray[np.bool_]]


@pytest.fixture
def truth(coarse: Phantom) -> Truth:
    assert coarse.scan.mask is not None
    return coarse.chi, coarse.scan.mask


def test_a_perfect_map_scores_zero_error_and_full_similarity(truth: Truth) -> None:
    chi, mask = truth
    perfect = score(chi, chi, mask)
    assert perfect["nrmse"] == pytest.approx(0, abs=1e-3)
    assert perfect["nrmse_brain"] == pytest.approx(0, abs=1e-3)
    assert perfect["xsim"] == pytest.approx(1, abs=1e-3)
    assert perfect["xsim_brain"] == pytest.approx(1, abs=1e-3)
    assert perfect["coverage"] == pytest.approx(1, abs=1e-3)


def test_an_empty_map_is_wrong_by_all_there_is(truth: Truth) -> None:
    chi, mask = truth
    empty = score(np.zeros_like(chi), chi, mask)
    assert empty["nrmse"] == pytest.approx(100, abs=1)
    assert empty["coverage"] == 0


def test_error_is_in_per_cent_of_the_truth(truth: Truth) -> None:
    chi, mask = truth
    assert score(0.7 * chi, chi, mask)["nrmse_brain"] == pytest.approx(30, abs=0.5)


def test_a_constant_makes_no_error(truth: Truth) -> None:
    chi, mask = truth
    assert score(chi + 0.05, chi, mask)["nrmse_brain"] == pytest.approx(0, abs=0.1)


def test_a_lost_rim_costs_coverage_and_the_whole_brain_but_not_the_interior(truth: Truth) -> None:
    chi, mask = truth
    inner = distance_transform_edt(mask) > 2
    eroded = score(chi * inner, chi, mask)
    assert eroded["coverage"] == pytest.approx(np.count_nonzero(inner) / np.count_nonzero(mask), abs=1e-3)
    assert eroded["nrmse_brain"] > 10
    assert eroded["nrmse"] == pytest.approx(0, abs=1e-3)


def test_an_error_inside_is_seen_in_the_interior(truth: Truth) -> None:
    chi, mask = truth
    wrong = chi.copy()
    deep = distance_transform_edt(mask) > RIM + 1
    wrong[deep] = -wrong[deep]
    assert score(wrong, chi, mask)["nrmse"] > 50


def test_every_start_and_method_is_measured_and_told() -> None:
    told = []
    case = Case("coarse", voxel_size=(5.0, 5.0, 5.0))
    scores = measure([case], None, ("tkd", "tikhonov"), told.append)
    assert told == scores
    assert [(s.start, s.method) for s in scores] == [
        ("phase", "tkd"),
        ("phase", "tikhonov"),
        ("local field", "tkd"),
        ("local field", "tikhonov"),
    ]
    assert all(0 < s.nrmse < 150 for s in scores)
    assert scores[2].nrmse_brain < scores[0].nrmse_brain
    assert all(s.seconds > 0 for s in scores)
