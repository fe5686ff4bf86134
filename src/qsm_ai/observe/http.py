"""Words of a request that may be told."""

from __future__ import annotations

METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})


def method_of(given: str) -> str:
    """A known HTTP method, or ``other``: a client may make up any."""
    return given if given in METHODS else "other"
