"""API keys: made at random, shown once, kept as a hash.

A key is ``qsm_<id>_<secret>``. The id finds the record and may be seen by anybody; the secret has 256 random
bits, so that its SHA-256 can neither be guessed nor be looked up in a table, and needs no slow hash.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from qsm_ai.access.identity import LONGEST_OWNER, Role
from qsm_ai.jobs.database import Database
from qsm_ai.jobs.tables import API_KEYS

PREFIX = "qsm_"
NOTED_EVERY = 60.0
"""Seconds between two notes of when a key was last used: not every request writes to the database."""

LONGEST_NAME = 80

_KEY = re.compile(r"qsm_(?P<id>[a-z2-7]{10})_(?P<secret>[A-Za-z0-9_-]{43})")


class NoSuchKeyError(LookupError):
    """No key has this id."""


class KeyRefusedError(Exception):
    """A key that does not let in.

    Attributes
    ----------
    reason : str
        ``malformed``, ``unknown``, ``mismatch``, ``revoked`` or ``expired``: for the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Key:
    """What is known of a key: everything but the key. Times are seconds since 1970."""

    id: str
    owner: str
    name: str
    role: Role
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None

    @property
    def prefix(self) -> str:
        """How its text begins, by which its holder recognises it."""
        return f"{PREFIX}{self.id}_"

    def state(self, now: float) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "active"


class KeyStore:
    """The keys in the database. Synchronous; call it from threads.

    Parameters
    ----------
    database : Database
        Of the jobs, migrated; its clock is the one by which keys expire.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, owner: str, *, name: str = "", role: Role = Role.USER, lifetime: float | None = None
    ) -> tuple[Key, str]:
        """Make a key.

        Parameters
        ----------
        owner : str
            Whose jobs it opens.
        name : str
            What it is for; for its holder.
        role : Role
        lifetime : s
            ``None`` for a key that never expires.

        Returns
        -------
        (Key, str)
            The record, and the key's text, which cannot be had again.

        Raises
        ------
        ValueError
            An owner or a name that cannot be.
        """
        if not owner or len(owner) > LONGEST_OWNER or not owner.isprintable() or owner != owner.strip():
            raise ValueError(f"an owner has 1 to {LONGEST_OWNER} printable characters")
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise ValueError(f"a name has at most {LONGEST_NAME} printable characters")
        if lifetime is not None and not lifetime > 0:
            raise ValueError("a key must live for some time")
        now = self._database.now()
        key = Key(
            id=base64.b32encode(secrets.token_bytes(7)).decode()[:10].lower(),
            owner=owner,
            name=name,
            role=role,
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
        secret = secrets.token_urlsafe(32)
        with self._database.writing() as connection:
            connection.execute(
                API_KEYS.insert().values(
                    id=key.id,
                    hash=_hash(secret),
                    owner=key.owner,
                    name=key.name,
                    role=key.role.value,
                    created_at=key.created_at,
                    expires_at=key.expires_at,
                )
            )
        return key, f"{key.prefix}{secret}"

    @property
    def database(self) -> Database:
        """Where the keys are."""
        return self._database

    def find(self, text: str) -> Key:
        """The record of a key that lets in.

        Raises
        ------
        KeyRefusedError
        """
        match = _KEY.fullmatch(text)
        if match is None:
            raise KeyRefusedError("malformed")
        with self._database.reading() as connection:
            row = (
                connection.execute(sa.select(API_KEYS).where(API_KEYS.c.id == match["id"])).mappings().first()
            )
        # The hash is compared in any case and in constant time: how long the answer takes says nothing.
        known = hmac.compare_digest(_hash(match["secret"]), row["hash"] if row else "0" * 64)
        if row is None or not known:
            raise KeyRefusedError("unknown" if row is None else "mismatch")
        key = _key(row)
        if (state := key.state(self._database.now())) != "active":
            raise KeyRefusedError(state)
        return key

    def still_good(self, key_ids: Iterable[str]) -> dict[str, Key]:
        """Those of these keys, by id, that are neither revoked nor expired nor gone."""
        query = sa.select(API_KEYS).where(API_KEYS.c.id.in_(list(key_ids)))
        with self._database.reading() as connection:
            found = [_key(row) for row in connection.execute(query).mappings()]
        now = self._database.now()
        return {key.id: key for key in found if key.state(now) == "active"}

    def note_use(self, keys: Iterable[Key]) -> None:
        """Note that keys were used, where the last note is not a new one."""
        now = self._database.now()
        due = [key.id for key in keys if key.last_used_at is None or now - key.last_used_at >= NOTED_EVERY]
        if due:
            # A database that is too busy to take the note keeps nobody out.
            with suppress(sa.exc.OperationalError), self._database.writing() as connection:
                connection.execute(API_KEYS.update().where(API_KEYS.c.id.in_(due)).values(last_used_at=now))

    def list(self, owner: str | None = None) -> list[Key]:
        """All keys, or those of one owner, oldest first."""
        query = sa.select(API_KEYS).order_by(API_KEYS.c.created_at, API_KEYS.c.id)
        if owner is not None:
            query = query.where(API_KEYS.c.owner == owner)
        with self._database.reading() as connection:
            return [_key(row) for row in connection.execute(query).mappings()]

    def revoke(self, key_id: str) -> Key:
        """Make a key worth nothing from this moment on; one that is revoked already stays as it is.

        Parameters
        ----------
        key_id : str
            Its id, or text that begins with its prefix.

        Raises
        ------
        NoSuchKeyError
        """
        wanted = key_id.removeprefix(PREFIX).partition("_")[0]
        with self._database.writing() as connection:
            connection.execute(
                API_KEYS.update()
                .where(API_KEYS.c.id == wanted, API_KEYS.c.revoked_at.is_(None))
                .values(revoked_at=self._database.now())
            )
            row = connection.execute(sa.select(API_KEYS).where(API_KEYS.c.id == wanted)).mappings().first()
        if row is None:
            raise NoSuchKeyError(wanted)
        return _key(row)


def looks_like_key(credentials: str) -> bool:
    """Whether these credentials mean to be an API key, valid or not; a token never begins like one."""
    return credentials.startswith(PREFIX)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: Any) -> Key:
    return Key(
        id=row["id"],
        owner=row["owner"],
        name=row["name"],
        role=Role(row["role"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
    )
