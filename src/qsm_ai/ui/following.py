"""A job on its way: stage, place in the queue, time left, cancel."""

from __future__ import annotations

import streamlit as st

from qsm_ai.ui import session, sign_in
from qsm_ai.ui.backend import Job, Problem
from qsm_ai.ui.notices import escape, show_problem, time_left

POLL_SECONDS = 1.0


def follow(job_id: str) -> None:
    """Draw how far a job is, again and again until it has ended; then run the whole page once more."""
    with st.container(border=True):
        _poll(job_id)


@st.fragment(run_every=POLL_SECONDS)
def _poll(job_id: str) -> None:
    try:
        job = session.backend().job(job_id)
    except Problem as problem:
        if problem.is_final:
            sign_in.ask_again()
            st.rerun()
        show_problem(problem)
        st.caption("The page keeps asking.")
        return
    if job.ended:
        st.rerun()
    headline, detail = describe(job)
    words, button = st.columns([5, 1], vertical_alignment="center")
    words.markdown(f"**{escape(headline)}**  \n:gray[{escape(detail) or '&nbsp;'}]")
    if button.button("Cancel", icon=":material/stop_circle:", width="stretch", key=f"cancel/{job_id}"):
        try:
            session.backend().cancel(job_id)
        except Problem as problem:
            show_problem(problem)
    st.progress(min(1.0, max(0.0, job.fraction)))


def describe(job: Job) -> tuple[str, str]:
    """Headline and detail of a job that has not ended."""
    if job.state == "queued":
        headline = "Waiting for a free place"
        details = []
        if job.queue_position:
            details.append(
                "next in line" if job.queue_position == 1 else f"number {job.queue_position} in line"
            )
    else:
        headline = job.title or "Starting"
        details = [f"{job.fraction:.0%} done"]
    if job.note:
        details.append(job.note.rstrip("."))
    if job.seconds_left is not None:
        details.append(time_left(job.seconds_left))
    return headline, ", ".join(details)
