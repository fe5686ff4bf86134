"""A finished reconstruction: scores in words, the maps, numbers, and everything to take away."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from qsm_ai.ui import session
from qsm_ai.ui.backend import Artefact, Backend, Job, Problem, Statistics
from qsm_ai.ui.command import command_line
from qsm_ai.ui.notices import escape, file_size, quantity, ratio, show_problem
from qsm_ai.ui.viewer import viewer

GOOD_SCORE = 0.6
"""The service reports a map below it as doubtful; so must this page."""

_KINDS = {".gz": "application/gzip", ".json": "application/json", ".html": "text/html"}


def show(job: Job) -> None:
    """Draw a finished job."""
    _scores(job)
    for warning in job.warnings:
        st.warning(escape(warning), icon=":material/info:")
    maps, numbers, methods, files = st.tabs(["Maps", "Numbers", "Methods", "Files"])
    with maps:
        viewer(job)
    with numbers:
        _numbers(job)
    with methods:
        _methods(job)
    with files:
        _files(job)


def verdict(score: float) -> str:
    """What a physics-check score means."""
    if score >= 0.95:
        return "The map explains nearly all of the measured field."
    if score >= GOOD_SCORE:
        return "The map explains most of the measured field."
    return "Doubtful: the map leaves much of the measured field unexplained. Look at the residual."


def noise_verdict(excess: float) -> str:
    """What a residual of so many times the noise means."""
    if excess < 1.5:
        return "Only noise is left."
    if excess < 10:
        return "A little more than noise is left."
    return "More than noise is left: anatomy, motion or a wrong mask."


def ppb(value_ppm: float) -> str:
    """A small value in ppm as people say it."""
    return f"{ratio(value_ppm * 1000)} ppb"


def _scores(job: Job) -> None:
    cards: list[tuple[str, str, str, str | None]] = []
    if (score := job.scores.get("physics_check")) is not None:
        cards.append(("Field explained", f"{score:.1%}", verdict(score), _CHECK_HELP))
    if (rms := job.scores.get("residual_rms_ppm")) is not None:
        cards.append(("Field left over", ppb(rms), "Root mean square; mapped below.", None))
    if (excess := job.scores.get("residual_chi_square")) is not None:
        cards.append(("Left over, over noise", ratio(excess), noise_verdict(excess), _NOISE_HELP))
    if job.timings:
        slowest = max(job.timings, key=lambda name: job.timings[name])
        longest = f"{_stage_titles(job)[slowest]} took {job.timings[slowest]:.1f} s of it."
        cards.append(("Computed in", f"{sum(job.timings.values()):.1f} s", longest, None))
    if not cards:
        return
    for column, (label, value, words, explanation) in zip(st.columns(len(cards)), cards, strict=True):
        with column.container(border=True, height="stretch", gap="xsmall"):
            st.metric(label, value, help=explanation)
            st.caption(words)


def _stage_titles(job: Job) -> dict[str, str]:
    try:
        known = {stage["name"]: stage["title"] for stage in _report(job.id)["stages"]}
    except (Problem, KeyError):
        known = {}
    return {name: known.get(name, name) for name in job.timings}


_CHECK_HELP = (
    "The physics check: the field is simulated from the finished map and compared with the local field "
    "that was measured; the number is the share of its energy that the map explains. It cannot see errors "
    "in the cone of k-space where the dipole kernel is blind."
)
_NOISE_HELP = (
    "Median of the squared residual over the squared standard error of the echo fit, divided by what pure "
    "noise would give. 1 is perfect."
)


def _numbers(job: Job) -> None:
    volumes = [a for a in job.artefacts if a.unit]
    with st.container(key="numbers"):
        _distribution(job, volumes)
    if job.timings:
        st.subheader("Time per stage", anchor=False)
        titles = _stage_titles(job)
        st.dataframe(
            [{"Stage": titles[name], "Seconds": seconds} for name, seconds in job.timings.items()],
            column_config={
                "Seconds": st.column_config.ProgressColumn(
                    format="%.2f s", min_value=0, max_value=max(job.timings.values())
                )
            },
            hide_index=True,
            width="stretch",
        )


@st.fragment
def _distribution(job: Job, volumes: list[Artefact]) -> None:
    if not volumes:
        return
    titles = {a.name: a.title for a in volumes}
    name = st.selectbox(
        "Map", list(titles), format_func=titles.__getitem__, key=f"distribution/{job.id}", width=320
    )
    artefact = next(a for a in volumes if a.name == name)
    try:
        found = _in_brain(job.id, name)
    except Problem as problem:
        show_problem(problem)
        return
    table, chart = st.columns([2, 3], gap="large")
    with table:
        st.table(rows(found, artefact.unit), border="horizontal", hide_header=True, hide_index=True)
    with chart:
        st.vega_lite_chart(_histogram(found, artefact), width="stretch")
        st.caption("The outermost bars hold what lies below the 1st and above the 99th percentile.")


@st.cache_data(scope="session", max_entries=200, ttl=3600, show_spinner=False)
def _in_brain(job_id: str, artefact: str) -> Statistics:
    return session.backend().statistics(job_id, artefact)


def rows(found: Statistics, unit: str) -> list[dict[str, str]]:
    """Statistics as a table for people."""
    return [
        {"": name, " ": value}
        for name, value in (
            ("Mean", quantity(found.mean, unit)),
            ("Standard deviation", quantity(found.standard_deviation, unit)),
            ("Median", quantity(found.median, unit)),
            ("5th to 95th percentile", f"{quantity(found.low, unit)} to {quantity(found.high, unit)}"),
            ("Volume", f"{found.volume_ml:,.1f} ml"),
            ("Voxels", f"{found.voxels:,}"),
        )
    ]


def _histogram(found: Statistics, artefact: Artefact) -> dict[str, Any]:
    bars = [
        {"from": low, "to": high, "voxels": count}
        for low, high, count in zip(found.edges[:-1], found.edges[1:], found.counts, strict=True)
    ]
    return {
        "data": {"values": bars},
        "height": 280,
        "mark": {"type": "bar", "binSpacing": 0},
        "encoding": {
            "x": {
                "field": "from",
                "bin": {"binned": True},
                "type": "quantitative",
                "title": f"{artefact.title} ({artefact.unit})",
            },
            "x2": {"field": "to"},
            "y": {"field": "voxels", "type": "quantitative", "title": "Voxels"},
        },
    }


def _methods(job: Job) -> None:
    st.subheader("Command line", anchor=False)
    st.caption("The same map, without this page:")
    st.code(command_line(job.files, job.parameters), language="bash", wrap_lines=True)
    try:
        report = _report(job.id)
    except Problem as problem:
        show_problem(problem)
        return
    st.subheader("Methods paragraph", anchor=False)
    st.caption("For a paper, with what the consensus recommendations ask to report:")
    st.code(methods_text(report), language=None, wrap_lines=True)


def methods_text(report: Mapping[str, Any]) -> str:
    """The methods paragraph of a report with its list of citations."""
    citations = [f"[{c['number']}] {c['text']}. doi:{c['doi']}" for c in report["citations"]]
    return "\n\n".join([report["methods"], "\n".join(citations)])


@st.cache_data(scope="session", max_entries=50, ttl=3600, show_spinner=False)
def _report(job_id: str) -> dict[str, Any]:
    return session.backend().report(job_id)


def _files(job: Job) -> None:
    st.download_button(
        "Download everything",
        data=partial(_everything, session.backend(), job),
        file_name=f"{job.name}_qsm.zip",
        mime="application/zip",
        icon=":material/download:",
        type="primary",
        on_click="ignore",
        key=f"everything/{job.id}",
    )
    st.caption("All maps as NIfTI on the grid of the input, and the reports.")
    for artefact in job.artefacts:
        _file(job.id, artefact.name, artefact.title, artefact.file, file_size(artefact.size))
    for name, (title, file, detail) in reports(job).items():
        _file(job.id, name, title, file, detail)


def reports(job: Job) -> dict[str, tuple[str, str, str]]:
    """Title, file name and content of what is told about a map, by name in the API."""
    found = {}
    if job.has_page:
        found["page"] = ("Quality page", f"{job.name}_qsm.html", "pictures, scores, methods, for any browser")
    return {
        **found,
        "report": ("Report", f"{job.name}_qsm.json", "parameters, versions, timings, scores, methods"),
    }


def _file(job_id: str, name: str, title: str, file: str, detail: str) -> None:
    words, button = st.columns([4, 1], vertical_alignment="center")
    words.markdown(f"**{escape(title)}**  \n:gray[:small[{escape(file)} · {escape(detail)}]]")
    button.download_button(
        "Download",
        data=partial(session.backend().artefact, job_id, name),
        file_name=file,
        mime=_KINDS[Path(file).suffix],
        icon=":material/download:",
        on_click="ignore",
        width="stretch",
        key=f"download/{job_id}/{name}",
    )


def _everything(backend: Backend, job: Job) -> bytes:
    buffer = io.BytesIO()
    # The maps are compressed already.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for artefact in job.artefacts:
            archive.writestr(artefact.file, backend.artefact(job.id, artefact.name))
        for name, (_, file, _) in reports(job).items():
            archive.writestr(file, backend.artefact(job.id, name))
    return buffer.getvalue()
