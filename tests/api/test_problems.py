"""Errors of the jobs' records are answered with what they mean to a client."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from qsm_ai.api import problems
from qsm_ai.jobs.errors import TooLargeForWorkersError, UploadGoneError


def answered(error: Exception) -> dict[str, Any]:
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    async def fail() -> None:
        raise error

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            return await client.get("/")

    answer = asyncio.run(ask())
    found: dict[str, Any] = answer.json()
    assert answer.status_code == found["status"]
    return found


@pytest.mark.parametrize(
    ("error", "status", "code", "words"),
    [
        (TooLargeForWorkersError(9000, 4096), 507, "too-large-for-workers", "9,000 MiB"),
        (UploadGoneError("a" * 32), 422, "unknown-upload", "a" * 32),
    ],
)
def test_each_has_its_status_and_code(error: Exception, status: int, code: str, words: str) -> None:
    found = answered(error)
    assert (found["status"], found["code"]) == (status, code)
    assert words in found["detail"]
