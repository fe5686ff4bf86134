"""Requests are counted over a window that moves, in memory that does not grow."""

from __future__ import annotations

from qsm_ai.access.windows import TIDY_EVERY, MovingWindows


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_so_many_pass_in_a_window_and_the_next_is_told_when_there_is_room() -> None:
    clock = Clock()
    windows = MovingWindows(clock)
    assert windows.hit("a", 2, 60) is None
    clock.now += 10
    assert windows.hit("a", 2, 60) is None
    clock.now += 5
    assert windows.hit("a", 2, 60) == 45
    clock.now += 45
    assert windows.hit("a", 2, 60) is None
    assert windows.hit("a", 2, 60) == 10


def test_what_is_refused_is_not_counted() -> None:
    clock = Clock()
    windows = MovingWindows(clock)
    windows.hit("a", 1, 60)
    for _ in range(50):
        clock.now += 1
        windows.hit("a", 1, 60)
    clock.now += 10
    assert windows.hit("a", 1, 60) is None


def test_users_and_windows_have_counts_of_their_own() -> None:
    windows = MovingWindows(Clock())
    assert windows.hit("a", 1, 60) is None
    assert windows.hit("b", 1, 60) is None
    assert windows.hit("a", 1, 3600) is None


def test_who_asks_nothing_any_more_takes_up_nothing() -> None:
    clock = Clock()
    windows = MovingWindows(clock)
    for number in range(1000):
        windows.hit(f"user-{number}", 10, 5)
    clock.now += TIDY_EVERY + 1
    windows.hit("another", 10, 5)
    assert len(windows) == 1
