"""The few rules of style that the theme cannot say."""

from __future__ import annotations

import streamlit as st

ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<rect width="32" height="32" rx="7" fill="#0f6e78"/>'
    '<path d="M8 8c5 0 5 3 8 8s3 8 8 8M24 8 8 24" fill="none" stroke="#fff" stroke-width="3" '
    'stroke-linecap="round"/></svg>'
)
"""For the browser's tab; one of Streamlit's names would be fetched from another company's server."""

_RULES = """
<style>
.block-container { max-width: 1320px; padding-top: 2.6rem; padding-bottom: 3rem; }
[data-testid="stFileUploaderDropzone"]:has([data-testid="stFileUploaderDropzoneInstructions"]) {
  padding-block: 3rem;
}
[data-testid="stImage"] img { border-radius: 0.4rem; }
[data-testid="stCaptionContainer"] { opacity: 0.75; }
.stButtonGroup [role="radiogroup"] { flex-wrap: wrap; }
.stButtonGroup [role="radio"] { height: auto; max-width: 100%; white-space: normal; }
[data-testid="stMetricLabel"] p { white-space: normal; }
.st-key-history button > div { justify-content: flex-start; }
</style>
"""


def apply() -> None:
    """Put the rules into the page."""
    st.html(_RULES)
