"""The client gets the best form of a result that it accepts."""

from __future__ import annotations

import pytest

from qsm_ai.api.negotiation import negotiate

OFFERS = ("application/json", "application/gzip", "image/png")


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "image/png"),
        ("image/*", "image/png"),
        ("application/*;q=0.5, image/png;q=0.4", "application/json"),
        ("application/gzip, application/json;q=0.9", "application/gzip"),
        ("text/html, */*;q=0.1", "application/json"),
        ("application/json;q=0, */*", "application/gzip"),
        ("IMAGE/PNG", "image/png"),
        ("text/html", None),
        ("image/png;q=0", None),
        ("image/png;q=lots", None),
    ],
)
def test_the_best_acceptable_form_is_chosen(accept: str | None, wanted: str | None) -> None:
    assert negotiate(accept, OFFERS) == wanted
