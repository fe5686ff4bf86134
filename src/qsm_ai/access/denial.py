"""Why somebody is not let in."""

from __future__ import annotations

from qsm_ai.access.identity import Way


class AccessDenied(Exception):  # noqa: N818 - an answer, not an error of ours
    """Not let in, or not allowed to do this.

    Attributes
    ----------
    code : str
        Stable, for programs.
    status : int
        401 who is it?, 403 known and not allowed, 503 cannot be checked now.
    sentence, mend : str
        For people. They say nothing that helps to guess.
    retry_after : float or None
        Seconds, where waiting helps.
    """

    def __init__(
        self, code: str, status: int, sentence: str, mend: str, retry_after: float | None = None
    ) -> None:
        super().__init__(code)
        self.code, self.status, self.sentence, self.mend = code, status, sentence, mend
        self.retry_after = retry_after


def nobody(ways: tuple[Way, ...]) -> AccessDenied:
    """Neither key nor token came with the request."""
    return AccessDenied(
        "unauthenticated", 401, "This service does not know who is asking.", f"Send {_what(ways)}."
    )


def wrong(ways: tuple[Way, ...]) -> AccessDenied:
    """A key or token that is not valid; which of the reasons holds is for the log only."""
    return AccessDenied(
        "invalid-credentials",
        401,
        "The key or token is not valid (any more).",
        f"Send {_what(ways)} that has not expired or been revoked.",
    )


def expired() -> AccessDenied:
    """A token that was right once: its holder may as well know."""
    return AccessDenied(
        "expired-credentials", 401, "The key or token has expired.", "Sign in again, or get a new key."
    )


def not_a_member() -> AccessDenied:
    """Known to the identity provider, but not meant for this service."""
    return AccessDenied(
        "not-a-member",
        403,
        "You are signed in, but this service is not open to you.",
        "Ask whoever runs this service to let you in.",
    )


def not_an_administrator() -> AccessDenied:
    """Only administrators see this."""
    return AccessDenied(
        "not-an-administrator",
        403,
        "Only administrators may see this.",
        "Use a key or an account with the role of an administrator.",
    )


def cannot_check(retry_after: float) -> AccessDenied:
    """The identity provider does not answer, so that no token can be checked."""
    return AccessDenied(
        "identity-provider-down",
        503,
        "The identity provider cannot be reached, so tokens cannot be checked.",
        "Try again after the time in Retry-After.",
        retry_after,
    )


def _what(ways: tuple[Way, ...]) -> str:
    names = {Way.KEY: "an API key", Way.OIDC: "a token of the identity provider"}
    return f"{' or '.join(names[way] for way in ways)} as 'Authorization: Bearer …'"
