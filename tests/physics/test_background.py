"""Background fields whose sources are known to lie outside must go; a local field must stay.

One set of specifications for LBV, PDF and V-SHARP.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_ai.physics.background import lbv
from qsm_ai.physics.dipole import forward_field
from qsm_ai.physics.morphology import erode
from qsm_ai.physics.pdf import OuterSources, pdf
from qsm_ai.physics.v_sharp import v_sharp

Volume = NDArray[np.float32]
SHAPE, VOXEL, B0 = (56, 60, 52), (1.0, 1.0, 1.2), (0.1, 0.3, 0.95)


def positions(voxel_size: tuple[float, float, float] = VOXEL) -> NDArray[np.float64]:
    return np.stack(
        np.meshgrid(
            *[(np.arange(n) - n / 2) * h for n, h in zip(SHAPE, voxel_size, strict=True)], indexing="ij"
        )
    )


X, Y, Z = positions()
MASK: NDArray[np.bool_] = (X / 19) ** 2 + (Y / 22) ** 2 + (Z / 20) ** 2 < 1
INTERIOR = erode(MASK, 4.0, VOXEL)
REMOVERS: dict[str, Callable[[Volume], Volume]] = {
    "lbv": lambda f: lbv(f, MASK, VOXEL),
    "pdf": lambda f: pdf(f, MASK, VOXEL, B0, iterations=25),
    "v_sharp": lambda f: v_sharp(f, MASK, VOXEL)[0],
}
removers = pytest.mark.parametrize("remover", REMOVERS)


def dipole_at(place: tuple[float, float, float], moment: float = 1.0) -> Volume:
    """Field of a point dipole along B0: exactly harmonic everywhere else."""
    b = np.asarray(B0) / np.linalg.norm(B0)
    offset = np.stack([X, Y, Z]) - np.reshape(place, (3, 1, 1, 1))
    r = np.sqrt((offset**2).sum(0))
    cosine = np.tensordot(b, offset, 1) / np.maximum(r, 1e-9)
    return (moment * (3 * cosine**2 - 1) / np.maximum(r, 1) ** 3).astype(np.float32)


def outer_field() -> Volume:
    field = dipole_at((0, 0, 30), 2000) + dipole_at((27, 5, 0), -900) + dipole_at((-8, -31, 6), 1200)
    return (field * MASK).astype(np.float32)


def inner_field() -> Volume:
    chi = (((X - 4) ** 2 + (Y + 5) ** 2 + Z**2 < 3.2**2) * 0.1).astype(np.float32)
    chi -= (((X + 6) ** 2 + (Y - 4) ** 2 + (Z - 4) ** 2 < 2.5**2) * 0.2).astype(np.float32)
    return forward_field(chi, VOXEL, B0) * MASK


def rms(volume: Volume, where: NDArray[np.bool_] = INTERIOR) -> float:
    return float(np.sqrt(np.mean(np.square(volume[where], dtype=np.float64))))


@removers
def test_the_field_of_outer_dipoles_goes(remover: str) -> None:
    outer = outer_field()
    left = REMOVERS[remover](outer)
    assert left.dtype == np.float32
    assert rms(left) < 0.02 * rms(outer - outer[INTERIOR].mean())


@removers
def test_the_field_of_inner_sources_stays(remover: str) -> None:
    inner = inner_field()
    kept = REMOVERS[remover](inner)
    assert np.corrcoef(kept[INTERIOR], inner[INTERIOR])[0, 1] > 0.97
    assert rms(kept - inner) < 0.3 * rms(inner)


@removers
def test_both_at_once_are_told_apart(remover: str) -> None:
    inner, outer = inner_field(), outer_field()
    local = REMOVERS[remover](inner + outer)
    assert rms(outer) > 10 * rms(inner)
    assert np.corrcoef(local[INTERIOR], inner[INTERIOR])[0, 1] > 0.9


@removers
def test_it_is_zero_outside_and_blind_to_what_was_stored_there(remover: str) -> None:
    total = inner_field() + outer_field()
    junk = np.where(MASK, total, np.float32(1e3))
    local = REMOVERS[remover](total)
    assert not local[~MASK].any()
    np.testing.assert_allclose(REMOVERS[remover](junk), local, atol=1e-6)


@removers
def test_it_scales_with_the_field(remover: str) -> None:
    total = inner_field() + outer_field()
    once, fourfold = REMOVERS[remover](total), REMOVERS[remover](4 * total)  # 4: without rounding
    np.testing.assert_allclose(fourfold, 4 * once, rtol=1e-4, atol=1e-5)


HARMONIC = {
    "constant": np.ones(SHAPE),
    "gradient": 0.1 * X - 0.2 * Y + 0.05 * Z,
    "saddle": 0.01 * (X**2 - Y**2),
    "twisted": 0.01 * X * Y + 0.02 * Y * Z,
}


@pytest.mark.parametrize("kind", HARMONIC)
def test_lbv_and_v_sharp_remove_harmonic_polynomials(kind: str) -> None:
    """Discretely harmonic too, so that LBV is exact and a ball's mean is the value in its middle."""
    field = (HARMONIC[kind] * MASK).astype(np.float32)
    assert rms(lbv(field, MASK, VOXEL), MASK) < 1e-3 * rms(field, MASK)
    local, eroded = v_sharp(field, MASK, VOXEL)
    assert rms(local, eroded) < 1e-2 * rms(field, MASK)


def test_lbv_keeps_the_laplacian_and_is_zero_on_the_rim() -> None:
    total = inner_field() + outer_field()
    local = lbv(total, MASK, VOXEL, tolerance=1e-6)

    def laplacian(f: Volume) -> Volume:
        moved = [(np.roll(f, 1, a) + np.roll(f, -1, a) - 2 * f) / h**2 for a, h in enumerate(VOXEL)]
        return sum(moved)  # type: ignore[return-value]

    inside = erode(MASK, 1.3, VOXEL)
    assert rms(laplacian(local) - laplacian(total), inside) < 1e-3 * rms(laplacian(total), inside)
    assert not local[MASK & ~inside & ~erode(MASK, 1.0, VOXEL)].any()


def test_lbv_is_exact_where_the_rim_is_known() -> None:
    inner = inner_field()
    outer = (HARMONIC["gradient"] + HARMONIC["saddle"]) * MASK
    local = lbv((inner + outer).astype(np.float32), MASK, VOXEL, boundary=inner, tolerance=1e-6)
    assert rms(outer) > 100 * rms(inner)
    assert rms(local - inner, MASK) < 0.02 * rms(inner, MASK)


def test_pdf_gives_noisy_voxels_less_say() -> None:
    total = inner_field() + outer_field()
    clean = pdf(total, MASK, VOXEL, B0)
    wrong = total.copy()
    spot = (X - 10) ** 2 + (Y - 8) ** 2 + Z**2 < 9
    wrong[spot] += 3.0
    error = np.full(SHAPE, 0.001, np.float32)
    error[spot] = 3.0
    away = INTERIOR & ((X - 10) ** 2 + (Y - 8) ** 2 + Z**2 > 36)
    blind = rms(pdf(wrong, MASK, VOXEL, B0) - clean, away)
    aware = rms(pdf(wrong, MASK, VOXEL, B0, error) - clean, away)
    assert aware < 0.2 * blind


def test_more_iterations_of_pdf_leave_less_background() -> None:
    outer = outer_field()
    left = [rms(pdf(outer, MASK, VOXEL, B0, iterations=n), MASK) for n in (5, 20, 60)]
    assert left[0] > left[1] > left[2]


def test_outer_sources_are_sought_on_from_where_the_last_search_ended() -> None:
    outer = outer_field()
    sources = OuterSources(MASK, VOXEL, B0)
    left = [rms(sources.remove(outer, iterations=10), MASK) for _ in range(3)]
    assert left[0] > left[1] > left[2]
    assert left[2] < 0.5 * left[0]


def test_the_first_search_is_that_of_pdf() -> None:
    total = inner_field() + outer_field()
    np.testing.assert_array_equal(
        OuterSources(MASK, VOXEL, B0).remove(total, iterations=7), pdf(total, MASK, VOXEL, B0, iterations=7)
    )


def test_an_inner_field_that_is_known_is_kept_whole() -> None:
    inner, outer = inner_field(), outer_field()
    sources = OuterSources(MASK, VOXEL, B0)
    blind = sources.remove(inner + outer)
    told = sources.remove(inner + outer, inner)
    longer = OuterSources(MASK, VOXEL, B0).remove(inner + outer, iterations=80)
    assert rms(told - inner, MASK) < rms(longer - inner, MASK) < rms(blind - inner, MASK)


def test_sources_that_were_found_follow_the_scale_of_the_field() -> None:
    def twice(factor: float) -> Volume:
        sources = OuterSources(MASK, VOXEL, B0)
        total, inner = factor * (inner_field() + outer_field()), factor * inner_field()
        sources.remove(total.astype(np.float32), iterations=10)
        return sources.remove(total.astype(np.float32), (0.5 * inner).astype(np.float32), iterations=10)

    np.testing.assert_allclose(twice(4.0), 4 * twice(1.0), rtol=1e-3, atol=1e-4)


def test_v_sharp_loses_the_rim_of_the_smallest_radius_and_no_more() -> None:
    total = inner_field() + outer_field()
    local, eroded = v_sharp(total, MASK, VOXEL, radii_mm=(6, 4, 2))
    np.testing.assert_array_equal(eroded, erode(MASK, 2.0, VOXEL))
    assert not local[~eroded].any()
    _, narrower = v_sharp(total, MASK, VOXEL, radii_mm=(6,))
    np.testing.assert_array_equal(narrower, erode(MASK, 6.0, VOXEL))


def test_v_sharp_does_not_care_for_the_order_of_radii_nor_for_those_too_small_or_too_large() -> None:
    total = inner_field() + outer_field()
    one, mask_one = v_sharp(total, MASK, VOXEL, radii_mm=(6, 4, 2))
    other, mask_other = v_sharp(total, MASK, VOXEL, radii_mm=(2, 0.3, 6, 4, 40))
    np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_array_equal(mask_one, mask_other)


def test_what_cannot_be_done_is_refused() -> None:
    field = outer_field()
    with pytest.raises(ValueError, match="empty"):
        pdf(field, np.zeros_like(MASK), VOXEL, B0)
    with pytest.raises(ValueError, match="empty"):
        OuterSources(np.zeros_like(MASK), VOXEL, B0)
    with pytest.raises(ValueError, match="no radius"):
        v_sharp(field, MASK, VOXEL, radii_mm=(0.2,))
    with pytest.raises(ValueError, match="no ball"):
        v_sharp(field, MASK, VOXEL, radii_mm=(45,))
