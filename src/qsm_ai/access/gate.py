"""The gate: from the header of a request to who is asking."""

from __future__ import annotations

from typing import Self

import structlog

from qsm_ai.access.denial import AccessDenied, nobody, wrong
from qsm_ai.access.identity import LOCAL, Identity, Way
from qsm_ai.access.key_ring import KeyRing
from qsm_ai.access.keys import KeyRefusedError, KeyStore, looks_like_key
from qsm_ai.access.oidc import KeySet, OidcSettings, TokenVerifier
from qsm_ai.jobs.database import Database

log = structlog.get_logger("qsm_ai.access")


class Gate:
    """Lets in who belongs.

    Parameters
    ----------
    keys : KeyRing or None
        ``None`` where API keys let nobody in.
    tokens : TokenVerifier or None
        ``None`` where no identity provider is believed.
    """

    def __init__(self, keys: KeyRing | None = None, tokens: TokenVerifier | None = None) -> None:
        self._keys = keys
        self._tokens = tokens
        self.ways = tuple(
            way for way, checker in ((Way.KEY, keys), (Way.OIDC, tokens)) if checker is not None
        )

    @classmethod
    def build(cls, database: Database, *, keys: bool, oidc: OidcSettings | None) -> Self:
        """The gate that an operator asked for.

        Parameters
        ----------
        database : Database
            Holds the keys.
        keys : bool
            Whether API keys let in.
        oidc : OidcSettings or None
            Whose tokens let in.

        Returns
        -------
        Gate
        """
        ways = ((Way.KEY,) if keys else ()) + ((Way.OIDC,) if oidc else ())
        return cls(
            KeyRing(KeyStore(database)) if keys else None,
            TokenVerifier(oidc, KeySet(oidc.issuer), ways) if oidc else None,
        )

    @property
    def is_open(self) -> bool:
        """Whether everybody is let in, as the one user that there is."""
        return not self.ways

    async def aclose(self) -> None:
        """Close all connections."""
        if self._tokens is not None:
            await self._tokens.aclose()

    async def admit(self, authorization: str | None) -> Identity:
        """Who is asking.

        Parameters
        ----------
        authorization : str or None
            The header of that name.

        Returns
        -------
        Identity

        Raises
        ------
        AccessDenied
        """
        if self.is_open:
            return LOCAL
        if not authorization:
            raise nobody(self.ways)
        scheme, _, credentials = authorization.partition(" ")
        credentials = credentials.strip()
        if scheme.lower() != "bearer" or not credentials:
            raise nobody(self.ways)
        if looks_like_key(credentials):
            return await self._by_key(credentials)
        if self._tokens is not None:
            return await self._tokens.verify(credentials)
        raise self._refused("key", "malformed")

    async def _by_key(self, credentials: str) -> Identity:
        if self._keys is None:
            raise self._refused("key", "not accepted")
        try:
            key = await self._keys.verify(credentials)
        except KeyRefusedError as refusal:
            raise self._refused("key", refusal.reason) from None
        return Identity(key.owner, key.role, Way.KEY, key.expires_at)

    def _refused(self, way: str, reason: str) -> AccessDenied:
        log.info("access.refused", way=way, reason=reason)
        return wrong(self.ways)
