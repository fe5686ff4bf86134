"""Form fields that cannot be are refused by name, whatever is in them."""

from __future__ import annotations

import pytest

from qsm_ai.api.parameters import parse
from qsm_ai.api.problems import ProblemError


@pytest.mark.parametrize("field", ["te_ms", "b0", "b0_direction", "deadline", "wait"])
@pytest.mark.parametrize(
    "text",
    ["[1" + 400 * "0" + "]", "1" + 400 * "0", "[1" + 5000 * "0" + "]", "[[1]]", "[", "nan", "[null]", "inf"],
    ids=["list-too-large", "too-large", "too-many-digits", "nested", "broken", "nan", "null", "inf"],
)
def test_what_is_no_number_is_refused(field: str, text: str) -> None:
    with pytest.raises(ProblemError) as refused:
        parse({field: [text]}, max_wait=60)
    assert (refused.value.problem.status, refused.value.problem.code) == (422, "invalid-parameter")


@pytest.mark.parametrize("given", [["4 12 20"], ["4, 12, 20"], ["[4, 12, 20]"], ["4", "12", "20"]])
def test_numbers_are_read_however_they_are_listed(given: list[str]) -> None:
    assert parse({"te_ms": given}, max_wait=60).values["te_ms"] == [4.0, 12.0, 20.0]
