"""Write the pages that come from code: run as ``make docs``; a test keeps them current."""

from __future__ import annotations

from pathlib import Path

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


PAGES = {"stages.md": stages_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"docs/{name}")
