"""Grafana's dashboards from code: ``make dashboards`` writes them, a test keeps them current."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from levels import levels
from overview import overview

from inference import triton
from jobs import jobs

FOLDER = Path(__file__).parents[1] / "grafana/dashboards"


def dashboards() -> dict[str, str]:
    """The text of every dashboard, by the name of its file."""
    built = (make().build() for make in (overview, jobs, triton, levels))
    encoder = JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False)
    return {f"{board.uid}.json": encoder.encode(board) + "\n" for board in built}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in dashboards().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"deploy/monitoring/grafana/dashboards/{name}")
