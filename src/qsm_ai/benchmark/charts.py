"""Pictures of the accuracy: sweeps as curves, maps as slices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from qsm_ai.benchmark.accuracy import PICTURED, Score, slice_file
from qsm_ai.benchmark.cases import CASES, Case
from qsm_ai.reconstruction.options import METHODS

SWEEPS = {"SNR": "SNR", "tilt": "tilt of B0", "voxel": "voxel", "field": "field strength"}
COLOURS = {"qsm-vit": "#1f5fa8", "tv": "#d1702b", "tkd": "#6b6b6b", "tikhonov": "#a5a5a5"}
SHOWN = ("phase", "local field")
WINDOW = (-0.1, 0.2)
"""ppm."""


def draw_sweeps(scores: Sequence[Score], picture: Path) -> bool:
    """Draw the interior NRMSE of every method over each axis, from phase and from the true local field.

    Parameters
    ----------
    scores : Score
    picture : PNG to write

    Returns
    -------
    bool
        False, and nothing written, where there is no sweep among the scores.
    """
    names = {score.case for score in scores}
    full = any(c.name in names and c.axis in SWEEPS for c in CASES if not c.quick)
    columns = {axis: _points(axis, names, quick=not full) for axis in SWEEPS}
    columns = {axis: cases for axis, cases in columns.items() if len(cases) > 1}
    if not columns:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * len(columns), 5.6), layout="constrained")
    panels = figure.subplots(len(SHOWN), len(columns), squeeze=False, sharey="row")
    by = {(s.case, s.start, s.method): s.quality.interior["nrmse"] for s in scores}
    for row, start in zip(panels, SHOWN, strict=True):
        for panel, (axis, cases) in zip(row, columns.items(), strict=True):
            for method in METHODS:
                heights = [by.get((c.name, start, method), np.nan) for c in cases]
                if not np.isnan(heights).all():
                    panel.plot(heights, marker="o", color=COLOURS[method], label=method)
            panel.set_xticks(range(len(cases)), [_tick(axis, c) for c in cases], fontsize=8)
            panel.set_xlabel(SWEEPS[axis])
            panel.set_ylim(bottom=0)
            panel.grid(alpha=0.3)
            panel.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(f"NRMSE / %, from {start}")
    panels[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(picture, dpi=110)
    return True


def _points(axis: str, names: Iterable[str], *, quick: bool) -> list[Case]:
    """Cases of a sweep in the order of what is varied, the reference among them."""
    known = set(names)
    cases = [c for c in CASES if c.quick == quick and c.axis in {axis, "reference"} and c.name in known]
    return sorted(cases, key=lambda c: _position(axis, c))


def _position(axis: str, case: Case) -> float:
    if axis == "SNR":
        return case.snr
    if axis == "tilt":
        return case.tilt
    return case.field_strength if axis == "field" else float(np.prod(case.voxel_size))


def _tick(axis: str, case: Case) -> str:
    if case.value:
        return case.value.removesuffix(" mm")
    position = _position(axis, case)
    return f"{case.voxel_size[0]:g}" if axis == "voxel" else f"{position:g}"


def draw_maps(scores: Sequence[Score], slices: Path, picture: Path) -> bool:
    """Draw a slice of the truth and of every method's map, and the errors, for each phantom that is shown.

    Parameters
    ----------
    scores : Score
    slices : folder of a run
    picture : PNG to write

    Returns
    -------
    bool
        False, and nothing written, where no slices are kept.
    """
    names = {score.case for score in scores}
    pictured = [c for c in CASES if c.name in names and c.axis in PICTURED]
    kept = [c for c in pictured if slice_file(slices, c.name, "truth").is_file()]
    full = any(not c.quick for c in kept)
    cases = [c for c in kept if c.quick != full]
    used = [m for m in METHODS if any(slice_file(slices, c.name, f"phase, {m}").is_file() for c in cases)]
    if not cases or not used:
        return False
    from matplotlib.figure import Figure

    titles = ["truth", *used]
    figure = Figure(figsize=(2.2 * (len(titles) + len(used)), 2.6 * len(cases)), layout="constrained")
    panels = figure.subplots(len(cases), len(titles) + len(used), squeeze=False)
    for row, case in zip(panels, cases, strict=True):
        truth = np.load(slice_file(slices, case.name, "truth")).astype(np.float32)
        shown = [truth]
        for method in used:
            file = slice_file(slices, case.name, f"phase, {method}")
            shown.append(np.load(file).astype(np.float32) if file.is_file() else np.full_like(truth, np.nan))
        errors = [np.where(truth != 0, one - truth, 0) for one in shown[1:]]
        aspect = case.voxel_size[1] / case.voxel_size[0]
        for panel, image in zip(row, [*shown, *errors], strict=True):
            panel.imshow(
                np.rot90(image),
                cmap="gray",
                vmin=WINDOW[0],
                vmax=WINDOW[1],
                aspect=aspect,
                interpolation="nearest",
            )
            panel.set_xticks([])
            panel.set_yticks([])
        row[0].set_ylabel(case.name.removeprefix("quick "))
    for panel, title in zip(panels[0], [*titles, *(f"{m} − truth" for m in used)], strict=True):
        panel.set_title(title, fontsize=9)
    figure.suptitle(f"From phase; {WINDOW[0]:g} (black) to {WINDOW[1]:g} ppm (white)", fontsize=9)
    figure.savefig(picture, dpi=80)
    return True
