"""One job: on its way, finished, failed or cancelled."""

from __future__ import annotations

import streamlit as st

from qsm_ai.ui import result, session
from qsm_ai.ui.backend import NOT_FOUND, Job, Problem
from qsm_ai.ui.checks import format_times
from qsm_ai.ui.following import follow
from qsm_ai.ui.notices import escape, format_grid, show_problem
from qsm_ai.ui.submission import METHODS


def page(job_id: str) -> None:
    """Draw a job in whatever state it is."""
    try:
        job = session.backend().job(job_id)
    except Problem as problem:
        st.title("This reconstruction cannot be shown", anchor=False)
        show_problem(problem)
        if problem.code == NOT_FOUND:
            session.forget(job_id)
        with st.container(horizontal=True):
            if not problem.is_final:
                st.button("Load again", icon=":material/refresh:", key="reload")
            st.button("New scan", icon=":material/add:", on_click=session.show, args=(None,), key="again")
        return
    if session.remember(job, session.history()):
        # The history stands above in the page, and is drawn already.
        st.rerun()
    _header(job)
    if not job.ended:
        follow(job_id)
    elif job.state == "done":
        result.show(job)
    else:
        if job.state == "cancelled":
            st.info("This reconstruction was cancelled.", icon=":material/stop_circle:")
        elif job.problem is not None:
            show_problem(job.problem)
        _offer_retry(job.id)


def _offer_retry(job_id: str) -> None:
    if st.button("Try again", icon=":material/refresh:", help="With the same upload.", key=f"retry/{job_id}"):
        try:
            session.backend().retry(job_id)
        except Problem as problem:
            show_problem(problem)
        else:
            st.rerun()


def _header(job: Job) -> None:
    title, buttons = st.columns([4, 1], vertical_alignment="bottom")
    title.title(escape(job.name), anchor=False)
    title.caption(summary(job))
    if job.ended:
        with buttons.container(horizontal=True, horizontal_alignment="right"):
            _offer_deletion(job.id)


def _offer_deletion(job_id: str) -> None:
    with st.popover("Delete", icon=":material/delete:", type="tertiary"):
        st.markdown("The uploaded scan and all results are removed from the service for good.")
        clicked = st.button("Delete everything", type="primary", width="stretch", key=f"delete/{job_id}")
    if clicked:
        try:
            session.backend().delete(job_id)
        except Problem as problem:
            show_problem(problem)
            return
        session.forget(job_id)
        st.cache_data.clear()
        session.show(None)
        st.rerun()


def summary(job: Job) -> str:
    """A job in one line: how, at which field, which echoes, which grid."""
    parts = [METHODS[job.parameters["method"]][0]] if job.parameters.get("method") in METHODS else []
    if strength := job.scan.get("field_strength"):
        parts.append(f"{strength:g} T")
    if times := job.scan.get("echo_times_ms"):
        parts.append(f"TE {format_times(times)} ms")
    if (shape := job.scan.get("shape")) and (size := job.scan.get("voxel_size")):
        parts.append(format_grid(shape, size))
    return " · ".join(parts)
