"""Every route there is, asked by nobody, by its owner and by somebody else.

The list is taken from the application itself, so that a new route is tested from its first day: it fails here
until others get at nothing through it, or it is named among those that are open.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from qsm_ai.access.identity import Role
from qsm_ai.access.keys import KeyStore
from qsm_ai.api.app import create_app
from qsm_ai.api.context import identity_of
from qsm_ai.api.security import OPEN
from qsm_ai.api.settings import Settings

if TYPE_CHECKING:
    from tests.access.conftest import Backend, StartBackend
    from tests.conftest import Files

PATIENT = "sub-doe_part-phase"
"""In the name of a file of the first user: nobody else may ever read it."""


@cache
def application() -> FastAPI:
    """For its route table only; nothing is served from it."""
    import tempfile

    return create_app(Settings(data_dir=Path(tempfile.mkdtemp()), access=["keys"]))


def table(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every route, those hidden from the documentation too."""
    found = []
    for route in iter_route_contexts(app.routes):
        assert route.path is not None
        found += [(method, route.path) for method in sorted(getattr(route, "methods", None) or {"GET"})]
    return sorted(set(found))


CLOSED = [(method, path) for method, path in table(application()) if path not in OPEN]
BY_ID = [(method, path) for method, path in CLOSED if "{" in path]
COLLECTIONS = [(method, path) for method, path in CLOSED if "{" not in path]
DESTROYS = ("DELETE",)


@dataclass
class House:
    """A backend whose first user has a finished job and an upload, a second user, an administrator."""

    backend: Backend
    alice: httpx.Client
    bob: httpx.Client
    admin: httpx.Client
    nobody: httpx.Client
    job: str
    upload: str

    def fill(self, path: str) -> str:
        """A path that leads to what the first user has."""
        names = {"job_id": self.job, "upload_id": self.upload, "name": "chi", "artefact": "chi"}
        try:
            return path.format(**names)
        except KeyError as error:
            raise AssertionError(
                f"{path} has a parameter {error} that this test knows nothing of: give it a value of the "
                "first user's, so that it can be seen whether others get at it"
            ) from None


def new_job(client: httpx.Client, files: Files) -> str:
    """A finished job."""
    parts = [
        ("local_field", (f"{PATIENT}.nii.gz", files.local_field.read_bytes())),
        ("mask", ("mask.nii.gz", files.mask.read_bytes())),
    ]
    answer = client.post("/api/v1/reconstruct", files=parts, data={"method": "tkd", "wait": "100"})
    assert answer.status_code == 200, answer.text
    job: str = answer.json()["id"]
    return job


def new_upload(client: httpx.Client) -> str:
    """An announced file, half of which is there."""
    answer = client.post("/api/v1/uploads", json={"name": f"{PATIENT}.nii", "size": 8})
    assert answer.status_code == 201, answer.text
    upload: str = answer.json()["id"]
    sent = client.put(
        f"/api/v1/uploads/{upload}/content", content=b"1234", headers={"Content-Range": "bytes 0-3/8"}
    )
    assert sent.status_code == 200, sent.text
    return upload


@pytest.fixture(scope="module")
def house(start_backend: StartBackend, files: Files) -> Iterator[House]:
    with start_backend(QSM_ACCESS="keys") as backend:
        alice, bob = (backend.client(backend.key(owner)) for owner in ("alice", "bob"))
        admin = backend.client(backend.key("root", Role.ADMIN))
        nobody = backend.client()
        with alice, bob, admin, nobody:
            yield House(backend, alice, bob, admin, nobody, new_job(alice, files), new_upload(alice))


def body_of(method: str, path: str) -> dict[str, Any]:
    """What makes a request complete, so that it is not refused for another reason."""
    if path == "/api/v1/uploads/{upload_id}/content":
        return {"content": b"5678", "headers": {"Content-Range": "bytes 4-7/8"}}
    return {"content": b""} if method in ("POST", "PUT", "PATCH") else {}


def require_nothing_for_others(
    ask: Callable[..., httpx.Response], method: str, path: str, address: str
) -> None:
    """A stranger is told what they would be told of an id that does not exist."""
    answer = ask(method, address, **body_of(method, path))
    assert answer.status_code == 404, f"{method} {path} answers a stranger with {answer.status_code}"
    if method != "HEAD":
        assert answer.json()["code"] == "not-found"
        assert PATIENT not in answer.text


class TestTheTable:
    def test_there_are_routes_of_every_kind(self) -> None:
        assert len(BY_ID) >= 10
        assert ("GET", "/api/v1/jobs/{job_id}/artefacts/{name}") in BY_ID
        assert ("POST", "/api/v1/reconstruct") in COLLECTIONS
        assert {path for _, path in table(application())} >= OPEN - {"/docs/oauth2-redirect"}

    @pytest.mark.parametrize(("method", "path"), CLOSED)
    def test_every_closed_route_asks_who_is_there(self, method: str, path: str) -> None:
        route = next(
            route
            for route in iter_route_contexts(application().routes)
            if route.path == path and method in (route.methods or ())
        )

        def calls(dependant: Any) -> set[Any]:
            return {dependant.call}.union(*(calls(inner) for inner in dependant.dependencies))

        assert identity_of in calls(route.dependant)  # type: ignore[attr-defined]

    def test_a_route_without_a_check_would_be_found(self, tmp_path: Path) -> None:
        app = create_app(Settings(data_dir=tmp_path, access=["keys"]))

        @app.get("/api/v1/jobs/{job_id}/everything")
        def everything(job_id: str) -> dict[str, str]:
            return {"name": f"{PATIENT} of {job_id}"}

        assert ("GET", "/api/v1/jobs/{job_id}/everything") in table(app)
        _, key = KeyStore(app.state.context.store.database).create("bob")

        def ask(method: str, address: str, **more: Any) -> httpx.Response:
            async def send() -> httpx.Response:
                transport = httpx.ASGITransport(app)
                headers = {"Authorization": f"Bearer {key}", **more.pop("headers", {})}
                async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                    return await client.request(method, address, headers=headers, **more)

            return asyncio.run(send())

        with pytest.raises(AssertionError, match="answers a stranger with 200"):
            require_nothing_for_others(
                ask, "GET", "/api/v1/jobs/{job_id}/everything", f"/api/v1/jobs/{'0' * 32}/everything"
            )


class TestNobody:
    @pytest.mark.parametrize(("method", "path"), CLOSED)
    def test_is_asked_who_it_is(self, house: House, method: str, path: str) -> None:
        answer = house.nobody.request(method, house.fill(path), **body_of(method, path))
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="QSM-AI"'
        if method != "HEAD":
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "unauthenticated"
            assert answer.json()["mend"]

    @pytest.mark.parametrize(
        "path", ["/", "/api", "/api/v1/nothing", "/api/v2/jobs", "/admin", "//api/v1/jobs", "/healthz/x"]
    )
    def test_does_not_even_learn_which_addresses_there_are(self, house: House, path: str) -> None:
        assert house.nobody.get(path).status_code == 401

    @pytest.mark.parametrize(
        "header",
        [
            "Bearer",
            "Basic YWxpY2U6eA==",
            "Bearer qsm_",
            "Bearer qsm_aaaaaaaaaa_" + "A" * 43,
            "Bearer " + "x" * 5000,
            "bearer null",
            "Token abc",
        ],
    )
    def test_gets_nowhere_with_something_that_is_no_key(self, house: House, header: str) -> None:
        answer = house.nobody.get("/api/v1/jobs", headers={"Authorization": header})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer ")

    def test_gets_nowhere_with_a_key_in_the_address_or_a_cookie(self, house: House) -> None:
        key = house.alice.headers["authorization"].split()[1]
        for more in ({"params": {"access_token": key}}, {"headers": {"Cookie": f"key={key}"}}):
            assert house.nobody.get("/api/v1/jobs", **more).status_code == 401  # type: ignore[arg-type]

    def test_is_refused_before_a_large_body_is_taken_in(self, house: House) -> None:
        def endless() -> Iterator[bytes]:
            for _ in range(400):
                yield bytes(1 << 20)

        began = time.monotonic()
        try:
            status = house.nobody.post("/api/v1/reconstruct", content=endless()).status_code
        except httpx.HTTPError:
            # The connection was closed while this client was still sending.
            status = 401
        assert status == 401
        assert time.monotonic() - began < 60

    @pytest.mark.parametrize("path", sorted(OPEN - {"/docs/oauth2-redirect"}))
    def test_may_see_what_is_open_and_it_tells_of_nobody(self, house: House, path: str) -> None:
        answer = house.nobody.get(path)
        assert answer.status_code in (200, 503)
        for secret in (house.job, house.upload, PATIENT, "alice"):
            assert secret not in answer.text


class TestSomebodyElse:
    @pytest.mark.parametrize(("method", "path"), BY_ID)
    def test_gets_at_nothing(self, house: House, method: str, path: str) -> None:
        # What the owner has looked at lies in caches now.
        house.alice.get(f"/api/v1/jobs/{house.job}/slices/chi.png").raise_for_status()
        for stranger in (house.bob, house.admin):
            require_nothing_for_others(stranger.request, method, path, house.fill(path))

    @pytest.mark.parametrize(("method", "path"), [case for case in BY_ID if case[0] not in DESTROYS])
    def test_is_the_only_reason_for_that(self, house: House, method: str, path: str) -> None:
        """The same request of the owner is answered: otherwise the test above would show nothing."""
        answer = house.alice.request(method, house.fill(path), **body_of(method, path))
        assert answer.status_code in (200, 202, 409), answer.text

    def test_has_changed_nothing(self, house: House) -> None:
        job = house.alice.get(f"/api/v1/jobs/{house.job}").json()
        assert job["state"] == "done"
        assert house.alice.get(f"/api/v1/uploads/{house.upload}").json()["received"] == 8

    @pytest.mark.parametrize(("method", "path"), [case for case in BY_ID if case[0] in DESTROYS])
    def test_does_not_keep_the_owner_from_deleting(
        self, house: House, files: Files, method: str, path: str
    ) -> None:
        mine = House(
            house.backend, house.alice, house.bob, house.admin, house.nobody,
            new_job(house.alice, files), new_upload(house.alice),
        )  # fmt: skip
        assert house.alice.request(method, mine.fill(path)).status_code == 204
        assert house.alice.request(method, mine.fill(path)).status_code == 404

    @pytest.mark.parametrize(
        "headers", [{"Range": "bytes=0-10"}, {"If-None-Match": '"{job}-1-chi"'}, {"If-None-Match": "*"}]
    )
    def test_learns_nothing_by_conditions(self, house: House, headers: dict[str, str]) -> None:
        filled = {name: value.replace("{job}", house.job) for name, value in headers.items()}
        address = f"/api/v1/jobs/{house.job}/artefacts/chi"
        assert house.bob.get(address, headers=filled).status_code == 404

    def test_cannot_make_a_job_of_anothers_upload(self, house: House) -> None:
        wanted = {"files": [{"role": "phase", "upload": house.upload}]}
        answer = house.bob.post("/api/v1/jobs", json=wanted)
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown-upload")
        assert house.alice.get(f"/api/v1/uploads/{house.upload}").status_code == 200


class TestCollections:
    """What stands at addresses without an id: each is listed here with what a stranger gets."""

    KNOWN = frozenset(
        {
            ("GET", "/api/v1/jobs"),
            ("POST", "/api/v1/jobs"),
            ("POST", "/api/v1/reconstruct"),
            ("GET", "/api/v1/uploads"),
            ("POST", "/api/v1/uploads"),
            ("GET", "/api/v1/me"),
            ("GET", "/api/v1/admin/queue"),
        }
    )

    def test_all_are_known(self) -> None:
        assert set(COLLECTIONS) == self.KNOWN, "say in TestCollections what others get at a new address"

    @pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/uploads"])
    def test_a_list_holds_ones_own_only(self, house: House, path: str) -> None:
        own = house.alice.get(path)
        assert PATIENT in own.text
        for stranger in (house.bob, house.admin):
            for query in ("", "?limit=200", "?owner=alice", "?state=done"):
                answer = stranger.get(path + query)
                assert PATIENT not in answer.text
                assert house.job not in answer.text
                assert house.upload not in answer.text

    def test_an_account_is_ones_own(self, house: House) -> None:
        alice, bob, admin = (c.get("/api/v1/me").json() for c in (house.alice, house.bob, house.admin))
        assert alice["stored"] > bob["stored"] == 0
        assert len({alice["alias"], bob["alias"], admin["alias"]}) == 3
        assert (bob["role"], admin["role"], bob["way"]) == ("user", "admin", "key")
        assert bob["expires_at"] is not None

    def test_the_queue_is_for_administrators(self, house: House) -> None:
        for other in (house.alice, house.bob):
            answer = other.get("/api/v1/admin/queue")
            assert (answer.status_code, answer.json()["code"]) == (403, "not-an-administrator")
        answer = house.admin.get("/api/v1/admin/queue")
        assert answer.status_code == 200
        assert answer.json()["counts"]["done"] >= 1


def test_the_queue_shows_numbers_and_aliases_but_nothing_of_a_scan(
    start_backend: StartBackend, files: Files
) -> None:
    with start_backend(QSM_ACCESS="keys", QSM_WORKERS="0") as backend:
        admin, *users = (
            backend.client(backend.key(*given)) for given in (("root", Role.ADMIN), ("alice",), ("bob",))
        )
        parts = [
            ("local_field", (f"{PATIENT}.nii.gz", files.local_field.read_bytes())),
            ("mask", ("mask.nii.gz", files.mask.read_bytes())),
        ]
        ids = []
        for user, number in ((users[0], 2), (users[1], 1)):
            for _ in range(number):
                answer = user.post("/api/v1/reconstruct", files=parts, data={"method": "tkd"})
                assert answer.status_code == 202, answer.text
                ids.append(answer.json()["id"])
        answer = admin.get("/api/v1/admin/queue")
        queue = answer.json()
        assert queue["counts"]["queued"] == 3
        assert [(owner["queued"], owner["running"]) for owner in queue["owners"]] == [(2, 0), (1, 0)]
        assert queue["owners"][0]["owner"] == users[0].get("/api/v1/me").json()["alias"]
        assert [job["state"] for job in queue["jobs"]] == ["queued"] * 3
        assert queue["oldest_wait_s"] >= queue["jobs"][-1]["age_s"] >= 0
        for secret in (*ids, "alice", "bob", PATIENT, "nii", "tkd"):
            assert secret not in answer.text
        for client in (admin, *users):
            client.close()
