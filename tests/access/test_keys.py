"""API keys: shown once, kept as hashes, worth nothing once they are revoked or have expired."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from qsm_ai.access.identity import Role
from qsm_ai.access.keys import KeyRefusedError, KeyStore, NoSuchKeyError
from qsm_ai.jobs import schema
from qsm_ai.jobs.database import Database

if TYPE_CHECKING:
    from tests.access.conftest import StartBackend

DAY = 86400.0


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(database_url: str, clock: Clock) -> Iterator[Database]:
    database = Database(database_url, clock)
    schema.prepare(database)
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database)


def refused(store: KeyStore, text: str) -> str:
    with pytest.raises(KeyRefusedError) as caught:
        store.find(text)
    return caught.value.reason


def everything_stored(database: Database) -> str:
    with database.reading() as connection:
        rows = connection.execute(sa.text("SELECT * FROM api_keys")).mappings()
        return json.dumps([dict(row) for row in rows])


def test_a_key_lets_its_owner_in(store: KeyStore) -> None:
    made, text = store.create("alice", name="laptop", role=Role.ADMIN, lifetime=DAY)
    found = store.find(text)
    assert (found.id, found.owner, found.role, found.name) == (made.id, "alice", Role.ADMIN, "laptop")
    assert text.startswith(made.prefix)


def test_keys_are_random_and_long(store: KeyStore) -> None:
    texts = [store.create("alice")[1] for _ in range(50)]
    assert all(re.fullmatch(r"qsm_[a-z2-7]{10}_[A-Za-z0-9_-]{43}", text) for text in texts)
    assert len({text.split("_", 2)[2] for text in texts}) == len({t.split("_")[1] for t in texts}) == 50


def test_the_key_itself_is_nowhere_in_the_database(store: KeyStore, database: Database) -> None:
    _, text = store.create("alice")
    store.find(text)
    secret = text.split("_", 2)[2]
    stored = everything_stored(database)
    assert secret not in stored
    assert secret[:12] not in stored
    assert "alice" in stored


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text[:-1] + ("A" if text[-1] != "A" else "B"), "mismatch"),
        (lambda text: text[:15] + "A" * 43, "mismatch"),
        (lambda text: "qsm_aaaaaaaaaa_" + text[15:], "unknown"),
        (lambda text: text[:-1], "malformed"),
        (lambda text: text + "A", "malformed"),
        (lambda text: text.upper(), "malformed"),
        (lambda text: text + "\n", "malformed"),
        (lambda _: "qsm_", "malformed"),
        (lambda _: "qsm_%' OR '1'='1_" + "A" * 43, "malformed"),
    ],
)
def test_anything_else_is_refused(store: KeyStore, change: object, reason: str) -> None:
    _, text = store.create("alice")
    assert refused(store, change(text)) == reason  # type: ignore[operator]


def test_another_keys_secret_does_not_fit(store: KeyStore) -> None:
    _, one = store.create("alice")
    _, other = store.create("bob")
    assert refused(store, one[:15] + other[15:]) == "mismatch"


def test_hashes_are_compared_in_constant_time_whether_the_key_exists_or_not(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    honest = hmac.compare_digest

    def watched(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return honest(one, other)

    monkeypatch.setattr("qsm_ai.access.keys.hmac.compare_digest", watched)
    _, text = store.create("alice")
    store.find(text)
    refused(store, text[:15] + "A" * 43)
    refused(store, "qsm_aaaaaaaaaa_" + text[15:])
    assert compared == [(64, 64)] * 3


def test_a_revoked_key_is_worth_nothing_from_that_moment(store: KeyStore, clock: Clock) -> None:
    made, text = store.create("alice")
    store.find(text)
    clock.now += 5
    assert store.revoke(made.id).revoked_at == clock.now
    assert refused(store, text) == "revoked"
    clock.now += 5
    assert store.revoke(made.prefix).revoked_at == clock.now - 5


def test_a_key_is_revoked_by_whatever_part_of_it_is_at_hand(store: KeyStore) -> None:
    for cut in (14, 15, 20, None):
        _, text = store.create("alice")
        store.revoke(text[:cut])
        assert refused(store, text) == "revoked"
    with pytest.raises(NoSuchKeyError):
        store.revoke("qsm_aaaaaaaaaa_")
    with pytest.raises(NoSuchKeyError):
        store.revoke("")


def test_a_key_expires(store: KeyStore, clock: Clock) -> None:
    _, text = store.create("alice", lifetime=DAY)
    clock.now += DAY - 1
    store.find(text)
    clock.now += 1
    assert refused(store, text) == "expired"


def test_a_key_without_an_end_lives_on(store: KeyStore, clock: Clock) -> None:
    _, text = store.create("alice")
    clock.now += 5000 * DAY
    assert store.find(text).state(clock.now) == "active"


def test_the_last_use_is_noted_but_not_at_every_use(store: KeyStore, clock: Clock) -> None:
    _, text = store.create("alice")
    assert store.list()[0].last_used_at is None
    store.note_use([store.find(text)])
    first = clock.now
    clock.now += 30
    store.note_use([store.find(text)])
    assert store.list()[0].last_used_at == first
    clock.now += 31
    store.note_use([store.find(text)])
    assert store.list()[0].last_used_at == clock.now


def test_a_refused_key_leaves_no_trace_of_use(store: KeyStore) -> None:
    _, text = store.create("alice")
    refused(store, text[:15] + "A" * 43)
    assert store.list()[0].last_used_at is None


def test_keys_are_listed_by_owner_oldest_first(store: KeyStore, clock: Clock) -> None:
    made = []
    for owner in ("alice", "bob", "alice"):
        made.append(store.create(owner)[0].id)
        clock.now += 1
    assert [key.id for key in store.list()] == made
    assert [key.id for key in store.list("alice")] == [made[0], made[2]]


@pytest.mark.parametrize("owner", ["", " alice", "a\nb", "x" * 201, "\x1b[31m"])
def test_an_owner_that_cannot_be_is_refused(store: KeyStore, owner: str) -> None:
    with pytest.raises(ValueError, match="owner"):
        store.create(owner)


class TestCommands:
    """On the command line, while a backend serves from the same database."""

    def test_a_key_is_made_used_listed_and_revoked(self, start_backend: StartBackend) -> None:
        with start_backend(QSM_ACCESS="keys") as backend:
            made = backend.command(
                "keys", "create", "--owner", "alice", "--name", "laptop", "--expires", "30d"
            )
            assert made.returncode == 0, made.stderr
            key = made.stdout.strip()
            assert re.fullmatch(r"qsm_\w{10}_\S{43}", key)
            assert key not in made.stderr
            with backend.client(key) as client:
                assert client.get("/api/v1/me").json()["role"] == "user"
                listed = backend.command("keys", "list")
                assert key[:15] in listed.stdout
                assert key not in listed.stdout
                assert key[15:] not in listed.stdout
                assert all(word in listed.stdout for word in ("alice", "laptop", "active", "user"))
                assert "never" not in listed.stdout
                revoked = backend.command("keys", "revoke", key[:15])
                assert revoked.returncode == 0, revoked.stderr
                assert client.get("/api/v1/me").status_code == 401
            assert key[:15] not in backend.command("keys", "list").stdout
            assert "revoked" in backend.command("keys", "list", "--all").stdout
            assert key[15:] not in backend.log.read_text()

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("create",), "--owner or --subject"),
            (("create", "--owner", "a", "--subject", "b"), "--owner or --subject"),
            (("create", "--subject", "b"), "QSM_OIDC_ISSUER"),
            (("create", "--owner", "oidc:1:2"), "--subject"),
            (("create", "--owner", "a", "--expires", "soon"), "--expires"),
            (("create", "--owner", "a", "--expires", "0d"), "live for some time"),
            (("create", "--owner", "  "), "printable"),
            (("revoke", "qsm_aaaaaaaaaa_"), "no such key"),
        ],
    )
    def test_what_cannot_be_is_refused_with_a_sentence(
        self, start_backend: StartBackend, tmp_path: object, arguments: tuple[str, ...], sentence: str
    ) -> None:
        from typer.testing import CliRunner

        from qsm_ai.api.keys_commands import app

        found = CliRunner().invoke(app, ["keys", *arguments], env={"QSM_DATA_DIR": str(tmp_path)})
        assert found.exit_code == 2
        assert sentence in found.stderr
        assert "Traceback" not in found.stderr
