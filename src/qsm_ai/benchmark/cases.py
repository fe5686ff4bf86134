"""What is varied from phantom to phantom: one axis at a time, on the same head."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Anatomy = Literal["invented", "labelled"]

SWEEP_VOXEL, QUICK_VOXEL = 1.5, 1.8
"""mm, of the phantoms of a sweep; the coarser one is for a quick look."""


@dataclass(frozen=True)
class Case:
    """A phantom to be made.

    Attributes
    ----------
    name : str
    axis : str
        What is varied; "reference" for the phantom that all sweeps share, "heads" for other heads.
    value : str
        Of what is varied, as it stands on the axis of a chart.
    head : int
        Which of the test heads.
    anatomy : "invented" or "labelled"
        The second bends the labels of a real head, where they are at hand.
    tilt : degrees between the third axis and B0
    snr : of the strongest signal of each echo
    voxel_size : mm
    field_strength : T
    lesion : ppm or None
        Susceptibility of one ball in the white matter.
    scale : float
        Size of the head, one being an adult's.
    lesions : bool
        Whether the head may carry lesions of random kinds and places.
    bare : bool
        Whether there is nothing but bone and air around the brain, and no signal.
    quick : bool
        Whether it belongs to the quick set.
    """

    name: str
    axis: str = "heads"
    value: str = ""
    head: int = 0
    anatomy: Anatomy = "invented"
    tilt: float = 0.0
    snr: float = 100.0
    voxel_size: tuple[float, float, float] = (SWEEP_VOXEL, SWEEP_VOXEL, SWEEP_VOXEL)
    field_strength: float = 3.0
    lesion: float | None = None
    scale: float = 1.0
    lesions: bool = False
    bare: bool = False
    quick: bool = False

    def definition(self) -> dict[str, Any]:
        """All that makes the phantom what it is, as JSON has it: a result is kept for as long as it stays."""
        return {
            key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items() if key != "quick"
        }


def _sweep(voxel: float, *, quick: bool) -> tuple[Case, ...]:
    """Every axis around one reference."""
    cube = (voxel, voxel, voxel)
    mark = "quick " if quick else ""
    small = 0.33 if quick else 0.4

    def case(axis: str, value: str, **varied: Any) -> Case:
        name = f"{mark}{axis}" + (f" {value}" if value else "")
        return Case(name, axis, value, **{"voxel_size": cube, "quick": quick, **varied})

    cases = [case("reference", "")]
    cases += [case("SNR", f"{snr}", snr=snr) for snr in ((20, 200) if quick else (20, 40, 200))]
    cases += [case("tilt", f"{tilt}°", tilt=tilt) for tilt in ((45, 90) if quick else (15, 30, 60, 90))]
    # The finest voxels hold a smaller head: the grid, and so the time, stays that of the others.
    fine = (0.5,) if quick else (0.5, 0.75)
    cases += [case("voxel", f"{h:g} mm", voxel_size=(h, h, h), scale=small * h / 0.5) for h in fine]
    coarse = () if quick else (1.0,)
    cases += [case("voxel", f"{h:g} mm", voxel_size=(h, h, h)) for h in (*coarse, 2.0)]
    cases.append(case("voxel", "1×1×3 mm", voxel_size=(1.0, 1.0, 3.0), scale=0.75 if quick else 1.0))
    cases += [case("field", f"{b0:g} T", field_strength=b0) for b0 in (1.5, 7.0)]
    cases += [case("lesion", f"{chi:+g} ppm", lesion=chi) for chi in (1.0, -3.0)]
    return tuple(cases)


def _bare(voxel: float, *, quick: bool) -> tuple[Case, ...]:
    """A brain from labels in bone and air: as it is, tilted, and noisy."""

    def case(what: str, **varied: Any) -> Case:
        name = f"{'quick ' if quick else ''}bare head{what and f', {what}'}"
        cube = (voxel, voxel, voxel)
        usual = {"head": 13, "anatomy": "labelled", "bare": True, "voxel_size": cube, "quick": quick}
        return Case(name, value=f"bare{what and f', {what}'}", **{**usual, **varied})

    return case(""), case("tilted by 30°", tilt=30), case("SNR 40", snr=40)


FULL = (
    Case("head 1", head=1, value="1"),
    Case("head 2, tilted by 30°", head=2, value="2", tilt=30),
    Case("head 3, random lesions", head=3, value="3", lesions=True),
    Case("labelled head 1", head=11, value="labels 1", anatomy="labelled"),
    Case("labelled head 2, tilted by 30°", head=12, value="labels 2", anatomy="labelled", tilt=30),
    Case("fine head", head=4, value="1.15 mm", voxel_size=(1.15, 1.15, 1.15)),
    Case("fine head, tilted by 30°", head=4, value="1.15 mm, 30°", tilt=30, voxel_size=(1.15, 1.15, 1.15)),
    Case("fine head, SNR 40", head=4, value="1.15 mm, SNR 40", snr=40, voxel_size=(1.15, 1.15, 1.15)),
    *_bare(1.06, quick=False),
)
QUICK = (
    Case("quick labelled head", head=11, value="labels", anatomy="labelled", quick=True,
         voxel_size=(QUICK_VOXEL, QUICK_VOXEL, QUICK_VOXEL)),
    *_bare(SWEEP_VOXEL, quick=True),
)  # fmt: skip

CASES: tuple[Case, ...] = (
    *_sweep(SWEEP_VOXEL, quick=False),
    *FULL,
    *_sweep(QUICK_VOXEL, quick=True),
    *QUICK,
)
"""Of both sets; ``Case.quick`` tells them apart."""
