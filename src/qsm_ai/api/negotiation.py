"""Which of several representations a client wants (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress


def negotiate(accept: str | None, offers: Sequence[str]) -> str | None:
    """The best offer for an ``Accept`` header.

    Parameters
    ----------
    accept : str or None
        No header accepts everything.
    offers : media types, the preferred one first

    Returns
    -------
    str or None
        ``None`` if nothing on offer is acceptable.
    """
    if not accept or not accept.strip():
        return offers[0]
    ranges = [_parse(part) for part in accept.split(",") if part.strip()]
    best, best_quality = None, 0.0
    for offer in offers:
        matching = [(specificity, q) for kind, q in ranges if (specificity := _specificity(kind, offer)) > 0]
        quality = max(matching)[1] if matching else 0.0
        if quality > best_quality:
            best, best_quality = offer, quality
    return best


def _parse(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            quality = 0.0
            with suppress(ValueError):
                quality = min(1.0, max(0.0, float(parameter[2:])))
    return kind, quality


def _specificity(kind: str, offer: str) -> int:
    if kind == offer:
        return 3
    if kind == offer.partition("/")[0] + "/*":
        return 2
    return 1 if kind == "*/*" else 0
