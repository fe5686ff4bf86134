"""Which stored numbers become which radians, and which are refused."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qsm_ai.physics.phase import PhaseScaleError, scale_to_radians

PI = np.pi
SHARED = Path(os.environ.get("QSM_SHARED_DATA", Path(__file__).parents[2] / "../shared/data"))


def wrap(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    return (angle + PI) % (2 * PI) - PI


def turns(angle: NDArray[np.generic]) -> NDArray[np.float64]:
    """Distance from the next multiple of 2π."""
    return np.abs(wrap(np.asarray(angle, np.float64)))


@pytest.fixture(scope="module")
def phase() -> NDArray[np.float64]:
    """Two echoes of a ball with wraps, in noise, between −π and π."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, 24)] * 3, indexing="ij")
    r2 = sum(a**2 for a in axes)
    echoes = np.stack([3 * r2 + 2 * axes[0] + 0.5, 9 * r2 + 6 * axes[0] + 0.5])
    return wrap(np.where(r2 < 0.8, echoes, rng.uniform(-PI, PI, echoes.shape)))


def integers(phase: NDArray[np.float64], levels: int, first: int) -> NDArray[np.int32]:
    """The circle in ``levels`` steps from ``first``, as an analogue-to-digital converter would."""
    return (np.floor((phase + PI) / (2 * PI) * levels).clip(0, levels - 1) + first).astype(np.int32)


STORED = {
    "radians": (lambda p: p, "radians", 1e-6),
    "radians, float32 a little beyond π": (lambda p: (p * 1.0005).astype(np.float32), "radians", 2e-3),
    "0 … 2π": (lambda p: p % (2 * PI), "radians, 0 to 2 pi", 1e-5),
    "Siemens 0 … 4095": (lambda p: integers(p, 4096, 0), "Siemens, 0 to 4095", 2e-3),
    "0 … 4096": (lambda p: (p + PI) / (2 * PI) * 4096, "Siemens, 0 to 4095", 1e-5),
    "Siemens −4096 … 4095": (lambda p: integers(p, 8192, -4096), "Siemens, -4096 to 4095", 2e-3),
    "Siemens −4096 … 4094 in steps of 2": (
        lambda p: 2 * integers(p, 4096, -2048),
        "Siemens, -4096 to 4095",
        2e-3,
    ),
    "12 bits, signed": (lambda p: integers(p, 4096, -2048), "12 bits, -2048 to 2047", 2e-3),
    "16 bits": (lambda p: integers(p, 65536, 0), "16 bits, 0 to 65535", 2e-4),
    "16 bits, signed": (lambda p: integers(p, 65536, -32768), "16 bits, -32768 to 32767", 2e-4),
    "8 bits": (lambda p: integers(p, 256, 0), "8 bits, 0 to 255", 3e-2),
    "degrees": (lambda p: p * 180 / PI, "degrees, -180 to 180", 1e-5),
    "degrees, positive": (lambda p: p * 180 / PI % 360, "degrees, 0 to 360", 1e-5),
    "milliradians": (lambda p: np.round(1000 * p), "milliradians, -3142 to 3142", 1e-3),
    "cycles": (lambda p: p / (2 * PI) % 1, "cycles, 0 to 1", 1e-5),
}


@pytest.mark.parametrize("name", STORED)
def test_a_known_scale_is_recognised(name: str, phase: NDArray[np.float64]) -> None:
    store, rule, tolerance = STORED[name]
    stored = store(phase)
    before = stored.copy()
    radians, decided = scale_to_radians(stored)
    assert decided == rule
    assert radians.dtype == np.float32
    assert np.abs(radians).max() <= PI + 1e-6
    assert turns(radians - phase).max() < tolerance
    np.testing.assert_array_equal(stored, before)


@pytest.mark.parametrize(
    ("reach", "rule"), [(0.003674, "full range"), (0.5, "full range"), (500.0, "full range")]
)
def test_any_other_symmetric_range_with_wraps_is_the_full_circle(
    reach: float, rule: str, phase: NDArray[np.float64]
) -> None:
    radians, decided = scale_to_radians(phase * reach / PI)
    assert decided.startswith(rule)
    assert turns(radians - phase).max() < 5e-3


@given(st.floats(1e-6, 1e6))
@settings(max_examples=40, deadline=None)
def test_the_range_alone_decides_a_symmetric_scale(reach: float) -> None:
    known = np.array([PI, 180, 128, 2048, 1000 * PI, 4096, 32768])
    assume((np.abs(reach / known - 1) > 0.12).all())
    rng = np.random.default_rng(1)
    phase = wrap(np.cumsum(rng.normal(0.2, 0.2, (12, 12, 12)), axis=0) + rng.uniform(-0.1, 0.1, (12, 12, 12)))
    phase[0, 0, :2] = -PI, PI * (1 - 1e-6)
    radians, _ = scale_to_radians(phase * reach / PI)
    assume(reach > PI or reach < 0.9 * PI)
    assert turns(radians - phase).max() < 1e-3


def test_a_phase_in_radians_that_does_not_wrap_stays_as_it_is() -> None:
    bowl = np.linspace(-1.2, 0.4, 1000).reshape(10, 10, 10)
    radians, rule = scale_to_radians(bowl)
    assert rule == "radians"
    np.testing.assert_allclose(radians, bowl, atol=1e-6)


def test_nan_and_infinity_become_zero(phase: NDArray[np.float64]) -> None:
    stored = phase.copy()
    stored[0, 3, 4, 5], stored[1, 0, 0, 0] = np.nan, np.inf
    radians, _ = scale_to_radians(stored)
    assert radians[0, 3, 4, 5] == 0
    assert radians[1, 0, 0, 0] == 0
    siemens = integers(phase, 4096, 0).astype(np.float32)
    siemens[0, 3, 4, 5] = np.nan
    assert scale_to_radians(siemens)[0][0, 3, 4, 5] == 0


def test_a_background_of_zeros_stays_zero_on_a_scale_with_an_offset(phase: NDArray[np.float64]) -> None:
    siemens = integers(phase, 4096, 0)
    siemens[:, :7] = 0
    radians, rule = scale_to_radians(siemens)
    assert rule == "Siemens, 0 to 4095"
    assert (radians[:, :7] == 0).all()
    assert turns(radians[:, 7:] - phase[:, 7:]).max() < 2e-3


def test_a_lone_zero_inside_the_head_is_minus_pi_and_no_hole(phase: NDArray[np.float64]) -> None:
    siemens = integers(phase, 4096, 0).clip(1, 4095)
    siemens[0, 12, 12, 12] = siemens[1, 12, 12, 13] = 0
    radians, _ = scale_to_radians(siemens)
    assert radians[0, 12, 12, 12] == pytest.approx(-PI)
    assert radians[1, 12, 12, 13] == pytest.approx(-PI)


def magnitude(seed: int = 0) -> NDArray[np.float64]:
    """A bright ball in Rician noise."""
    rng = np.random.default_rng(seed)
    r2 = sum(a**2 for a in np.meshgrid(*[np.linspace(-1, 1, 24)] * 3, indexing="ij"))
    signal = np.where(r2 < 0.6, 0.7 + 0.2 * np.sin(9 * r2), 0.0) + np.where(
        (r2 > 0.7) & (r2 < 0.85), 0.95, 0.0
    )
    return np.abs(signal + 0.02 * (rng.standard_normal(r2.shape) + 1j * rng.standard_normal(r2.shape)))


def nearly_full(volume: NDArray[np.float64], top: float) -> NDArray[np.float64]:
    return volume / volume.max() * top


REFUSED = {
    "a magnitude": (magnitude(), "magnitude"),
    "a magnitude that fills 12 bits": (nearly_full(magnitude(), 4095).round(), "magnitude"),
    "a magnitude between 0 and 1": (nearly_full(magnitude(), 1), "magnitude"),
    "a magnitude that reaches 2π": (nearly_full(magnitude(), 2 * PI), "magnitude"),
    "a magnitude that fills 16 bits": (nearly_full(magnitude(), 65535).round(), "magnitude"),
    "a mask": ((magnitude() > 0.3).astype(np.uint8), "magnitude"),
    "a mask of 255": ((magnitude() > 0.3) * 255, "magnitude"),
    "all zeros": (np.zeros((5, 5, 5)), "zeros"),
    "a constant": (np.full((5, 5, 5), 2.0), "equal"),
    "nothing finite": (np.full((5, 5, 5), np.nan), "finite"),
    "nothing at all": (np.zeros((0, 4, 4)), "empty"),
    "complex numbers": (np.ones((4, 4, 4), complex), "complex"),
    "an unwrapped phase": (np.linspace(-20, 25, 1000).reshape(10, 10, 10), "not symmetric"),
    "an unwrapped phase, symmetric by chance": (
        np.linspace(-25, 25, 1000).reshape(10, 10, 10),
        "do not wrap",
    ),
    "numbers too small for radians": (np.linspace(-0.2, 0.2, 1000).reshape(10, 10, 10), "neither radians"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_phase_is_refused_with_the_reason(name: str) -> None:
    stored, reason = REFUSED[name]
    with pytest.raises(PhaseScaleError, match=reason) as refusal:
        scale_to_radians(stored)
    assert isinstance(refusal.value, ValueError)
    assert refusal.value.reason == str(refusal.value)


@pytest.mark.skipif(
    not (SHARED / "mgre_small/phase.nii.gz").exists(), reason="the shared real scan is not here"
)
def test_a_real_scan_in_an_odd_range_is_read_and_its_magnitude_refused() -> None:
    nib = pytest.importorskip("nibabel")
    stored = np.moveaxis(np.asanyarray(nib.load(SHARED / "mgre_small/phase.nii.gz").dataobj), -1, 0)
    radians, rule = scale_to_radians(stored)
    assert rule.startswith("full range")
    assert radians.min() == pytest.approx(-PI, abs=1e-3)
    assert radians.max() == pytest.approx(PI, abs=1e-3)
    with pytest.raises(PhaseScaleError, match="magnitude"):
        scale_to_radians(np.asanyarray(nib.load(SHARED / "mgre_small/magnitude.nii.gz").dataobj))
