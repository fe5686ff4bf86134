"""The accuracy section of docs/benchmarks.md, made from a record: tables and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from qsm_ai.benchmark.accuracy import STARTS, Score, read_scores
from qsm_ai.benchmark.cases import CASES
from qsm_ai.benchmark.charts import draw_maps, draw_sweeps
from qsm_ai.reconstruction.options import METHODS

BEGIN, END = "<!-- accuracy: made by qsm-ai benchmark accuracy --docs -->", "<!-- accuracy: end -->"


def write_report(record: Path, docs: Path) -> None:
    """Put tables and pictures of a record into the documentation.

    Parameters
    ----------
    record : Path
        JSON of ``qsm-ai benchmark accuracy``.
    docs : Path
        Folder of ``benchmarks.md``, which gets the section between two marks (at its end, if it has none),
        and of ``images``.
    """
    scores = read_scores(record)
    images = docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    pictures = []
    if draw_sweeps(scores, images / "accuracy.png"):
        pictures.append("![NRMSE over noise, tilt, voxel size and field strength](images/accuracy.png)")
    if draw_maps(scores, record.with_name(f"{record.stem}-slices"), images / "maps.png"):
        pictures.append("![Maps of the reference and the lesion phantoms](images/maps.png)")
    section = section_of(json.loads(record.read_text()), scores, pictures)
    replace_section(docs / "benchmarks.md", section, BEGIN, END)


def replace_section(page: Path, text: str, begin: str, end: str) -> None:
    """Put a text between two marks of a page, or both at its end where it has none.

    Parameters
    ----------
    page : Path
        Made if it does not exist.
    text : str
    begin, end : str
        The marks, each a line of its own.
    """
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    before, found, rest = old.partition(begin)
    after = rest.partition(end)[2] if found else "\n"
    if not found:
        before = before.rstrip() + "\n\n" if before.strip() else ""
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", encoding="utf-8")


def section_of(record: dict[str, Any], scores: Sequence[Score], pictures: Iterable[str] = ()) -> str:
    """Tables of a record as Markdown.

    Parameters
    ----------
    record : JSON of a run
    scores : of that run
    pictures : Markdown that shows them

    Returns
    -------
    str
    """
    network = record.get("network")
    weights = f"; weights `{network['sha256'][:12]}`" if network else ""
    machine = record["machine"]
    parts = [
        f"`{record['command']}`, {record['date'][:10]}, "
        f"{machine['cores']} cores of {machine['cpu']}{weights}.",
        *pictures,
    ]
    for start in STARTS:
        table = _table_of(start, scores)
        if table:
            parts += [f"#### From {'the ' if start != 'phase' else ''}{_spelt(start)}", table]
    for title, table in (
        ("Deep nuclei", _regions(scores)),
        ("Lesions", _lesions(scores)),
        ("Depth", _depths(scores)),
    ):
        if table:
            parts += [f"#### {title}", table]
    return "\n\n".join(parts)


def _spelt(start: str) -> str:
    return "true local field" if start == "local field" else start


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    rule = ["---" if index < words else "---:" for index in range(len(head))]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]
    return "\n".join(lines) if len(lines) > 2 else ""


def _by_case(scores: Iterable[Score], start: str) -> dict[str, dict[str, Score]]:
    """Scores of a start: by case, in the order of the cases, and by method."""
    found: dict[str, dict[str, Score]] = {case.name: {} for case in CASES}
    for score in scores:
        if score.start == start:
            found.setdefault(score.case, {})[score.method] = score
    return {name: by for name, by in found.items() if by}


def _table_of(start: str, scores: Sequence[Score]) -> str:
    """Every phantom a row, every method a column; all metrics for the network's method."""
    table = _by_case(scores, start)
    methods = [method for method in METHODS if any(method in by for by in table.values())]
    best = "qsm-vit" if "qsm-vit" in methods else (methods or [""])[0]
    head = (
        "Phantom",
        *(f"`{method}` NRMSE / %" for method in methods),
        *(
            f"`{best}` {name}"
            for name in ("detrended / %", "correlation", "XSIM", "HFEN / %", "slope", "coverage / %")
        ),
    )
    rows = []
    for name, by in table.items():
        cells = [name]
        for method in methods:
            s = by.get(method)
            cells.append(f"{s.quality.interior['nrmse']:.1f} / {s.quality.brain['nrmse']:.1f}" if s else "")
        s = by.get(best)
        if s is None:
            cells += [""] * 6
        else:
            inner, whole = s.quality.interior, s.quality.brain
            cells += [
                f"{inner['nrmse_detrend']:.1f} / {whole['nrmse_detrend']:.1f}",
                f"{inner['correlation']:.3f} / {whole['correlation']:.3f}",
                f"{inner['xsim']:.3f} / {whole['xsim']:.3f}",
                f"{inner['hfen']:.1f} / {whole['hfen']:.1f}",
                "" if s.quality.slope is None else f"{s.quality.slope:.2f}",
                f"{100 * s.quality.coverage:.1f}",
            ]
        rows.append(cells)
    return _markdown(head, rows)


def _regions(scores: Sequence[Score]) -> str:
    """Error of the means of the nuclei, ppm, over all phantoms, by method and start."""
    head = ("Region", "From", "Method", "phantoms", "bias / ppm", "largest / ppm", "noise within / ppm")
    rows = []
    names = dict.fromkeys(name for s in scores for name in s.quality.regions if name != "lesion")
    for name in names:
        for start in STARTS:
            for method in METHODS:
                found = [
                    s.quality.regions[name]
                    for s in scores
                    if s.start == start and s.method == method and name in s.quality.regions
                ]
                if found and method in {"qsm-vit", "tv"}:
                    errors = [estimated - true for true, estimated, _ in found]
                    within = (sum(v**2 for *_, v in found) / len(found)) ** 0.5
                    rows.append(
                        (
                            name,
                            start,
                            f"`{method}`",
                            str(len(found)),
                            f"{sum(errors) / len(errors):+.3f}",
                            f"{max(errors, key=abs):+.3f}",
                            f"{within:.3f}",
                        )
                    )
    return _markdown(head, rows, words=3)


def _lesions(scores: Sequence[Score]) -> str:
    head = ("Phantom", "From", "Method", "moment, estimated / true", "QSM-CI deviation / %", "streaks")
    rows = [
        (
            s.case,
            s.start,
            f"`{s.method}`",
            f"{s.quality.lesion['moment']:.2f}",
            f"{100 * s.quality.lesion['deviation']:.0f}",
            f"{s.quality.lesion['streak']:.3f}",
        )
        for s in scores
        if s.quality.lesion is not None
    ]
    return _markdown(head, rows, words=3)


def _depths(scores: Sequence[Score]) -> str:
    """Root mean square error, ppm, by depth, of the network's method."""
    shells = dict.fromkeys(shell for s in scores for shell in s.quality.depths)
    rows = []
    for start in STARTS:
        found = [s for s in scores if s.start == start and s.method == "qsm-vit"]
        if found:
            cells = [start]
            for shell in shells:
                errors = [s.quality.depths[shell] for s in found if shell in s.quality.depths]
                cells.append(f"{sum(errors) / len(errors):.4f}" if errors else "")
            rows.append(cells)
    return _markdown(("`qsm-vit`, error / ppm at a depth of", *(f"{s} voxels" for s in shells)), rows)
