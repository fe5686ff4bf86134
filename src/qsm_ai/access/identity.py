"""Who is asking."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from qsm_ai.observe.users import user_tag

LOCAL_OWNER = "local"
"""The single user where there is no access control."""

OIDC_OWNER = "oidc:"
"""What owners begin with that an identity provider vouches for; a key is bound to one only on purpose."""

LONGEST_OWNER = 200


class Role(StrEnum):
    """What somebody may do besides using their own jobs."""

    USER = "user"
    ADMIN = "admin"


class Way(StrEnum):
    """How somebody proved who they are."""

    NONE = "none"
    KEY = "key"
    OIDC = "oidc"


@dataclass(frozen=True)
class Identity:
    """Somebody who was let in.

    Attributes
    ----------
    owner : str
        Whose jobs are theirs.
    role : Role
    way : Way
    expires_at : float or None
        Seconds since 1970 from which on their key or token is worth nothing.
    """

    owner: str
    role: Role = Role.USER
    way: Way = Way.NONE
    expires_at: float | None = None

    @property
    def alias(self) -> str:
        """The owner for logs and for administrators."""
        return user_tag(self.owner)


LOCAL = Identity(LOCAL_OWNER, Role.ADMIN)
"""Everybody, where there is no access control."""


def oidc_owner(issuer: str, subject: str) -> str:
    """The owner that a subject of an identity provider is.

    A subject is unique within its issuer only, so the issuer is part of the owner.

    Parameters
    ----------
    issuer : str
        Its URL, as in tokens.
    subject : str
        The claim ``sub``.

    Returns
    -------
    str
    """
    place = hashlib.sha256(issuer.encode()).hexdigest()[:8]
    owner = f"{OIDC_OWNER}{place}:{subject}"
    if len(owner) <= LONGEST_OWNER and owner.isprintable():
        return owner
    return f"{OIDC_OWNER}{place}:sha256:{hashlib.sha256(subject.encode()).hexdigest()}"
