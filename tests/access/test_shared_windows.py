"""Requests counted in a Redis by several processes, and what happens while it is away; with a real Redis."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import httpx
import pytest
from structlog.testing import capture_logs

from qsm_ai.access import shared_windows
from qsm_ai.access.limits import LimitReached, RateLimit
from qsm_ai.access.shared_windows import PATIENCE, PAUSE
from qsm_ai.inference.ports import any_free

if TYPE_CHECKING:
    from real_services import RedisServer
    from tests.access.conftest import Backend, StartBackend

SLACK = 1.0
"""Seconds that a busy machine may take for what takes none."""


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    """One that answers, however the test before ended."""
    redis_server.start()
    yield redis_server
    redis_server.kill()


def with_two(url: str, rule: str, test: Callable[[RateLimit, RateLimit], Awaitable[None]]) -> None:
    """A test on the limits of two processes, as far as those know of each other."""

    async def run() -> None:
        async with AsyncExitStack() as opened:
            await test(*[await opened.enter_async_context(aclosing(RateLimit(rule, url))) for _ in range(2)])

    asyncio.run(run())


async def passes(limit: RateLimit, owner: str = "a") -> bool:
    try:
        await limit.hit(owner)
    except LimitReached:
        return False
    return True


async def until_counted_together(limit: RateLimit) -> None:
    """Ask as somebody else until Redis has answered."""
    with capture_logs() as logs:
        deadline = time.monotonic() + 30
        while not any(line["event"] == "rate_limit.together" for line in logs):
            assert time.monotonic() < deadline
            await passes(limit, token_hex(8))
            await asyncio.sleep(0.1)


class TestTogether:
    @pytest.fixture(autouse=True)
    def _whatever_else_the_machine_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shared_windows, "PATIENCE", 60.0)

    def test_two_limits_count_together(self, redis: RedisServer) -> None:
        async def test(one: RateLimit, other: RateLimit) -> None:
            assert [await passes(limit) for limit in (one, other, one, other, one)] == [
                True, True, True, False, False,
            ]  # fmt: skip

        with_two(redis.url, "3/hour", test)

    def test_of_many_at_the_same_moment_so_many_pass(self, redis: RedisServer) -> None:
        async def test(one: RateLimit, other: RateLimit) -> None:
            found = await asyncio.gather(*(passes(limit) for limit in [one, other] * 100))
            assert sum(found) == 50

        with_two(redis.url, "50/hour", test)

    def test_users_do_not_share_their_limit(self, redis: RedisServer) -> None:
        async def test(one: RateLimit, other: RateLimit) -> None:
            assert await passes(one, "a")
            assert await passes(other, "b")
            assert not await passes(other, "a")
            assert not await passes(one, "b")

        with_two(redis.url, "1/hour", test)

    def test_the_narrower_of_two_rules_holds(self, redis: RedisServer) -> None:
        async def test(one: RateLimit, other: RateLimit) -> None:
            assert [await passes(limit) for limit in (one, other, one)] == [True, True, False]

        with_two(redis.url, "50/hour;2/day", test)

    def test_the_window_moves_on(self, redis: RedisServer) -> None:
        async def test(one: RateLimit, other: RateLimit) -> None:
            assert await passes(one)
            await asyncio.sleep(1.2)
            assert await passes(other)
            with pytest.raises(LimitReached) as caught:
                await one.hit("a")
            # The first leaves the window, the second stays in it.
            assert 1 <= caught.value.retry_after <= 3
            await asyncio.sleep(caught.value.retry_after)
            assert await passes(one)
            assert not await passes(other)

        with_two(redis.url, "2/4seconds", test)

    def test_redis_does_not_learn_who_asked(self, redis: RedisServer) -> None:
        async def test(one: RateLimit, _: RateLimit) -> None:
            assert await passes(one, "telltale")

        with_two(redis.url, "3/hour", test)
        keys = redis.ask("KEYS *")
        assert "qsm-ai" in keys
        assert "telltale" not in keys

    def test_a_redis_behind_tls_is_believed_by_its_certificate(
        self, redis: RedisServer, tmp_path: Path
    ) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            pytest.skip("openssl is not installed: apt-get install openssl")
        certificate, key, port = tmp_path / "certificate.pem", tmp_path / "key.pem", any_free()
        subprocess.run(
            [
                *(
                    openssl,
                    "req",
                    "-x509",
                    "-newkey",
                    "rsa:2048",
                    "-nodes",
                    "-days",
                    "2",
                    "-subj",
                    "/CN=redis",
                ),
                *("-addext", "subjectAltName=IP:127.0.0.1"),
                *("-out", str(certificate), "-keyout", str(key)),
            ],
            check=True,
            capture_output=True,
        )
        options = (
            *("--tls-port", str(port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
            *("--tls-ca-cert-file", str(certificate)),
        )
        guarded = type(redis)(redis.program, tmp_path, options)

        async def together(one: RateLimit, other: RateLimit) -> None:
            assert [await passes(limit) for limit in (one, other, one)] == [True, True, False]

        async def each_alone(one: RateLimit, other: RateLimit) -> None:
            with capture_logs() as logs:
                assert [await passes(limit, "b") for limit in (one, other, one, other)] == [True] * 4
            assert {line["event"] for line in logs} == {"rate_limit.alone"}

        guarded.start()
        try:
            address = f"rediss://127.0.0.1:{port}"
            with_two(f"{address}?ssl_ca_certs={certificate}", "2/hour", together)
            with_two(address, "2/hour", each_alone)
        finally:
            guarded.kill()


class TestAway:
    @pytest.mark.parametrize("how", ["killed", "silent"])
    def test_requests_go_on_in_time_and_are_counted_by_each_process(
        self, redis: RedisServer, how: str
    ) -> None:
        async def test(one: RateLimit, other: RateLimit) -> None:
            assert await passes(one)
            assert await passes(other)
            redis.kill() if how == "killed" else redis.hold()
            began = time.monotonic()
            # What passed before counts, and Redis alone knew of all of it.
            assert [await passes(one) for _ in range(20)] == [True] * 2 + [False] * 18
            assert [await passes(other) for _ in range(20)] == [True] * 2 + [False] * 18
            assert time.monotonic() - began < 2 * PATIENCE + SLACK

        with_two(redis.url, "3/hour", test)

    def test_one_request_in_a_while_waits_for_it_and_the_others_do_not(self, redis: RedisServer) -> None:
        async def test(one: RateLimit, _: RateLimit) -> None:
            assert await passes(one)
            redis.hold()
            assert await passes(one)
            await asyncio.sleep(PAUSE)
            first = asyncio.create_task(passes(one))
            await asyncio.sleep(0)
            assert await asyncio.wait_for(passes(one), PATIENCE / 2)
            assert not first.done()
            assert await first

        with_two(redis.url, "100/hour", test)

    def test_it_is_told_once_and_when_it_is_over(self, redis: RedisServer) -> None:
        told: list[bool] = []

        async def run() -> None:
            async with aclosing(RateLimit("100/hour", redis.url, told.append)) as limit:
                assert await passes(limit)
                redis.kill()
                for _ in range(3):
                    assert await passes(limit)
                    await asyncio.sleep(PAUSE)
                redis.start()
                for _ in range(3):
                    assert await passes(limit)
                    await asyncio.sleep(PAUSE)

        with capture_logs() as logs:
            asyncio.run(run())
        assert [(line["event"], line["log_level"]) for line in logs] == [
            ("rate_limit.alone", "warning"),
            ("rate_limit.together", "info"),
        ]
        assert told == [True, False]

    @pytest.mark.parametrize("how", ["killed", "silent"])
    def test_when_it_is_back_all_count_together_again(self, redis: RedisServer, how: str) -> None:
        async def test(one: RateLimit, other: RateLimit) -> None:
            assert await passes(one)
            redis.kill() if how == "killed" else redis.hold()
            assert await passes(one)
            assert await passes(other)
            redis.start() if how == "killed" else redis.let_go()
            await until_counted_together(one)
            await until_counted_together(other)
            found = [await passes(limit, "b") for limit in (one, other, one, other)]
            assert found == [True, True, True, False]

        with_two(redis.url, "3/hour", test)

    def test_it_need_not_be_there_at_the_start(self, redis: RedisServer) -> None:
        redis.kill()

        async def test(one: RateLimit, other: RateLimit) -> None:
            assert [await passes(one) for _ in range(4)] == [True, True, True, False]
            redis.start()
            await until_counted_together(one)

        with_two(redis.url, "3/hour", test)

    def test_one_that_refuses_to_count_is_away(self, redis: RedisServer) -> None:
        async def test(one: RateLimit, _: RateLimit) -> None:
            with capture_logs() as logs:
                assert [await passes(one) for _ in range(4)] == [True, True, True, False]
            assert [line["error"] for line in logs] == ["AuthenticationError"]

        assert redis.ask("CONFIG SET requirepass right") == "+OK"
        with_two(f"redis://:wrong@127.0.0.1:{redis.port}", "3/hour", test)

    def test_no_request_fails_whatever_counting_fails_of(self, redis: RedisServer) -> None:
        async def test(one: RateLimit, _: RateLimit) -> None:
            with capture_logs() as logs:
                assert [await passes(one) for _ in range(4)] == [True, True, True, False]
            # Not an error of the client's own, which would be foreseen.
            assert [line["error"] for line in logs] == ["LookupError"]

        with_two(f"{redis.url}?encoding=nonsense", "3/hour", test)


class TestPlaces:
    @pytest.mark.parametrize(
        "place",
        [
            "", "redis", "memcached://hunter2:11211", "redis+cluster://hunter2:6379", "async+redis://hunter2",
            "redis://", "redis://:hunter2@h:port", "redis://:hunter2@h:0", "redis://h?password=hunter2&nonsense=1",
        ],
    )  # fmt: skip
    def test_where_nothing_can_be_counted_is_refused_with_the_mend(self, place: str) -> None:
        with pytest.raises(ValueError, match="redis://HOST:6379") as caught:
            RateLimit("3/hour", place)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        "place",
        ["redis://h", "redis://h:6379/2", "redis://user:pass@h:6379", "rediss://h?ssl_cert_reqs=none"],
    )
    def test_where_there_may_be_a_redis_is_taken(self, place: str) -> None:
        RateLimit("3/hour", place)

    @pytest.mark.parametrize("place", ["redis://h", "rediss://h"])
    def test_without_the_package_it_is_refused_with_the_mend(
        self, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "redis"]:
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ValueError, match=r"package redis.* install qsm-ai\[api\]"):
            RateLimit("3/hour", place)

    def test_a_package_that_is_too_old_is_refused_as_well(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.import_module("redis"), "__version__", "4.0.0")
        with pytest.raises(ValueError, match="too old"):
            RateLimit("3/hour", "redis://h")


@pytest.fixture
def two_backends(redis: RedisServer, start_backend: StartBackend) -> Iterator[tuple[Backend, Backend]]:
    """On one database and one Redis, each with a data folder of its own."""
    settings = {
        "QSM_ACCESS": "keys",
        "QSM_RATE_LIMIT": "30/hour",
        "QSM_RATE_LIMIT_STORAGE": redis.url,
        # A machine that runs other tests may hold a backend up for a moment.
        "QSM_RATE_LIMIT_PATIENCE": "20",
        "QSM_WORKERS": "0",
    }
    with start_backend(**settings) as one:
        data = one.folder / "data"
        shared = {
            "QSM_DATABASE_URL": f"sqlite:///{data / 'jobs.db'}",
            "QSM_STORAGE_URL": str(data / "objects"),
        }
        with start_backend(**settings, **shared) as other:
            yield one, other


def test_two_backends_let_through_together_what_one_may(
    two_backends: tuple[Backend, Backend], redis: RedisServer
) -> None:
    one, other = two_backends

    def ask(backend: Backend, key: str) -> httpx.Response:
        with backend.client(key) as client:
            return client.get("/api/v1/me")

    ann, ben = one.key("ann"), one.key("ben")
    assert [ask(backend, ann).status_code for backend in [one, other] * 15] == [200] * 30
    for backend in two_backends:
        refused = ask(backend, ann)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate-limit")
        assert 1 <= int(refused.headers["retry-after"]) <= 3600
        assert ask(backend, ben).status_code == 200
    ready = [httpx.get(f"{backend.url}/readyz", timeout=30).json() for backend in two_backends]
    redis.kill()
    for backend in two_backends:
        began = time.monotonic()
        assert ask(backend, ben).status_code == 200
        assert time.monotonic() - began < PATIENCE + 10 * SLACK
        # Each has let through half of ann's share, and gives her the other half.
        assert [ask(backend, ann).status_code for _ in range(16)] == [200] * 15 + [429]
        metrics = httpx.get(f"{backend.url}/metrics", timeout=30).text
        assert "\nqsm_rate_limit_alone 1.0\n" in metrics
    # Nothing of it makes a backend less ready than it is here without an inference server.
    assert [httpx.get(f"{backend.url}/readyz", timeout=30).json() for backend in two_backends] == ready
    for backend in two_backends:
        log = backend.log.read_text()
        assert log.count("rate_limit.alone") == 1
        assert "Traceback" not in log
