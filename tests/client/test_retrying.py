"""Pauses grow, are drawn by chance, and heed what the service says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from qsm_ai.client import Retrying


def test_pauses_double_up_to_the_longest_and_end_with_the_last_attempt() -> None:
    patient = Retrying(attempts=10, first=1.0, longest=5.0)
    for attempt, most in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (9, 5.0)):
        drawn = [patient.pause(attempt) for _ in range(300)]
        assert all(pause is not None and 0 <= pause <= most for pause in drawn)
        assert max(pause for pause in drawn if pause is not None) > 0.8 * most
    assert patient.pause(10) is None


@pytest.mark.parametrize("said", ["7", "7.0", "date"])
def test_no_pause_is_shorter_than_the_service_says_and_no_two_clients_come_together(said: str) -> None:
    if said == "date":
        said = format_datetime(datetime.now(UTC) + timedelta(seconds=8))
    drawn = {Retrying().pause(1, said) for _ in range(50)}
    assert all(pause is not None and 6.5 < pause < 11 for pause in drawn)
    assert len(drawn) > 40


def test_a_service_that_says_much_later_is_given_up() -> None:
    assert Retrying(patience=10).pause(1, "11") is None


@pytest.mark.parametrize("said", ["soon", "nan", ""])
def test_what_is_no_time_counts_as_nothing_said(said: str) -> None:
    pause = Retrying(first=1.0).pause(1, said)
    assert pause is not None
    assert pause <= 1.0
