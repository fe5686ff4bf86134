"""Who looks at the page, where the service wants to know: by the identity provider, or by an API key.

The page itself lets nobody in: it hands the visitor's token or key to the API with every request, and the API
says yes or no. A key is kept in the memory of the session and goes with it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import streamlit as st

from qsm_ai.ui.backend import Account, Backend, Problem
from qsm_ai.ui.notices import DISCLAIMER, escape

ASK_AGAIN_AFTER = 60.0
"""Seconds for which the service's yes is believed."""

_KEY = "api_key"
_ADMITTED = "admitted"


@dataclass(frozen=True)
class _Admission:
    credentials: str | None
    account: Account
    at: float

    def holds(self, credentials: str | None) -> bool:
        return (
            self.credentials == credentials
            and time.time() - self.at < ASK_AGAIN_AFTER
            and (self.account.expires_at is None or time.time() < self.account.expires_at)
        )


def credentials() -> str | None:
    """What shows the API who the visitor is: the provider's token, or the key that was typed in."""
    if _is_signed_in():
        return st.user.tokens.to_dict().get("id")
    key: str | None = st.session_state.get(_KEY)
    return key


def require(backend: Backend) -> bool:
    """Draw a page to sign in unless the service lets the visitor in.

    Parameters
    ----------
    backend : Backend
        On behalf of the visitor.

    Returns
    -------
    bool
        Whether to go on. A service that does not answer says so elsewhere, and is no reason to ask for a key.
    """
    mine = credentials()
    known: _Admission | None = st.session_state.get(_ADMITTED)
    if known is not None and known.holds(mine):
        return True
    ask_again()
    try:
        account = backend.account()
    except Problem as problem:
        if not problem.wants_sign_in:
            return True
        _page(problem)
        return False
    st.session_state[_ADMITTED] = _Admission(mine, account, time.time())
    return True


def ask_again() -> None:
    """Believe the service's last yes no longer."""
    st.session_state.pop(_ADMITTED, None)


def has_ended() -> bool:
    """Whether the visitor's key or token has come to its end since the page was drawn."""
    known: _Admission | None = st.session_state.get(_ADMITTED)
    ends = None if known is None else known.account.expires_at
    return ends is not None and time.time() >= ends


def sidebar() -> None:
    """Say who is signed in, and offer to sign out."""
    if credentials() is None:
        return
    name = st.user.get("name") or st.user.get("email") if _is_signed_in() else None
    st.caption(f"Signed in as {escape(str(name))}" if name else "Signed in with an API key")
    st.button("Sign out", icon=":material/logout:", type="tertiary", on_click=sign_out, key="sign_out")


def sign_out() -> None:
    """Forget the visitor and everything that they have looked at in this session."""
    signed_in = _is_signed_in()
    st.session_state.clear()
    st.cache_data.clear()
    st.query_params.clear()
    if signed_in:
        st.logout()


def providers() -> list[str | None]:
    """Identity providers of ``secrets.toml``; ``None`` is the one without a name."""
    if not st.secrets.load_if_toml_exists() or "auth" not in st.secrets:
        return []
    section = st.secrets["auth"]
    if "client_id" in section:
        return [None]
    return [name for name in section if hasattr(section[name], "get") and "client_id" in section[name]]


def _is_signed_in() -> bool:
    return bool(st.user.get("is_logged_in", False))


def _page(problem: Problem) -> None:
    st.title("Sign in", anchor=False)
    st.markdown("This service is for those who belong to it. Your scans and maps are seen by you alone.")
    asked = _is_signed_in() or _KEY in st.session_state
    if asked:
        st.error(f"{escape(problem.sentence)}\n\n{escape(problem.mend)}", icon=":material/lock:")
    if _is_signed_in():
        if credentials() is None:
            st.warning(
                'The page may not pass your token on: whoever runs it must set expose_tokens = "id" in the '
                "section auth of secrets.toml.",
                icon=":material/settings:",
            )
        st.button("Sign in again", icon=":material/login:", on_click=sign_out, key="again")
        return
    offered = providers()
    for name in offered:
        st.button(
            f"Sign in with {escape(name)}" if name else "Sign in",
            icon=":material/login:",
            type="primary",
            on_click=st.login,
            args=(name,) if name else (),
            key=f"sign_in/{name or ''}",
        )
    with st.expander("Use an API key", icon=":material/key:", expanded=not offered):
        _ask_for_key()
    st.caption(DISCLAIMER)


def _ask_for_key() -> None:
    with st.form("key", border=False, clear_on_submit=True):
        key = st.text_input("API key", type="password", autocomplete="off", placeholder="qsm_…")
        st.caption("Whoever runs this service makes keys. It is kept until you sign out or close the page.")
        if st.form_submit_button("Continue", type="primary") and key.strip():
            st.session_state[_KEY] = key.strip()
            st.rerun()
