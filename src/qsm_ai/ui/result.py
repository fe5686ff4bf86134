"""A finished reconstruction: scores in words, the maps, downloads, the command and the methods paragraph."""

from __future__ import annotations

import streamlit as st

from qsm_ai.ui.backend import Job
from qsm_ai.ui.viewer import viewer


def show(job: Job) -> None:
    """Draw a finished job."""
    viewer(job)
