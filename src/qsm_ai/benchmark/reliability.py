"""The reliability section of docs/model_card.md, made from the record of a calibration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qsm_ai.benchmark.faults import FAULTS, OFF_DEGREES
from qsm_ai.benchmark.report import replace_section

BEGIN, END = "<!-- reliability: made by qsm-ai benchmark calibrate --docs -->", "<!-- reliability: end -->"
TITLES = {"removed": "from phase or a total field", "given": "from a given local field"}


def write_reliability(record: Path, docs: Path) -> None:
    """Put the reliability curve and its numbers into the model card.

    Parameters
    ----------
    record : Path
        JSON of ``qsm-ai benchmark calibrate``.
    docs : Path
        Folder of ``model_card.md`` and ``images``.
    """
    found = json.loads(record.read_text())
    images = docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    draw_reliability(found, images / "reliability.png")
    replace_section(docs / "model_card.md", section_of(found), BEGIN, END)


def section_of(record: dict[str, Any]) -> str:
    """Numbers of a calibration as Markdown."""
    lines = [
        "| Map | heads fitted / held out | within 1 σ / % | within 2 σ / % | error / σ, by head "
        "| false alarms / % | wrong direction found / % | wrong sign found / % |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, title in TITLES.items():
        told = record[kind]
        judged = told["held_out"]
        heads = sorted(judged["heads"])
        faults = " | ".join(f"{100 * told['found_faults'][fault]:.0f}" for fault in FAULTS)
        lines.append(
            f"| {title} | {told['heads_fitted']} / {told['heads_held_out']} "
            f"| {100 * judged['within_one']:.1f} | {100 * judged['within_two']:.1f} "
            f"| {heads[0]:.2f} to {heads[-1]:.2f} | {100 * told['false_alarms']:.0f} | {faults} |"
        )
    return (
        f"`{record['command']}`, {record['date'][:10]}, weights `{record['network']['sha256'][:12]}`, on the "
        "heads kept from the fit. A normal error lies within one σ in 68.3 % of the voxels and within "
        "two in 95.4 %. False alarms: heads of the training's kind that are called unlike it, each judged by "
        "the ranges of all others. The last two columns: of the heads kept from the fit, those called so "
        f"where B0 is taken to point {OFF_DEGREES:.0f}° off, or its phase to have the other sign.\n\n"
        + "\n".join(lines)
        + "\n\n![Error against the standard deviation given, in tenths of the voxels](images/reliability.png)"
    )


def draw_reliability(record: dict[str, Any], picture: Path) -> None:
    """Draw the root mean square error over that of σ, for held-out heads and those fitted to.

    Parameters
    ----------
    record : JSON of a calibration
    picture : PNG to write
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    for panel, (kind, title) in zip(figure.subplots(1, len(TITLES)), TITLES.items(), strict=True):
        curves = {part: record[kind][part]["curve"] for part in ("fitted", "held_out")}
        points = [value for curve in curves.values() for pair in curve for value in pair if value > 0]
        reach = [min(points) * 0.9, max(points) * 1.1]
        panel.plot(reach, reach, color="#999999", linewidth=1)
        for part, curve in curves.items():
            spread, error = zip(*curve, strict=True)
            style = {"fitted": ("--", "#a5a5a5"), "held_out": ("-", "#1f5fa8")}[part]
            panel.plot(spread, error, style[0], marker="o", color=style[1], label=part.replace("_", " "))
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("standard deviation given / scale of the map")
        panel.set_title(title, fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=8)
    figure.axes[0].set_ylabel("root mean square error / scale of the map")
    figure.savefig(picture, dpi=110)
