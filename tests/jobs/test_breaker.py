"""While the inference server is down its jobs wait; one at a time finds out whether it is well again."""

from __future__ import annotations

import asyncio

from qsm_ai.jobs.breaker import FIRST_PAUSE, LONGEST_PAUSE, Breaker, Circuit
from qsm_ai.jobs.problem import Problem

DOWN = Problem("triton-unavailable", "Down", 503, "It is down.", "Wait.")


class Server:
    """Says whether it is ready, which is not all that there is to being well."""

    def __init__(self) -> None:
        self.problem: Problem | None = None
        self.now = 100.0

    async def probe(self) -> Problem | None:
        return self.problem

    def breaker(self) -> Breaker:
        return Breaker(self.probe, clock=lambda: self.now)


def look(breaker: Breaker) -> Circuit:
    asyncio.run(breaker.look())
    return breaker.circuit


def test_nothing_is_allowed_before_the_server_has_been_asked() -> None:
    breaker = Server().breaker()
    assert not breaker.allows()
    assert look(breaker) is Circuit.CLOSED
    assert breaker.allows()


def test_a_server_that_does_not_answer_opens_it_and_one_that_does_closes_it() -> None:
    server = Server()
    breaker = server.breaker()
    server.problem = DOWN
    assert look(breaker) is Circuit.OPEN
    assert (breaker.allows(), breaker.problem) == (False, DOWN)
    server.problem = None
    assert look(breaker) is Circuit.CLOSED
    assert (breaker.allows(), breaker.problem) == (True, None)


def test_after_a_failed_job_one_is_let_through_at_a_time() -> None:
    server = Server()
    breaker = server.breaker()
    look(breaker)
    breaker.failed(DOWN)
    assert look(breaker) is Circuit.OPEN, "the server says it is ready, which it has said before"
    server.now += FIRST_PAUSE
    assert look(breaker) is Circuit.HALF_OPEN
    assert breaker.allows()
    breaker.begun()
    assert not breaker.allows()
    breaker.succeeded()
    assert breaker.circuit is Circuit.CLOSED
    assert breaker.allows()


def test_each_failed_trial_doubles_the_pause_up_to_a_limit() -> None:
    server = Server()
    breaker = server.breaker()
    look(breaker)
    breaker.failed(DOWN)
    pauses = []
    for _ in range(8):
        began = server.now
        while look(breaker) is Circuit.OPEN:
            server.now += 0.5
        pauses.append(server.now - began)
        breaker.begun()
        breaker.failed(DOWN)
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
    assert pauses[0] == FIRST_PAUSE
    assert pauses[-1] == LONGEST_PAUSE


def test_a_trial_that_ends_for_its_own_reasons_makes_room_for_another() -> None:
    server = Server()
    breaker = server.breaker()
    look(breaker)
    breaker.failed(DOWN)
    server.now += FIRST_PAUSE
    look(breaker)
    breaker.begun()
    breaker.ended()
    assert breaker.circuit is Circuit.HALF_OPEN
    assert breaker.allows()


def test_a_server_that_falls_silent_during_a_trial_ends_the_trial() -> None:
    server = Server()
    breaker = server.breaker()
    look(breaker)
    breaker.failed(DOWN)
    server.now += FIRST_PAUSE
    look(breaker)
    server.problem = DOWN
    assert look(breaker) is Circuit.OPEN
    server.problem = None
    assert look(breaker) is Circuit.HALF_OPEN
