"""Sentences for the reader: problems with their mend, times, scores in words."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from qsm_ai.ui.backend import Problem

DISCLAIMER = "Research use. Not a medical device."


def show_problem(problem: Problem) -> None:
    """A problem in a box: which file, what is wrong, how to mend it. Never a traceback."""
    st.error(f"{sentence_of(problem)}\n\n{escape(problem.mend)}".strip(), icon=":material/error:")


def sentence_of(problem: Problem) -> str:
    """A problem's sentence with its file, as Markdown."""
    sentence = escape(problem.sentence)
    if not problem.file or problem.file in problem.sentence:
        return sentence
    link = " " if problem.sentence[:1].islower() else ": "
    return f"**{escape(problem.file)}**{link}{sentence}"


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>#$|~:" else c for c in text)


def time_left(seconds: float) -> str:
    """A remaining time as people say it."""
    if seconds < 1:
        return "a moment left"
    if seconds < 90:
        return f"about {round(seconds)} s left"
    return f"about {round(seconds / 60)} min left"


def file_size(size: int) -> str:
    """Bytes as people say them."""
    if size < 1000:
        return f"{size} B"
    if size < 1_000_000:
        return f"{size / 1000:.0f} kB"
    if size < 1_000_000_000:
        return f"{size / 1_000_000:.1f} MB"
    return f"{size / 1_000_000_000:.1f} GB"


def quantity(value: float, unit: str) -> str:
    """A value with its unit, with as many digits as such maps deserve."""
    digits = {"ppm": 4, "1/s": 1}.get(unit, 3)
    rounded = round(value, digits) + 0.0  # no minus before nothing
    return f"{rounded:.{digits}f} {unit}".rstrip().replace("-", "\u2212", 1)


def format_grid(shape: Sequence[int], voxel_size: Sequence[float]) -> str:
    """Voxels and their size in mm."""
    voxels = " × ".join(str(n) for n in shape)
    return f"{voxels} voxels of {' × '.join(f'{edge:.3g}' for edge in voxel_size)} mm"


def ratio(value: float) -> str:
    """A ratio or amount with two significant digits, never in powers of ten."""
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"
