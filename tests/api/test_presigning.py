"""Addresses at the store are given where they can be signed, and not where they cannot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import structlog
from obstore.store import S3Store

from qsm_ai.api.presigning import Presigner

if TYPE_CHECKING:
    from obstore.store import S3Credential

KEYS = {"AWS_ACCESS_KEY_ID": "a" * 16, "AWS_SECRET_ACCESS_KEY": "b" * 16, "AWS_REGION": "us-east-1"}


class Credentials:
    """They come from somewhere that may refuse, as Google's metadata server and Amazon's do."""

    def __init__(self) -> None:
        self.refuse = True

    def __call__(self) -> S3Credential:
        if self.refuse:
            raise PermissionError("signBlob")
        return {"access_key_id": "a" * 16, "secret_access_key": "b" * 16, "expires_at": None}


def test_who_cannot_sign_has_no_address_and_says_so_once() -> None:
    credentials = Credentials()
    presigner = Presigner(S3Store("bucket", region="us-east-1", credential_provider=credentials), 60.0)

    async def sign() -> str | None:
        return await presigner.sign("PUT", "uploads/a/content")

    with structlog.testing.capture_logs() as logged:
        assert [asyncio.run(sign()) for _ in range(3)] == [None] * 3
    assert [entry["event"] for entry in logged] == ["presigning.refused"]
    credentials.refuse = False
    assert (asyncio.run(sign()) or "").startswith("https://")


@pytest.mark.parametrize("endpoint", [None, "http://store.example:9000"])
def test_variables_that_are_set_to_nothing_are_as_if_not_set(
    monkeypatch: pytest.MonkeyPatch, endpoint: str | None
) -> None:
    empty = dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN", "AWS_ALLOW_HTTP"), "")
    for name, value in {**KEYS, **empty}.items():
        monkeypatch.setenv(name, value)
    presigner = Presigner.from_url("s3://bucket", lifetime=60.0, endpoint=endpoint)
    signed = asyncio.run(presigner.sign("GET", "x")) or ""
    assert signed.startswith(endpoint or "https://s3.us-east-1.amazonaws.com/")
    assert "Security-Token" not in signed


@pytest.mark.parametrize("url", ["/data/objects", "file:///data/objects", "memory:///"])
def test_a_folder_has_no_addresses(url: str) -> None:
    presigner = Presigner.from_url(url, lifetime=60.0)
    assert not presigner.can_sign
    assert asyncio.run(presigner.sign("GET", "x")) is None
