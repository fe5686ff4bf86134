"""Bearer tokens of an OpenID Connect provider: whose they are, and whether they hold.

Signatures, times, issuer and audience are PyJWT's work; here is which keys are believed and for how long.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import structlog

from qsm_ai.access.denial import AccessDenied, cannot_check, expired, not_a_member, wrong
from qsm_ai.access.identity import Identity, Role, Way, oidc_owner

log = structlog.get_logger("qsm_ai.access")

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
"""Signatures with a private key alone: neither ``none`` nor anything that a public key could forge."""

_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_TOKEN_TYPES = {"", "jwt", "at+jwt", "application/at+jwt"}
LONGEST_TOKEN = 16 << 10
LARGEST_DOCUMENT = 1 << 20
LONGEST_LOOK = 10.0
"""Seconds after which an issuer that sends its keys drop by drop counts as away."""

GRACE = 0.5
"""Seconds for which a token with a known key waits for newer keys.

Enough for a provider that answers, so that a withdrawn key is refused at once; little where it hangs.
"""


@dataclass(frozen=True)
class OidcSettings:
    """Whom to believe.

    Attributes
    ----------
    issuer : str
        Its URL, exactly as in its tokens.
    audiences : of which a token must name one: this service's ids at the issuer
    roles_claim : where roles or groups stand in a token; dots lead into objects
    user_role : str or None
        Only who has it is let in; ``None`` lets in everybody with a valid token.
    admin_role : str
        Who has it may see the queue of everybody.
    email_domains : of which the verified e-mail address must be, if any are given
    leeway : s
        By which clocks may differ.
    """

    issuer: str
    audiences: tuple[str, ...]
    roles_claim: str = "roles"
    user_role: str | None = None
    admin_role: str = "qsm-ai-admin"
    email_domains: tuple[str, ...] = ()
    leeway: float = 60.0


@dataclass(frozen=True)
class PublicKey:
    """A key of the issuer: its id, its type, the one algorithm it is for (if it says so), and itself."""

    kid: str | None
    kind: str
    algorithm: str | None
    key: Any


class ProviderDownError(Exception):
    """The provider's keys cannot be had."""


class KeySet:
    """The public keys of an issuer, looked up at its address and kept for a while.

    A token with an unknown key makes it look again, for providers change their keys; but not more often than
    every ``cooldown`` seconds, so that nobody makes this service hammer the provider. While the provider is
    away or hangs, the keys that are known stay good until ``max_age``, and nobody waits for newer ones.

    Parameters
    ----------
    issuer : str
    lifetime : s
        After so long the keys are looked up again.
    max_age : s
        After so long without an answer they are not believed any more.
    cooldown : s
        Shortest time between two looks.
    transport : httpx.AsyncBaseTransport, optional
        For tests.
    clock : callable
        Seconds that only ever grow.
    """

    def __init__(
        self,
        issuer: str,
        *,
        lifetime: float = 3600.0,
        max_age: float = 86400.0,
        cooldown: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._lifetime, self._max_age, self._cooldown = lifetime, max_age, cooldown
        self._clock = clock
        self._http = httpx.AsyncClient(timeout=5.0, transport=transport, follow_redirects=False)
        self._keys: tuple[PublicKey, ...] = ()
        self._found_at: float | None = None
        self._looked_at: float | None = None
        self._has_failed = False
        self._looking: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        """Close all connections."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        await self._http.aclose()

    async def candidates(self, kid: str | None, algorithm: str) -> tuple[PublicKey, ...]:
        """Keys that may have signed a token.

        Parameters
        ----------
        kid : str or None
            Key id in the token's header.
        algorithm : str
            One of ``ALGORITHMS``.

        Returns
        -------
        tuple
            Empty if the issuer has no such key.

        Raises
        ------
        ProviderDownError
        """
        found, age = self._fitting(kid, algorithm), self._age()
        if age >= self._lifetime or (not found and kid is not None):
            look = self._look_again()
            if look is not None:
                is_enough = bool(found) and age <= self._max_age
                await asyncio.wait({look}, timeout=self._patience() if is_enough else None)
            found = self._fitting(kid, algorithm)
        if self._age() > self._max_age:
            raise ProviderDownError
        return found

    def _age(self) -> float:
        """Seconds since the keys were found."""
        return math.inf if self._found_at is None else self._clock() - self._found_at

    def _patience(self) -> float:
        """Seconds for which who can do without newer keys waits for them."""
        if self._has_failed or self._looked_at is None:
            return 0.0
        return max(0.0, self._looked_at + GRACE - self._clock())

    def _fitting(self, kid: str | None, algorithm: str) -> tuple[PublicKey, ...]:
        return tuple(
            key
            for key in self._keys
            if key.kind == _KEY_TYPES[algorithm[:2]]
            and key.algorithm in (None, algorithm)
            and (kid is None or key.kid == kid)
        )

    def _look_again(self) -> asyncio.Task[None] | None:
        """The look that everybody shares, or ``None`` if the last one has ended only just now."""
        if self._looking is not None and not self._looking.done():
            return self._looking
        now = self._clock()
        if self._looked_at is not None and now - self._looked_at < self._cooldown:
            return None
        self._looked_at = now
        # A task of its own: it goes on when the request that began it does not wait or is given up.
        self._looking = asyncio.create_task(self._refresh(), name="oidc-keys")
        return self._looking

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(LONGEST_LOOK):
                self._keys = await self._look()
        except Exception as error:  # whatever a provider sends, its known keys stay good
            self._has_failed = True
            log.warning("access.provider_trouble", error=type(error).__name__)
        else:
            self._found_at = self._clock()
            self._has_failed = False

    async def _look(self) -> tuple[PublicKey, ...]:
        found = await self._document(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self._issuer:
            raise ValueError("the document is another issuer's")
        address = found["jwks_uri"]
        if not isinstance(address, str) or not may_be_asked(address):
            raise ValueError("its keys would come over an open line")
        usable = []
        for entry in (await self._document(address))["keys"]:
            if entry.get("kty") not in ("RSA", "EC", "OKP") or entry.get("use", "sig") != "sig":
                continue
            try:
                key = jwt.PyJWK.from_dict(entry).key
                usable.append(PublicKey(entry.get("kid"), entry["kty"], entry.get("alg"), key))
            except (jwt.PyJWKError, jwt.InvalidKeyError, NotImplementedError):
                # A kind of key that is newer than this library spoils nothing for the others.
                continue
        return tuple(usable)

    async def _document(self, address: str) -> Mapping[str, Any]:
        async with self._http.stream("GET", address, headers={"Accept": "application/json"}) as answer:
            answer.raise_for_status()
            if answer.status_code != httpx.codes.OK:
                raise ValueError("not a document")
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > LARGEST_DOCUMENT:
                    raise ValueError("far too long")
        document = httpx.Response(200, content=bytes(body)).json()
        if not isinstance(document, dict):
            raise TypeError("not an object")
        return document


class TokenVerifier:
    """Tells whose a token is.

    Parameters
    ----------
    settings : OidcSettings
    keys : KeySet
        Of the issuer.
    ways : how one may come in, for the answers
    """

    def __init__(self, settings: OidcSettings, keys: KeySet, ways: tuple[Way, ...] = (Way.OIDC,)) -> None:
        self._settings = settings
        self._keys = keys
        self._ways = ways

    async def aclose(self) -> None:
        """Close all connections."""
        await self._keys.aclose()

    async def verify(self, token: str) -> Identity:
        """Who holds a token.

        Raises
        ------
        AccessDenied
            401 when it is not valid, 403 when its holder does not belong here, 503 when it cannot be checked.
        """
        claims = await self._claims(token)
        subject = claims["sub"]
        if not isinstance(subject, str) or not subject:
            raise self._refused("subject")
        roles = _roles(claims, self._settings.roles_claim)
        self._require_membership(claims, roles)
        return Identity(
            owner=oidc_owner(self._settings.issuer, subject),
            role=Role.ADMIN if self._settings.admin_role in roles else Role.USER,
            way=Way.OIDC,
            expires_at=float(claims["exp"]),
        )

    async def _claims(self, token: str) -> Mapping[str, Any]:
        if len(token) > LONGEST_TOKEN:
            raise self._refused("long")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise self._refused("malformed") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise self._refused("algorithm")
        # A logout token or a DPoP proof is signed with the same keys, and is no bearer token.
        if str(header.get("typ", "")).lower() not in _TOKEN_TYPES:
            raise self._refused("type")
        if kid is not None and not isinstance(kid, str):
            raise self._refused("malformed")
        try:
            candidates = await self._keys.candidates(kid, algorithm)
        except ProviderDownError:
            raise cannot_check(15.0) from None
        for key in candidates:
            try:
                return jwt.decode(
                    token,
                    key.key,
                    algorithms=[algorithm],
                    issuer=self._settings.issuer,
                    audience=list(self._settings.audiences),
                    leeway=self._settings.leeway,
                    options={"require": ["exp", "iat", "iss", "aud", "sub"]},
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError:
                log.info("access.refused", way="oidc", reason="expired")
                raise expired() from None
            except (jwt.InvalidTokenError, jwt.InvalidKeyError) as error:
                raise self._refused(type(error).__name__) from None
        raise self._refused("signature" if candidates else "key")

    def _require_membership(self, claims: Mapping[str, Any], roles: frozenset[str]) -> None:
        wanted = self._settings
        if wanted.user_role is not None and not roles & {wanted.user_role, wanted.admin_role}:
            log.info("access.refused", way="oidc", reason="role")
            raise not_a_member()
        if wanted.email_domains:
            address = claims.get("email")
            domain = address.rpartition("@")[2].lower() if isinstance(address, str) else ""
            if claims.get("email_verified") is not True or domain not in wanted.email_domains:
                log.info("access.refused", way="oidc", reason="domain")
                raise not_a_member()

    def _refused(self, reason: str) -> AccessDenied:
        log.info("access.refused", way="oidc", reason=reason)
        return wrong(self._ways)


def may_be_asked(address: str) -> bool:
    """Whether what comes from an address can be believed: HTTPS, or this very machine."""
    parts = urlsplit(address)
    if parts.scheme == "https":
        return bool(parts.hostname)
    return parts.scheme == "http" and is_loopback(parts.hostname or "")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _roles(claims: Mapping[str, Any], path: str) -> frozenset[str]:
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return frozenset(found.split())
    if isinstance(found, Sequence):
        return frozenset(role for role in found if isinstance(role, str))
    return frozenset()
