"""The page: a form, or a job, and the history beside it."""

from __future__ import annotations

import streamlit as st

from qsm_ai.ui import job_page, new_scan, session, sign_in, style
from qsm_ai.ui.measuring import drawing
from qsm_ai.ui.notices import DISCLAIMER, escape


def main() -> None:
    """Draw the page once."""
    st.set_page_config(page_title="QSM-AI", page_icon=style.ICON, layout="wide")
    style.apply()
    if not sign_in.require(session.backend()):
        return
    with st.sidebar:
        _sidebar()
    job_id = session.current_job()
    with drawing("scan" if job_id is None else "job"):
        if job_id is None:
            new_scan.page()
        else:
            job_page.page(job_id)


def _sidebar() -> None:
    st.title("QSM-AI", anchor=False)
    st.caption("Susceptibility maps from MRI phase")
    st.button(
        "New scan", icon=":material/add:", width="stretch", on_click=session.show, args=(None,), key="new"
    )
    if session.history():
        st.space("small")
        st.caption("This session")
        with st.container(key="history", gap="xsmall"):
            for entry in session.history():
                st.button(
                    escape(entry.name),
                    key=f"open/{entry.id}",
                    type="secondary" if entry.id == session.current_job() else "tertiary",
                    width="stretch",
                    on_click=session.show,
                    args=(entry.id,),
                )
    st.space("medium")
    sign_in.sidebar()
    _status(len(session.history()))
    st.caption(DISCLAIMER)


@st.fragment(run_every=20)
def _status(shown: int) -> None:
    if sign_in.has_ended():
        # What is on the screen belongs to somebody who may not be here any more.
        st.rerun()
    if len(session.history()) != shown:
        # A scan was sent by a run that a click then ended.
        st.rerun()
    if session.backend().ready():
        st.badge("Service ready", icon=":material/check_circle:", color="green")
    else:
        st.badge("Service not ready", icon=":material/hourglass_empty:", color="orange")


if __name__ == "__main__":
    main()
