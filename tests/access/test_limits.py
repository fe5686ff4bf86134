"""Nobody takes so much that nothing is left for others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

from qsm_ai.access.limits import LimitReached, Quotas, RateLimit
from qsm_ai.jobs.figures import Usage

if TYPE_CHECKING:
    from tests.access.conftest import Backend, StartBackend
    from tests.conftest import Files

MIB = 1 << 20


def hits(rule: str, *owners: str) -> list[str | None]:
    """What each request is told."""

    async def ask() -> list[str | None]:
        limit, found = RateLimit(rule), []
        for owner in owners:
            try:
                await limit.hit(owner)
                found.append(None)
            except LimitReached as reached:
                found.append(reached.code)
        return found

    return asyncio.run(ask())


class TestRate:
    def test_so_many_requests_pass_and_then_none(self) -> None:
        assert hits("3/hour", *"aaaa") == [None, None, None, "rate-limit"]

    def test_users_do_not_share_their_limit(self) -> None:
        assert hits("1/hour", *"abab") == [None, None, "rate-limit", "rate-limit"]

    def test_the_narrower_of_two_rules_holds(self) -> None:
        assert hits("2/hour;50/day", *"aaa") == [None, None, "rate-limit"]
        assert hits("50/hour;2/day", *"aaa") == [None, None, "rate-limit"]

    def test_no_rule_is_no_limit(self) -> None:
        assert hits("", *"a" * 500) == [None] * 500

    def test_the_window_moves_on(self) -> None:
        async def ask() -> None:
            limit = RateLimit("1/second")
            await limit.hit("a")
            with pytest.raises(LimitReached) as caught:
                await limit.hit("a")
            assert caught.value.retry_after == 1
            await asyncio.sleep(caught.value.retry_after)
            await limit.hit("a")

        asyncio.run(ask())


class TestQuotas:
    def test_places_are_held_while_uploads_come_in(self) -> None:
        quotas = Quotas(jobs=3)
        with quotas.arriving("a", Usage(1, 0)), quotas.arriving("a", Usage(1, 0)):
            with pytest.raises(LimitReached, match="job-quota"), quotas.arriving("a", Usage(1, 0)):
                pass
            with quotas.arriving("b", Usage(0, 0)):
                pass
        with quotas.arriving("a", Usage(2, 0)):
            pass

    def test_a_place_is_given_back_whatever_happens(self) -> None:
        quotas = Quotas(jobs=1)
        for _ in range(3):
            with pytest.raises(KeyError), quotas.arriving("a", Usage(0, 0)):
                raise KeyError
        with quotas.arriving("a", Usage(0, 0)):
            pass

    def test_what_is_left_of_the_storage_is_told(self) -> None:
        quotas = Quotas(stored=100)
        with quotas.arriving("a", Usage(0, 30)) as room:
            assert room == 70
        for taken in (100, 130):
            with pytest.raises(LimitReached, match="storage-quota"), quotas.arriving("a", Usage(0, taken)):
                pass

    def test_room_is_held_for_what_is_coming(self) -> None:
        quotas = Quotas(stored=100)
        with quotas.arriving("a", Usage(0, 30), 50) as room:
            assert room == 70
            with quotas.arriving("a", Usage(0, 30)) as left:
                assert left == 20
            with pytest.raises(LimitReached, match="storage-quota"), quotas.arriving("a", Usage(0, 30), 21):
                pass
            with quotas.arriving("b", Usage(0, 0), 100):
                pass
        with quotas.arriving("a", Usage(0, 30), 70):
            pass

    def test_nothing_is_limited_unless_asked(self) -> None:
        with Quotas().arriving("a", Usage(10**6, 10**15)) as room:
            assert room is None


def scan(files: Files, padding: int = 0) -> list[tuple[str, tuple[str, bytes]]]:
    sidecar = b"{" + b" " * padding + b"}"
    return [
        ("local_field", ("field.nii.gz", files.local_field.read_bytes())),
        ("mask", ("mask.nii.gz", files.mask.read_bytes())),
        ("sidecar", ("field.json", sidecar)),
    ]


@pytest.fixture(scope="module")
def backend(start_backend: StartBackend) -> Iterator[Backend]:
    """Takes jobs in and computes none. Every test has users of its own."""
    with start_backend(
        QSM_ACCESS="keys",
        QSM_RATE_LIMIT="50/hour",
        QSM_MAX_JOBS_PER_USER="2",
        QSM_MAX_STORED_MB_PER_USER="2",
        QSM_WORKERS="0",
    ) as running:
        yield running


def send(client: httpx.Client, files: Files, padding: int = 0) -> httpx.Response:
    return client.post("/api/v1/reconstruct", files=scan(files, padding), data={"method": "tkd"})


def test_who_asks_too_often_is_told_when_to_come_back(backend: Backend) -> None:
    with backend.client(backend.key("ann")) as ann, backend.client(backend.key("ben")) as ben:
        assert [ann.get("/api/v1/jobs").status_code for _ in range(51)] == [200] * 50 + [429]
        refused = ann.get("/api/v1/me")
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 3600
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "rate-limit"
        # A second key of the same user is no second limit; other users and probes are not concerned.
        with backend.client(backend.key("ann")) as again:
            assert again.get("/api/v1/me").status_code == 429
        assert ben.get("/api/v1/jobs").status_code == 200
        assert ann.get("/healthz").status_code == 200


def test_a_user_has_so_many_jobs_at_once(backend: Backend, files: Files) -> None:
    with backend.client(backend.key("cat")) as cat, backend.client(backend.key("dan")) as dan:
        first, second, third = (send(cat, files) for _ in range(3))
        assert [answer.status_code for answer in (first, second, third)] == [202, 202, 429]
        assert third.json()["code"] == "job-quota"
        assert int(third.headers["retry-after"]) >= 1
        assert send(dan, files).status_code == 202
        job = first.json()["id"]
        cat.post(f"/api/v1/jobs/{job}/cancel").raise_for_status()
        assert send(cat, files).status_code == 202
        # A retry counts as a job too.
        retried = cat.post(f"/api/v1/jobs/{job}/retry")
        assert (retried.status_code, retried.json()["code"]) == (429, "job-quota")
        assert cat.get("/api/v1/me").json()["jobs"] == 2


def test_many_uploads_at_once_do_not_slip_past(backend: Backend, files: Files) -> None:
    key = backend.key("eve")

    def one(_: int) -> int:
        with backend.client(key) as client:
            return send(client, files).status_code

    with ThreadPoolExecutor(6) as pool:
        found = sorted(pool.map(one, range(6)))
    assert found == [202, 202, 429, 429, 429, 429]


def test_many_large_uploads_at_once_do_not_slip_past(backend: Backend, files: Files) -> None:
    key = backend.key("hal")

    def one(number: int) -> int:
        with backend.client(key) as client:
            if number % 2:
                return client.post("/api/v1/uploads", json={"name": "p.nii", "size": MIB}).status_code
            return send(client, files, padding=MIB + MIB // 4).status_code

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(one, range(6)))
    assert set(found) <= {201, 202, 429}
    with backend.client(key) as client:
        assert MIB <= client.get("/api/v1/me").json()["stored"] <= 2 * MIB


def test_a_user_keeps_so_many_bytes(backend: Backend, files: Files) -> None:
    with backend.client(backend.key("fay")) as fay, backend.client(backend.key("gus")) as gus:
        # One that would not fit is refused while it comes in, and leaves nothing behind.
        refused = send(fay, files, padding=3 * MIB)
        assert (refused.status_code, refused.json()["code"]) == (429, "storage-quota")
        assert int(refused.headers["retry-after"]) >= 1
        assert fay.get("/api/v1/me").json()["stored"] == 0
        kept = send(fay, files, padding=MIB + MIB // 2)
        assert kept.status_code == 202, kept.text
        assert fay.get("/api/v1/me").json()["stored"] > MIB
        assert send(fay, files, padding=MIB // 2).status_code == 429
        announced = fay.post("/api/v1/uploads", json={"name": "phase.nii", "size": MIB})
        assert (announced.status_code, announced.json()["code"]) == (429, "storage-quota")
        # What is announced counts as well.
        assert gus.post("/api/v1/uploads", json={"name": "phase.nii", "size": MIB}).status_code == 201
        assert send(gus, files, padding=MIB).status_code == 429
        fay.delete(f"/api/v1/jobs/{kept.json()['id']}").raise_for_status()
        assert send(fay, files).status_code == 202


def test_uploads_that_fill_the_storage_to_the_byte_can_become_a_job(backend: Backend, files: Files) -> None:
    with backend.client(backend.key("ida")) as ida:
        roles = {"local_field": files.local_field, "mask": files.mask}
        uses, left = [], 2 * MIB
        for role, path in roles.items():
            content = path.read_bytes()
            upload = ida.post("/api/v1/uploads", json={"name": path.name, "size": len(content)}).json()
            ida.put(upload["target"]["href"], content=content).raise_for_status()
            uses.append({"upload": upload["id"], "role": role})
            left -= len(content)
        rest = ida.post("/api/v1/uploads", json={"name": "rest.nii", "size": left})
        assert rest.status_code == 201, rest.text
        assert ida.get("/api/v1/me").json()["stored"] == 2 * MIB
        assert send(ida, files).json()["code"] == "storage-quota"
        made = ida.post("/api/v1/jobs", json={"files": uses, "method": "tkd"})
        assert made.status_code == 202, made.text
        assert ida.get("/api/v1/me").json()["stored"] == 2 * MIB
