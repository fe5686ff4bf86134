"""The standard deviation goes with what an error goes with, and with the scale of the field."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from qsm_ai.reconstruction.calibration import shipped_calibration
from qsm_ai.reconstruction.uncertainty import FEATURES, ErrorModel, chi_uncertainty, features_of

if TYPE_CHECKING:
    from tests.reconstruction.conftest import Make

KINDS = [pytest.param(True, id="background removed"), pytest.param(False, id="local field given")]


@pytest.mark.parametrize("removed", KINDS)
def test_it_is_positive_in_the_mask_and_zero_outside(make_evidence: Make, removed: bool) -> None:
    evidence = make_evidence()
    sigma = chi_uncertainty(evidence, shipped_calibration().model(removed))
    assert sigma.dtype == np.float32
    assert (sigma[evidence.mask] > 0).all()
    assert not sigma[~evidence.mask].any()


@pytest.mark.parametrize("removed", KINDS)
@pytest.mark.parametrize("scale", [0.1, 7.0])
def test_it_scales_with_the_field(make_evidence: Make, scale: float, removed: bool) -> None:
    model = shipped_calibration().model(removed)
    once, scaled = (chi_uncertainty(make_evidence(s), model) for s in (1.0, scale))
    np.testing.assert_allclose(scaled, scale * once, rtol=1e-4)


def test_it_grows_with_the_noise_of_the_field(make_evidence: Make) -> None:
    model = shipped_calibration().removed
    assert model.weights["noise"] > 0
    mask = make_evidence().mask
    levels = [
        float(np.median(chi_uncertainty(make_evidence(noise=n), model)[mask])) for n in (0.001, 0.004, 0.016)
    ]
    assert levels[0] < levels[1] < levels[2]


def test_it_grows_with_what_the_map_leaves_unexplained(make_evidence: Make) -> None:
    model = shipped_calibration().removed
    evidence = make_evidence()
    residual = evidence.residual.copy()
    residual[18:22, 18:22, 18:22] += 0.05
    before = chi_uncertainty(evidence, model)
    after = chi_uncertainty(replace(evidence, residual=residual), model)
    assert after[20, 20, 20] > before[20, 20, 20]
    assert after[20, 20, 5] == pytest.approx(before[20, 20, 5])


def test_it_is_larger_at_the_rim_where_the_background_was_removed(make_evidence: Make) -> None:
    evidence = make_evidence()
    sigma = chi_uncertainty(evidence, shipped_calibration().removed)
    depth = distance_transform_edt(evidence.mask)
    rim, deep = (depth > 0) & (depth < 2), depth > 10
    assert np.median(sigma[rim]) > 1.1 * np.median(sigma[deep])


def test_it_is_larger_where_the_field_is_unknown(make_evidence: Make) -> None:
    evidence = make_evidence()
    known = evidence.mask.copy()
    known[18:22, 18:22, 18:22] = False
    model = ErrorModel(0.0, {**dict.fromkeys(FEATURES, 0.0), "unknown": 0.5})
    sigma = chi_uncertainty(replace(evidence, known=known), model)
    assert sigma[20, 20, 20] == pytest.approx(np.exp(0.5) * sigma[20, 20, 10])
    assert shipped_calibration().removed.weights["unknown"] >= 0


@pytest.mark.parametrize("removed", KINDS)
def test_the_shipped_models_grow_with_all_that_an_error_grows_with(removed: bool) -> None:
    weights = shipped_calibration().model(removed).weights
    assert weights["depth"] <= 0
    assert all(weight >= 0 for name, weight in weights.items() if name != "depth")


def test_a_model_without_all_its_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="residual"):
        ErrorModel(0.0, {"noise": 1.0})


def test_features_are_finite_even_of_a_map_that_is_nothing(make_evidence: Make) -> None:
    evidence = make_evidence()
    nothing = np.zeros_like(evidence.chi)
    empty = replace(evidence, chi=nothing, correction=nothing, residual=nothing, noise=0.0, scale=1e-4)
    assert np.isfinite(features_of(empty)).all()


def test_a_calibration_knows_its_weights_by_the_networks_name() -> None:
    calibration = replace(shipped_calibration(), weights="0123456789ab" + "0" * 52)
    assert calibration.fits("qsm_vit 0123456789ab, bf16, OpenVINO 2026.2 in process")
    assert not calibration.fits("qsm_vit ba9876543210, bf16, OpenVINO 2026.2 in process")
    assert calibration.fits("qsm_vit 1 on Triton 2.51")
