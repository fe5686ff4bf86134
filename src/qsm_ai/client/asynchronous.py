"""The client for asyncio: the same methods as ``Client``, to be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import httpx

from qsm_ai.client import operations
from qsm_ai.client.blocking import PIECE, address_of, headers_for
from qsm_ai.client.exchange import (
    Listen,
    NextLine,
    Operation,
    Part,
    Pause,
    Save,
    Send,
    Tell,
    Wish,
    arguments,
    is_elsewhere,
    media_type,
    timeouts,
)
from qsm_ai.client.operations import Interrupted, PathLike
from qsm_ai.client.records import Job, State
from qsm_ai.client.retrying import Retrying

Result = TypeVar("Result")


class AsyncClient:
    """As :class:`qsm_ai.client.Client`, whose methods are described there.

    Parameters
    ----------
    url, api_key, timeout, headers, retrying
        As those of ``Client``.
    most_connections : int or None
        At once; further requests wait.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        headers: Mapping[str, str] | None = None,
        retrying: Retrying | None = None,
        most_connections: int | None = 100,
    ) -> None:
        limits = httpx.Limits(max_connections=most_connections, max_keepalive_connections=most_connections)
        self._http = httpx.AsyncClient(
            base_url=address_of(url),
            timeout=timeouts(timeout),
            headers=headers_for(api_key, headers),
            limits=limits,
        )
        self._plain = httpx.AsyncClient(timeout=timeouts(timeout), follow_redirects=True, limits=limits)
        self._retrying = retrying or Retrying()
        self._longest_wait = min(operations.LONGEST_WAIT, timeout / 2)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()
        await self._plain.aclose()

    async def readiness(self) -> dict[str, str | None]:
        """As ``Client.readiness``."""
        return await self._run(operations.readiness())

    async def submit(
        self,
        *,
        phase: Sequence[PathLike] = (),
        magnitude: Sequence[PathLike] = (),
        mask: PathLike | None = None,
        sidecars: Sequence[PathLike] = (),
        total_field: PathLike | None = None,
        local_field: PathLike | None = None,
        te_ms: Sequence[float] = (),
        b0: float | None = None,
        b0_direction: Sequence[float] | None = None,
        idempotency_key: str | None = None,
        upload_first: bool = False,
        **choices: str,
    ) -> Job:
        """As ``Client.submit``."""
        files = operations.scan_files(phase, magnitude, mask, sidecars, total_field, local_field)
        fields = operations.scan_fields(te_ms, b0, b0_direction, choices)
        return await self._run(
            operations.submit(
                files, fields, key=idempotency_key, before=upload_first, retrying=self._retrying
            )
        )

    async def job(self, job_id: str) -> Job:
        """As ``Client.job``."""
        return await self._run(operations.show(job_id, self._retrying))

    def jobs(self, state: State | None = None) -> AsyncIterator[Job]:
        """As ``Client.jobs``."""
        return self._tell(operations.every(state, self._retrying))

    def follow(self, job_id: str) -> AsyncIterator[Job]:
        """As ``Client.follow``."""
        return self._tell(operations.follow(job_id, self._retrying))

    async def wait(self, job_id: str, timeout: float = 3600.0) -> Job:  # noqa: ASYNC109 - as the other client
        """As ``Client.wait``."""
        return await self._run(operations.wait(job_id, timeout, self._longest_wait, self._retrying))

    async def cancel(self, job_id: str) -> Job:
        """As ``Client.cancel``."""
        return await self._run(operations.act(job_id, "cancel", self._retrying))

    async def retry(self, job_id: str) -> Job:
        """As ``Client.retry``."""
        return await self._run(operations.act(job_id, "retry", self._retrying))

    async def delete(self, job_id: str) -> None:
        """As ``Client.delete``."""
        await self._run(operations.delete(job_id, self._retrying))

    async def fetch(self, job_id: str, name: str, path: PathLike, *, direct: bool = False) -> Path:
        """As ``Client.fetch``."""
        return await self._run(operations.fetch(job_id, name, path, direct, self._retrying))

    async def slice(
        self,
        job_id: str,
        artefact: str = "chi",
        *,
        axis: Literal["sagittal", "coronal", "axial"] = "axial",
        index: int | None = None,
        window: tuple[float, float] | None = None,
    ) -> bytes:
        """As ``Client.slice``."""
        return await self._run(operations.look(job_id, artefact, axis, index, window, self._retrying))

    # ------------------------------------------------------------------ carrying out

    async def _run(self, operation: Operation[Result]) -> Result:
        async with AsyncExitStack() as streams:
            lines: AsyncIterator[str] | None = None
            try:
                wish = next(operation)
                while True:
                    try:
                        outcome, lines = await self._do(wish, lines, streams)
                    except (httpx.HTTPError, OSError) as error:
                        wish = operation.throw(error)
                    else:
                        wish = operation.send(outcome)
            except StopIteration as end:
                result: Result = end.value
                return result
            finally:
                operation.close()

    async def _tell(self, operation: Operation[None]) -> AsyncIterator[Any]:
        async with AsyncExitStack() as streams:
            lines: AsyncIterator[str] | None = None
            try:
                wish = next(operation)
                while True:
                    outcome: Any = None
                    if isinstance(wish, Tell):
                        yield wish.value
                    else:
                        try:
                            outcome, lines = await self._do(wish, lines, streams)
                        except httpx.HTTPError as error:
                            wish = operation.throw(error)
                            continue
                    wish = operation.send(outcome)
            except StopIteration:
                return

    async def _do(
        self, wish: Wish, lines: AsyncIterator[str] | None, streams: AsyncExitStack
    ) -> tuple[Any, AsyncIterator[str] | None]:
        if isinstance(wish, Send):
            return await self._send(wish), lines
        if isinstance(wish, Save):
            return await self._save(wish), lines
        if isinstance(wish, Pause):
            await asyncio.sleep(wish.seconds)
            return None, lines
        if isinstance(wish, NextLine):
            return (None if lines is None else await anext(lines, None)), lines
        if isinstance(wish, Listen):
            await streams.aclose()
            timeout = httpx.Timeout(60.0, read=wish.silence)
            answer = await streams.enter_async_context(
                self._http.stream("GET", wish.address, headers=dict(wish.headers), timeout=timeout)
            )
            return answer, answer.aiter_lines()
        raise TypeError(wish)

    async def _send(self, wish: Send) -> httpx.Response:
        http = self._plain if is_elsewhere(wish.address) else self._http
        async with AsyncExitStack() as stack:
            given = arguments(wish)
            if wish.files:
                given["files"] = [
                    (role, (path.name, stack.enter_context(path.open("rb")), media_type(path)))
                    for role, path in wish.files
                ]
            if wish.body is not None:
                given["content"] = _read(wish.body)
                given.setdefault("headers", {})["Content-Length"] = str(wish.body.size)
            return await http.request(wish.method, wish.address, **given)

    async def _save(self, wish: Save) -> httpx.Response:
        asked = self._http.build_request("GET", wish.address, headers=dict(wish.headers), params=wish.query)
        answer = await self._http.send(asked, stream=True)
        if answer.is_redirect:
            await answer.aclose()
            headers = {name: value for name, value in wish.headers.items() if name == "Range"}
            asked = self._plain.build_request("GET", answer.headers["location"], headers=headers)
            answer = await self._plain.send(asked, stream=True)
        try:
            if not answer.is_success:
                await answer.aread()
                return answer
            try:
                with wish.path.open("ab" if "content-range" in answer.headers else "wb") as file:
                    async for piece in answer.aiter_raw():
                        await asyncio.to_thread(file.write, piece)
            except httpx.HTTPError as error:
                raise Interrupted(error, answer.headers.get("etag")) from error
            return answer
        finally:
            await answer.aclose()


async def _read(body: Part) -> AsyncIterator[bytes]:
    with body.path.open("rb") as file:
        file.seek(body.start)
        left = body.size
        while left and (piece := file.read(min(PIECE, left))):
            left -= len(piece)
            yield piece
