"""Tokens of a real issuer: those that hold, and every way in which one may not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from qsm_ai.access.denial import AccessDenied
from qsm_ai.access.identity import Identity, Role
from qsm_ai.access.oidc import KeySet, OidcSettings, ProviderDownError, TokenVerifier

if TYPE_CHECKING:
    from tests.access.conftest import Issuer

AUDIENCE = "qsm-ai"


@pytest.fixture(scope="module")
def foreign_key() -> rsa.RSAPrivateKey:
    """One that the issuer has never published."""
    return rsa.generate_private_key(65537, 2048)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def verifier(issuer: Issuer, clock: Callable[[], float] = time.monotonic, **settings: Any) -> TokenVerifier:
    wanted = OidcSettings(issuer.url, (AUDIENCE, "another-id"), **settings)
    return TokenVerifier(wanted, KeySet(issuer.url, clock=clock))


def run(checker: TokenVerifier, work: Callable[[TokenVerifier], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        try:
            return await work(checker)
        finally:
            await checker.aclose()

    return asyncio.run(whole())


def verify(issuer: Issuer, token: str, **settings: Any) -> Identity:
    found: Identity = run(verifier(issuer, **settings), lambda checker: checker.verify(token))
    return found


def refusal(issuer: Issuer, token: str, **settings: Any) -> AccessDenied:
    with pytest.raises(AccessDenied) as caught:
        verify(issuer, token, **settings)
    return caught.value


class HangingIssuer:
    """Serves one key, and for ``SECONDS`` nothing while it hangs."""

    SECONDS = 2.0

    def __init__(self) -> None:
        self.hangs = False
        self.looks = 0
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
        self._key = {**jwt.get_algorithm_by_name("ES256").to_jwk(public, as_dict=True), "kid": "1"}

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        is_key = request.url.path == "/keys"
        self.looks += not is_key
        if self.hangs:
            await asyncio.sleep(self.SECONDS)
            raise httpx.ReadTimeout("nothing came", request=request)
        where = {"issuer": "https://issuer.example", "jwks_uri": "https://issuer.example/keys"}
        return httpx.Response(200, json={"keys": [self._key]} if is_key else where)


async def seconds_for(keys: KeySet, at_once: int = 1) -> float:
    """How long so many requests with the known key take together."""
    began = time.monotonic()
    found = await asyncio.gather(*(keys.candidates("1", "ES256") for _ in range(at_once)))
    assert all(found)
    return time.monotonic() - began


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(claims)}"


class TestGoodTokens:
    @pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA"])
    @pytest.mark.parametrize("name_algorithm", [True, False])
    def test_every_usual_signature_is_understood(
        self, issuer: Issuer, algorithm: str, name_algorithm: bool
    ) -> None:
        issuer.rotate("k", algorithm, name_algorithm=name_algorithm)
        assert verify(issuer, issuer.token("u-7", algorithm=algorithm)).owner.endswith(":u-7")

    def test_a_user_is_known_by_issuer_and_subject(self, issuer: Issuer) -> None:
        one = verify(issuer, issuer.token("u-1"))
        again = verify(issuer, issuer.token("u-1", email="new@example.org"))
        other = verify(issuer, issuer.token("u-2"))
        assert one.owner == again.owner != other.owner
        assert one.owner.startswith("oidc:")
        assert one.role is Role.USER

    def test_one_of_several_audiences_is_enough(self, issuer: Issuer) -> None:
        assert verify(issuer, issuer.token(aud=["somebody", "another-id"])).owner

    def test_clocks_may_differ_by_a_minute(self, issuer: Issuer) -> None:
        now = time.time()
        assert verify(issuer, issuer.token(exp=now - 30)).owner
        assert verify(issuer, issuer.token(iat=now + 30, nbf=now + 30)).owner

    def test_a_token_without_a_key_id_is_tried_on_all_keys(self, issuer: Issuer) -> None:
        token = jwt.encode(
            {"iss": issuer.url, "aud": AUDIENCE, "sub": "u", "iat": time.time(), "exp": time.time() + 60},
            issuer.keys["first"],  # type: ignore[arg-type]
            "RS256",
        )
        issuer.published.insert(0, {**issuer.published[0], "n": "AQAB" * 86, "kid": "other"})
        assert verify(issuer, token).owner

    def test_unknown_kinds_of_keys_beside_are_passed_over(self, issuer: Issuer) -> None:
        issuer.published[:0] = [{"kty": "PQ", "kid": "a"}, {"kty": "EC", "crv": "P-999", "kid": "b"}]
        assert verify(issuer, issuer.token()).owner


class TestBadTokens:
    def test_an_expired_token_is_refused_and_said_to_be_so(self, issuer: Issuer) -> None:
        denial = refusal(issuer, issuer.token(exp=time.time() - 90))
        assert (denial.status, denial.code) == (401, "expired-credentials")

    @pytest.mark.parametrize(
        "claims",
        [
            {"aud": "another-service"},
            {"aud": []},
            {"iss": "https://issuer.example"},
            {"nbf": 2e9 * 2},
            {"iat": 2e9 * 2},
            {"sub": ""},
            {"sub": 17},
            {"exp": "tomorrow"},
        ],
        ids=str,
    )
    def test_a_wrong_claim_is_refused(self, issuer: Issuer, claims: dict[str, Any]) -> None:
        payload = {
            "iss": issuer.url,
            "aud": AUDIENCE,
            "sub": "u",
            "iat": time.time(),
            "exp": time.time() + 60,
        }
        signer = jwt.PyJWS()
        token = signer.encode(
            json.dumps({**payload, **claims}).encode(),
            issuer.keys["first"],  # type: ignore[arg-type]
            "RS256",
            {"kid": "first"},
        )
        denial = refusal(issuer, token)
        assert (denial.status, denial.code) == (401, "invalid-credentials")

    @pytest.mark.parametrize("claim", ["iss", "aud", "sub", "iat", "exp"])
    def test_a_missing_claim_is_refused(self, issuer: Issuer, claim: str) -> None:
        assert refusal(issuer, issuer.token(drop=(claim,))).status == 401

    @pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
    def test_a_token_without_a_signature_is_refused(self, issuer: Issuer, algorithm: str) -> None:
        claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "u", "iat": time.time(), "exp": time.time() + 60}
        body = unsigned({"alg": algorithm, "typ": "JWT", "kid": "first"}, claims)
        assert refusal(issuer, f"{body}.").status == 401
        assert refusal(issuer, f"{body}.{'A' * 342}").status == 401

    @pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
    def test_the_public_key_taken_for_a_shared_secret_is_refused(
        self, issuer: Issuer, algorithm: str
    ) -> None:
        public = issuer.keys["first"].public_key()
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "u", "iat": time.time(), "exp": time.time() + 60}
        digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
        secrets = [pem, json.dumps(issuer.published[0]).encode(), issuer.published[0]["n"].encode(), b""]
        for secret in secrets:
            body = unsigned({"alg": algorithm, "typ": "JWT", "kid": "first"}, claims)
            mac = base64.urlsafe_b64encode(hmac.new(secret, body.encode(), digest).digest()).rstrip(b"=")
            assert refusal(issuer, f"{body}.{mac.decode()}").code == "invalid-credentials"

    def test_a_shared_secret_that_the_issuer_publishes_is_not_believed(self, issuer: Issuer) -> None:
        secret = b"0123456789abcdef0123456789abcdef"
        issuer.published.append(
            {"kty": "oct", "kid": "shared", "k": base64.urlsafe_b64encode(secret).decode().rstrip("=")}
        )
        assert (
            refusal(issuer, issuer.token(key=secret, algorithm="HS256", headers={"kid": "shared"})).status
            == 401
        )

    def test_another_key_with_the_right_name_is_refused(
        self, issuer: Issuer, foreign_key: rsa.RSAPrivateKey
    ) -> None:
        assert refusal(issuer, issuer.token(key=foreign_key)).status == 401

    def test_a_key_that_the_token_brings_along_is_not_believed(
        self, issuer: Issuer, foreign_key: rsa.RSAPrivateKey
    ) -> None:
        brought = jwt.get_algorithm_by_name("RS256").to_jwk(foreign_key.public_key(), as_dict=True)
        headers = {"jwk": brought, "jku": f"{issuer.url}/keys", "x5u": f"{issuer.url}/keys"}
        assert refusal(issuer, issuer.token(key=foreign_key, headers=headers)).status == 401

    def test_a_key_for_encryption_does_not_sign(self, issuer: Issuer) -> None:
        issuer.published[0]["use"] = "enc"
        assert refusal(issuer, issuer.token()).status == 401

    def test_a_key_is_used_with_its_own_algorithm_only(self, issuer: Issuer) -> None:
        assert refusal(issuer, issuer.token(algorithm="RS512")).status == 401
        assert refusal(issuer, issuer.token(algorithm="PS256")).status == 401

    @pytest.mark.parametrize("kind", ["logout+jwt", "dpop+jwt", "secevent+jwt"])
    def test_other_things_that_the_issuer_signs_are_no_tokens(self, issuer: Issuer, kind: str) -> None:
        assert refusal(issuer, issuer.token(headers={"typ": kind})).status == 401

    def test_a_changed_claim_breaks_the_signature(self, issuer: Issuer) -> None:
        head, body, signature = issuer.token("u-1").split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        forged = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "u-2"}).encode()).rstrip(b"=")
        assert refusal(issuer, f"{head}.{forged.decode()}.{signature}").status == 401

    @pytest.mark.parametrize(
        "token", ["", "x", "a.b", "a.b.c", "....", "é.é.é", "x" * 100_000, "e30.e30.", "bnVsbA.e30.AA"]
    )
    def test_what_is_no_token_is_refused(self, issuer: Issuer, token: str) -> None:
        assert refusal(issuer, token).status == 401


class TestMembership:
    def test_without_the_wanted_role_nobody_is_let_in(self, issuer: Issuer) -> None:
        denial = refusal(issuer, issuer.token(roles=["guest"]), user_role="qsm")
        assert (denial.status, denial.code) == (403, "not-a-member")
        assert verify(issuer, issuer.token(roles=["guest", "qsm"]), user_role="qsm").role is Role.USER

    def test_administrators_are_told_by_their_role(self, issuer: Issuer) -> None:
        token = issuer.token(realm_access={"roles": ["qsm-ai-admin"]})
        assert verify(issuer, token, roles_claim="realm_access.roles").role is Role.ADMIN
        assert verify(issuer, token).role is Role.USER

    @pytest.mark.parametrize("roles", ["qsm-ai-admin-not", {"qsm-ai-admin": 1}, [["qsm-ai-admin"]], 7, None])
    def test_a_claim_of_another_form_makes_nobody_an_administrator(self, issuer: Issuer, roles: Any) -> None:
        assert verify(issuer, issuer.token(roles=roles)).role is Role.USER

    @pytest.mark.parametrize(
        ("claims", "admitted"),
        [
            ({"email": "a@hospital.example", "email_verified": True}, True),
            ({"email": "a@Hospital.Example", "email_verified": True}, True),
            ({"email": "a@hospital.example", "email_verified": False}, False),
            ({"email": "a@hospital.example"}, False),
            ({"email": "a@hospital.example", "email_verified": "true"}, False),
            ({"email": "a@evil.example", "email_verified": True}, False),
            ({"email": "a@evil-hospital.example", "email_verified": True}, False),
            ({"email": "a@hospital.example@evil.example", "email_verified": True}, False),
            ({"email_verified": True}, False),
        ],
        ids=str,
    )
    def test_only_verified_addresses_of_the_domain_are_let_in(
        self, issuer: Issuer, claims: dict[str, Any], admitted: bool
    ) -> None:
        token = issuer.token(**claims)
        if admitted:
            assert verify(issuer, token, email_domains=("hospital.example",)).owner
        else:
            assert refusal(issuer, token, email_domains=("hospital.example",)).status == 403


class TestKeys:
    def test_they_are_looked_up_once(self, issuer: Issuer) -> None:
        async def often(checker: TokenVerifier) -> None:
            await asyncio.gather(*(checker.verify(issuer.token(f"u-{i}")) for i in range(20)))

        run(verifier(issuer), often)
        assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]

    def test_a_rotation_is_noticed_by_the_first_token_with_the_new_key(self, issuer: Issuer) -> None:
        clock = Clock()

        async def work(checker: TokenVerifier) -> None:
            old = issuer.token("u-1")
            await checker.verify(old)
            issuer.rotate("second", "ES256")
            clock.now += 31
            assert (await checker.verify(issuer.token("u-1", algorithm="ES256"))).owner.endswith(":u-1")
            with pytest.raises(AccessDenied):
                await checker.verify(old)

        run(verifier(issuer, clock), work)

    def test_a_withdrawn_key_is_forgotten_within_the_hour(self, issuer: Issuer) -> None:
        clock = Clock()

        async def work(checker: TokenVerifier) -> None:
            token = issuer.token("u-1")
            await checker.verify(token)
            issuer.published.clear()
            clock.now += 3601
            with pytest.raises(AccessDenied) as caught:
                await checker.verify(token)
            assert caught.value.status == 401

        run(verifier(issuer, clock), work)

    def test_invented_keys_do_not_make_us_hammer_the_issuer(self, issuer: Issuer) -> None:
        async def work(checker: TokenVerifier) -> None:
            await checker.verify(issuer.token())
            for number in range(50):
                with pytest.raises(AccessDenied):
                    await checker.verify(issuer.token(headers={"kid": f"invented-{number}"}))

        run(verifier(issuer), work)
        assert len(issuer.asked) == 2

    def test_known_keys_outlast_an_issuer_that_is_away_for_a_while(self, issuer: Issuer) -> None:
        clock = Clock()

        async def work(checker: TokenVerifier) -> None:
            await checker.verify(issuer.token())
            issuer.down = True
            clock.now += 7200
            assert (await checker.verify(issuer.token())).owner
            clock.now += 86400
            with pytest.raises(AccessDenied) as caught:
                await checker.verify(issuer.token())
            assert (caught.value.status, caught.value.retry_after) == (503, 15.0)

        run(verifier(issuer, clock), work)

    def test_known_keys_wait_for_no_issuer_that_hangs(self) -> None:
        clock, issuer = Clock(), HangingIssuer()

        async def work() -> None:
            keys = KeySet("https://issuer.example", transport=httpx.MockTransport(issuer), clock=clock)
            assert await keys.candidates("1", "ES256")
            issuer.hangs = True
            clock.now += 3700
            looks = issuer.looks
            assert await seconds_for(keys, at_once=5) < issuer.SECONDS / 2
            assert issuer.looks == looks + 1, "all share one look"
            await asyncio.sleep(issuer.SECONDS)
            clock.now += 31
            assert await seconds_for(keys, at_once=5) < 0.2, "it is known to hang"
            await asyncio.sleep(issuer.SECONDS)
            issuer.hangs = False
            clock.now += 31
            await seconds_for(keys)
            await asyncio.sleep(0.1)
            clock.now += 3500
            looks = issuer.looks
            await seconds_for(keys)
            assert issuer.looks == looks, "what came beside is new for an hour"
            await keys.aclose()

        asyncio.run(work())

    def test_an_unknown_key_waits_for_the_look_even_of_another_who_has_gone(self) -> None:
        clock, issuer = Clock(), HangingIssuer()

        async def work() -> None:
            keys = KeySet("https://issuer.example", transport=httpx.MockTransport(issuer), clock=clock)
            impatient = asyncio.create_task(keys.candidates("1", "ES256"))
            await asyncio.sleep(0)
            patient = asyncio.create_task(keys.candidates("1", "ES256"))
            await asyncio.sleep(0)
            impatient.cancel()
            assert await patient
            assert issuer.looks == 1
            await keys.aclose()

        asyncio.run(work())

    def test_closing_ends_a_look_in_progress(self) -> None:
        issuer = HangingIssuer()
        issuer.hangs = True

        async def work() -> None:
            keys = KeySet("https://issuer.example", transport=httpx.MockTransport(issuer))
            waiting = asyncio.create_task(keys.candidates("1", "ES256"))
            await asyncio.sleep(0.05)
            await keys.aclose()
            with pytest.raises(ProviderDownError):
                await waiting
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(work())

    @pytest.mark.parametrize("published", ["text", [1], [{"kty": "EC"}, "text"], None], ids=str)
    def test_documents_of_any_form_do_no_harm_to_known_keys(self, issuer: Issuer, published: Any) -> None:
        clock = Clock()

        async def work(checker: TokenVerifier) -> None:
            await checker.verify(issuer.token())
            issuer.published = published
            clock.now += 3601
            assert (await checker.verify(issuer.token())).owner

        run(verifier(issuer, clock), work)

    def test_an_issuer_that_was_never_there_is_no_fault_of_the_token(self, issuer: Issuer) -> None:
        issuer.down = True
        assert refusal(issuer, issuer.token()).code == "identity-provider-down"

    def test_it_recovers_when_the_issuer_comes_back(self, issuer: Issuer) -> None:
        clock = Clock()

        async def work(checker: TokenVerifier) -> None:
            issuer.down = True
            with pytest.raises(AccessDenied):
                await checker.verify(issuer.token())
            issuer.down = False
            clock.now += 31
            assert (await checker.verify(issuer.token())).owner

        run(verifier(issuer, clock), work)

    def test_a_document_of_another_issuer_is_not_believed(self, issuer: Issuer) -> None:
        issuer.claimed_issuer = "https://other.example"
        assert refusal(issuer, issuer.token()).status == 503

    def test_keys_do_not_come_over_an_open_line(self, issuer: Issuer) -> None:
        issuer.jwks_uri = "http://keys.example/keys"
        assert refusal(issuer, issuer.token()).status == 503
