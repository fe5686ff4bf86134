"""A real OpenID Connect issuer, and a real backend that lets in by key and by token."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpx
import jwt
import pytest
from backend_process import BackendProcess
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from qsm_ai.access.identity import Role
from qsm_ai.access.keys import KeyStore
from qsm_ai.inference.ports import any_free
from qsm_ai.jobs.database import Database

AUDIENCE = "qsm-ai"
CLIENT_SECRET = "known to the page and the issuer"  # noqa: S105 - of an issuer that lives for a test

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key(number: int) -> rsa.RSAPrivateKey:
    """The same for the same number: making one takes a while."""
    return rsa.generate_private_key(65537, 2048)


def make_key(algorithm: str, number: int) -> PrivateKey:
    """A private key for an algorithm."""
    if algorithm.startswith("ES"):
        return ec.generate_private_key({"256": ec.SECP256R1(), "384": ec.SECP384R1()}[algorithm[2:]])
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa_key(number)


def as_jwk(key: PrivateKey, kid: str | None, algorithm: str | None, family: str) -> dict[str, Any]:
    """The public half, as an issuer publishes it."""
    document: dict[str, Any] = jwt.get_algorithm_by_name(family).to_jwk(key.public_key(), as_dict=True)
    document["use"] = "sig"
    if kid is not None:
        document["kid"] = kid
    if algorithm is not None:
        document["alg"] = algorithm
    return document


class Issuer:
    """An identity provider on this machine: discovery, keys that change, tokens."""

    def __init__(self) -> None:
        self.port = any_free()
        self.url = f"http://127.0.0.1:{self.port}"
        self.claimed_issuer = self.url
        self.jwks_uri = f"{self.url}/keys"
        self.down = False
        self.asked: list[str] = []
        self.codes: dict[str, str] = {}
        self.person = "u-1"
        self.lifetime = 600.0
        self.keys: dict[str, PrivateKey] = {}
        self.published: list[dict[str, Any]] = []
        self.rotate("first", number=0)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path.partition("?")[0])
                if self.path.startswith("/authorize?"):
                    self.send_response(302)
                    self.send_header("Location", outer.authorize(self.path.partition("?")[2]))
                    self.end_headers()
                    return
                documents: dict[str, Any] = {
                    "/.well-known/openid-configuration": {
                        "issuer": outer.claimed_issuer,
                        "jwks_uri": outer.jwks_uri,
                        "authorization_endpoint": f"{outer.url}/authorize",
                        "token_endpoint": f"{outer.url}/token",
                        "response_types_supported": ["code"],
                        "code_challenge_methods_supported": ["S256"],
                    },
                    "/keys": {"keys": outer.published},
                }
                found = None if outer.down else documents.get(self.path)
                self.answer(500 if outer.down else 404 if found is None else 200, found)

            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.answer(200, outer.redeem(dict(parse_qsl(sent)), self.headers["Authorization"]))

            def answer(self, status: int, document: Any) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def rotate(
        self, kid: str, algorithm: str = "RS256", *, name_algorithm: bool = True, number: int = 1
    ) -> None:
        """Publish one new key instead of all old ones."""
        self.keys = {kid: make_key(algorithm, number)}
        self.published = [as_jwk(self.keys[kid], kid, algorithm if name_algorithm else None, algorithm)]

    def authorize(self, query: str) -> str:
        """Let whoever is at the browser in, as ``person``; where the browser is to go."""
        asked = dict(parse_qsl(query))
        assert asked["response_type"] == "code"
        assert asked["client_id"] == AUDIENCE
        code = secrets.token_hex(16)
        self.codes[code] = asked["nonce"]
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def redeem(self, sent: dict[str, str], authorization: str | None) -> dict[str, Any]:
        """Tokens for a code, once, for the page that knows the secret."""
        given = base64.b64decode((authorization or "").removeprefix("Basic ")).decode()
        assert given == f"{AUDIENCE}:{CLIENT_SECRET}" or sent.get("client_secret") == CLIENT_SECRET
        nonce = self.codes.pop(sent["code"])
        token = self.token(
            self.person, nonce=nonce, name=f"Dr {self.person}", exp=time.time() + self.lifetime
        )
        return {"id_token": token, "access_token": "opaque", "token_type": "Bearer", "expires_in": 600}

    def token(
        self,
        subject: str = "u-1",
        *,
        kid: str | None = None,
        algorithm: str = "RS256",
        key: Any = None,
        headers: dict[str, Any] | None = None,
        drop: tuple[str, ...] = (),
        **claims: Any,
    ) -> str:
        """A token; whatever is given replaces what would be right."""
        now = time.time()
        right = {"iss": self.url, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 600}
        payload = {name: value for name, value in {**right, **claims}.items() if name not in drop}
        kid = kid or next(iter(self.keys))
        signer = key if key is not None else self.keys[kid]
        return jwt.encode(payload, signer, algorithm, {"kid": kid, **(headers or {})})


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    running = Issuer()
    yield running
    running.close()


@pytest.fixture(scope="module")
def module_issuer() -> Iterator[Issuer]:
    running = Issuer()
    yield running
    running.close()


class Backend(BackendProcess):
    """A backend, and keys for it."""

    patience = 180.0

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        super().__init__(folder, {"QSM_TRITON_PATIENCE_S": "0", **settings})

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``qsm-ai``, with the backend's own settings."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("qsm-ai")), *arguments],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def key(self, owner: str, role: Role = Role.USER, lifetime: float | None = 3600.0) -> str:
        """A new key, in the database that the backend uses."""
        database = Database(f"sqlite:///{self.folder / 'data' / 'jobs.db'}")
        try:
            return KeyStore(database).create(owner, role=role, lifetime=lifetime)[1]
        finally:
            database.close()

    def client(self, credentials: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {credentials}"} if credentials else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)


StartBackend = Callable[..., AbstractContextManager[Backend]]


@pytest.fixture(scope="session")
def start_backend(tmp_path_factory: pytest.TempPathFactory) -> StartBackend:
    @contextmanager
    def start(**settings: str) -> Iterator[Backend]:
        backend = Backend(tmp_path_factory.mktemp("backend"), settings)
        backend.start()
        try:
            yield backend
        finally:
            backend.stop()

    return start
