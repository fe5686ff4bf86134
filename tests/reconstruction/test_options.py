"""Choices that do not exist are errors, not defaults."""

from __future__ import annotations

from typing import Any

import pytest

from qsm_ai.reconstruction.options import Options


@pytest.mark.parametrize("choice", ["method", "reference", "unwrapping", "background"])
def test_an_unknown_choice_is_an_error_that_names_the_known_ones(choice: str) -> None:
    wrong: dict[str, Any] = {choice: "magic"}
    with pytest.raises(ValueError, match=rf"{choice} 'magic' does not exist; choose one of \w+"):
        Options(**wrong)


def test_the_defaults_are_the_network_and_the_mean() -> None:
    assert Options().as_dict() == {
        "method": "qsm-vit", "reference": "mean", "unwrapping": "path", "background": "pdf"
    }  # fmt: skip
