"""How long a job still takes is told from what runs, what waits, and how long such jobs took lately."""

from __future__ import annotations

import pytest

from qsm_ai.jobs.estimate import left_of_running, seconds_until_each


def test_a_job_alone_takes_as_long_as_it_takes() -> None:
    assert seconds_until_each([], [10], slots=1) == [10]


def test_one_slot_works_through_the_queue_in_order() -> None:
    assert seconds_until_each([5], [10, 20, 7], slots=1) == [15, 35, 42]


def test_several_slots_share_the_queue_and_a_job_begins_when_the_first_is_free() -> None:
    assert seconds_until_each([5, 30], [10, 10, 7], slots=2) == [15, 25, 32]
    assert seconds_until_each([5], [7], slots=2) == [7]


def test_more_jobs_may_run_than_there_are_slots_while_a_worker_drains() -> None:
    assert seconds_until_each([5, 9], [7], slots=1) == [9 + 7]


@pytest.mark.parametrize(
    ("running", "waiting", "slots", "expected"),
    [
        ([None], [1, 1], 1, [None, None]),
        ([], [1, None, 1], 1, [1, None, None]),
        ([], [1], 0, [None]),
    ],
)
def test_what_is_not_known_is_not_guessed(
    running: list[float | None], waiting: list[float | None], slots: int, expected: list[float | None]
) -> None:
    assert seconds_until_each(running, waiting, slots) == expected


def test_a_running_job_is_judged_by_the_pace_of_others_and_then_by_its_own_progress() -> None:
    assert left_of_running(elapsed=2, fraction=0.05, expected=10) == 8
    assert left_of_running(elapsed=10, fraction=0.5, expected=None) == 10
    assert left_of_running(elapsed=10, fraction=0.5, expected=14) == pytest.approx((4 + 10) / 2)
    assert left_of_running(elapsed=1, fraction=0.05, expected=None) is None
    assert left_of_running(elapsed=30, fraction=0.05, expected=10) == 0
