"""Whole heads come with their dipole, which turns with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

torch = pytest.importorskip("torch")

from qsm_ai.network import whole_heads  # noqa: E402
from qsm_ai.network.whole_heads import (  # noqa: E402
    DIPOLE,
    MAPS,
    TRUST,
    WholeHeads,
    whole_head,
    write_whole_heads,
)

EDGE = 32


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    return whole_head(np.random.default_rng(4), None, EDGE)


def likeness(stack: np.ndarray) -> float:
    """Correlation of the local field in the mask with that of the true map and the stack's dipole."""
    inside = stack[MAPS.index("mask")] > 0
    truth = stack[MAPS.index("total_variation")] + stack[-2]
    made = np.fft.ifftn(np.fft.fftn(truth) * stack[DIPOLE]).real
    return float(np.corrcoef(stack[MAPS.index("local_field")][inside], made[inside])[0, 1])


def test_a_head_lies_in_the_cube_whole(head: np.ndarray) -> None:
    assert head.shape == (len(MAPS) + 4, EDGE, EDGE, EDGE)
    assert np.isfinite(head).all()
    assert 0.05 < (head[-1] == 1).mean() < 0.6
    for axis in range(3):
        assert not head[-1].take([0, -1], axis).any()
    trust, known = head[TRUST], head[MAPS.index("mask")]
    assert ((trust > 0) == (known > 0)).all()
    assert trust.max() == 1


def test_the_true_map_and_the_dipole_make_the_local_field(head: np.ndarray) -> None:
    assert likeness(head) > 0.5
    # A dipole that points elsewhere does not.
    other = head.copy()
    other[DIPOLE] = head[DIPOLE].transpose(2, 0, 1)
    assert likeness(other) < 0.1


def test_local_fields_of_other_removals_are_like_ours(head: np.ndarray) -> None:
    # At such voxels the rim is half of the brain, and there they differ.
    inside = binary_erosion(head[-1] == 1, iterations=2)
    ours = head[MAPS.index("local_field")][inside]
    for name in ("v_sharp_12", "v_sharp_25", "lbv"):
        other = head[MAPS.index(name)][inside]
        assert 0.5 < np.corrcoef(ours, other)[0, 1] < 1


def test_a_head_and_its_dipole_turn_together(head: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "000001.npy", head)
    heads = WholeHeads(tmp_path)
    rng = np.random.default_rng(0)
    found = [heads.crop(rng, EDGE).numpy() for _ in range(6)]
    assert len({turned[0, : EDGE // 2].tobytes() for turned in found}) == 6
    for turned in found:
        assert likeness(turned) == pytest.approx(likeness(head), rel=1e-3)


def test_a_crop_is_smaller_than_the_head(head: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "000001.npy", head)
    crop = WholeHeads(tmp_path).crop(np.random.default_rng(0), 16)
    assert crop.shape == (len(MAPS) + 4, 16, 16, 16)


def test_a_brain_that_does_not_fit_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_heads, "BRAIN_MM", 120.0)
    with pytest.raises(ValueError, match="does not fit a cube of 24"):
        whole_head(np.random.default_rng(1), None, 24)
    write_whole_heads(tmp_path, range(1, 2), None, 24)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("limit", "value", "why"), [("LEAST_KNOWN", 1.1, "turns"), ("LOUDEST", 0.0, "little but noise")]
)
def test_a_scan_that_shows_next_to_nothing_is_left_out(
    limit: str, value: float, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_heads, limit, value)
    with pytest.raises(ValueError, match=why):
        whole_head(np.random.default_rng(4), None, EDGE)


def test_heads_are_made_once(tmp_path: Path) -> None:
    write_whole_heads(tmp_path, range(4, 6), None, EDGE)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert before
    write_whole_heads(tmp_path, range(4, 6), None, EDGE)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
