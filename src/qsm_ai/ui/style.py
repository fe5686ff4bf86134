"""The few rules of style that the theme cannot say."""

from __future__ import annotations

import streamlit as st

_RULES = """
<style>
.block-container { max-width: 1320px; padding-top: 2.6rem; padding-bottom: 3rem; }
[data-testid="stFileUploaderDropzone"]:has([data-testid="stFileUploaderDropzoneInstructions"]) {
  min-height: 8.5rem;
}
[data-testid="stImage"] img { border-radius: 0.4rem; }
.st-key-history button > div { justify-content: flex-start; }
</style>
"""


def apply() -> None:
    """Put the rules into the page."""
    st.html(_RULES)
