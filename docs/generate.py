"""Write the pages that come from code: run as ``make docs``; a test keeps them current."""

from __future__ import annotations

from pathlib import Path

from qsm_ai.observe.catalogue import CALLS, DURATIONS, METRICS
from qsm_ai.reconstruction.stages import ARTEFACTS, STAGES

DOCS = Path(__file__).parent


def table(*rows: tuple[str, ...]) -> str:
    """A Markdown table whose first row is its head."""
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def stages_page() -> str:
    """The page of stages and artefacts, from ``reconstruction/stages.py``."""
    stages = table(
        ("stage", "what it does", "takes", "makes", "usual share of the time"),
        *(
            (
                f"`{stage.name}`",
                stage.title,
                ", ".join(f"`{name}`" for name in stage.consumes),
                ", ".join(f"`{name}`" for name in stage.produces) or "inputs of the next stage",
                f"{stage.share:.0%}",
            )
            for stage in STAGES
        ),
    )
    artefacts = table(
        ("artefact", "file", "unit", "what it is", "display window"),
        *(
            (
                f"`{artefact.name}`",
                f"`<scan>_{artefact.suffix}.nii.gz`",
                artefact.unit or "none",
                artefact.title,
                f"{artefact.window[0]:g} to {artefact.window[1]:g}",
            )
            for artefact in ARTEFACTS.values()
        ),
    )
    return (
        "# Stages and artefacts\n\n"
        "Made by `make docs` from `src/qsm_ai/reconstruction/stages.py`; change it there."
        " Stage names are those of progress messages, of `_qsm.json` and of the metrics' `stage` label;"
        " artefact names are those of the API.\n\n"
        f"## Stages\n\n{stages}\n\n## Artefacts\n\n{artefacts}\n"
    )


TIERS = {
    "backend": "The backend at `/metrics`, and every worker in a process of its own on `QSM_WORKER_PORT`.",
    "frontend": "The page on a port of its own, `QSM_UI_METRICS_PORT` (8502 in the image; none by default).",
    "triton": "Triton on its metrics port (8002).",
}


def metrics_page() -> str:
    """The page of metrics, from ``observe/catalogue.py``."""
    parts = [
        "# Metrics\n\n"
        "Made by `make docs` from `src/qsm_ai/observe/catalogue.py`; change it there. A test compares the"
        " tables with what running tiers expose. Labels take few values: methods, stages, states, routes,"
        " codes and operations that are named in the code, never ids, names or addresses. Histograms have"
        " `_bucket`, `_sum` and `_count`; where Prometheus asks for OpenMetrics, buckets carry trace ids as"
        " exemplars.\n"
    ]
    for tier, where in TIERS.items():
        rows = [
            (
                f"`{metric.name}`",
                metric.kind,
                ", ".join(f"`{label}`" for label in metric.labels),
                metric.help + ("" if metric.always else " Where there is such hardware."),
                metric.source,
            )
            for metric in METRICS
            if metric.tier == tier
        ]
        made = table(("metric", "kind", "labels", "what it tells", "made by"), *rows)
        parts.append(f"## {tier.capitalize()}\n\n{where}\n\n{made}\n")
    seconds = ", ".join(f"{bound:g}" for bound in DURATIONS)
    calls = ", ".join(f"{bound:g}" for bound in CALLS)
    parts.append(
        f"## Buckets\n\nJobs, stages, requests and calls of the page, s: {seconds}.\n\n"
        f"Calls to storage and database, drawing of pages, s: {calls}.\n"
    )
    return "\n".join(parts)


PAGES = {"stages.md": stages_page, "metrics.md": metrics_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"docs/{name}")
