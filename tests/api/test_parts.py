"""Why a part of the service does not work is told in a sentence that gives nothing away."""

from __future__ import annotations

import asyncio

import pytest

from qsm_ai.api import parts
from qsm_ai.api.parts import reason


async def found(answer: str | None) -> str | None:
    return answer


async def failing() -> str | None:
    raise ConnectionError("/data/doe^jane.nii")


async def hanging() -> str | None:
    await asyncio.sleep(60)
    return None


@pytest.mark.parametrize("answer", [None, "The worker does not look at its queue."])
def test_what_was_found_is_told_as_it_is(answer: str | None) -> None:
    assert asyncio.run(reason("worker", found(answer))) == answer


def test_of_an_error_only_the_kind_is_told() -> None:
    assert asyncio.run(reason("storage", failing())) == "The storage fails (ConnectionError)."


def test_what_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ANSWER_WITHIN", 0.05)
    assert asyncio.run(reason("database", hanging())) == "The database does not answer in time."
