"""The network on a Triton server, asked over gRPC."""

from __future__ import annotations

import asyncio
import queue
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qsm_ai.inference.answers import MEND, check_answer, check_patches
from qsm_ai.inference.errors import (
    BadAnswer,
    InferenceFailure,
    RuntimeMissing,
    TritonModelDied,
    TritonModelMissing,
    TritonRefused,
    TritonTimeout,
    TritonUnavailable,
)
from qsm_ai.inference.grpc_loop import submit
from qsm_ai.inference.repository import MODEL, WEIGHTS

INPUT = "patches"
OUTPUT = "correction"

CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Behind a headless service every pod gets its share; a name with one address behaves as ever.
    ("grpc.lb_policy_name", "round_robin"),
    # Triton is on this machine or on a private network: no proxy between.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]


class TritonNetwork:
    """A network on a Triton server. Safe to share between threads and event loops.

    Patches go one by one, so that the server can join those of different users into a batch, and no more than
    ``max_in_flight`` of them wait there at once, whoever in this process asks: the rest waits here, in turn.

    Parameters
    ----------
    url : str
        ``host:port`` of Triton's gRPC, or ``dns:///name:port``.
    model : str
    version : str
        The newest when empty.
    client_timeout : float
        Seconds for one patch, waiting in the server's queue included.
    deadline : float
        Seconds for one call of ``predict``.
    max_in_flight : int
        Patches under way at once.
    attempts : int
        How often a patch is tried while nobody answers. Only that is tried again: a patch that timed out may
        still be in work, and asking once more would make it worse.
    backoff : float
        Seconds before the second attempt; doubled each time, with jitter.
    on_call : callable
        Told how each request for a patch ended (``ok``, or gRPC's status) and after how many seconds, on the
        thread of the connection.

    Raises
    ------
    RuntimeMissing
        When tritonclient is not installed.
    """

    def __init__(
        self,
        url: str = "127.0.0.1:8001",
        *,
        model: str = MODEL,
        version: str = "",
        client_timeout: float = 60.0,
        deadline: float = 900.0,
        max_in_flight: int = 4,
        attempts: int = 4,
        backoff: float = 0.2,
        on_call: Callable[[str, float], None] = lambda _outcome, _seconds: None,
    ) -> None:
        try:
            from tritonclient.grpc import aio

            from qsm_ai.observe import tracing
        except ImportError:
            raise RuntimeMissing(
                "The client of Triton is not installed.",
                mend="Install qsm-ai[api], or reconstruct in process (qsm-ai[local]).",
            ) from None
        self._aio = aio
        self._tracing = tracing
        self._on_call = on_call
        self._url = url
        self._model = model
        self._version = version
        self._client_timeout = client_timeout
        self._deadline = deadline
        self._attempts = attempts
        self._backoff = backoff
        self._slots = asyncio.Semaphore(max_in_flight)
        self._max_in_flight = max_in_flight
        self._client: Any = None
        self._patch_shape: tuple[int, ...] | None = None
        self._name = f"{model} on Triton"

    @property
    def name(self) -> str:
        """Model, version and server; the last two are known after the first answer."""
        return self._name

    def predict(
        self, patches: NDArray[np.float32], on_patch: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Corrections for a stack of patches; the calling thread waits.

        Parameters
        ----------
        patches : (N, C, P, P, P) float32
        on_patch : callable
            Told the number of patches done so far, in the calling thread. What it raises ends the call, and
            what is under way is cancelled.

        Returns
        -------
        (N, 1, P, P, P) float32

        Raises
        ------
        ValueError
            When the patches have another shape than the model's.
        InferenceFailure
            See ``inference.errors``.
        """
        progress: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        future = self._start(patches, progress.put)
        try:
            while (done := progress.get()) is not None:
                if on_patch:
                    on_patch(done)
            return future.result()
        finally:
            future.cancel()

    async def check(self, within: float = 2.0) -> None:
        """Find out whether the model can be asked.

        Parameters
        ----------
        within : float
            Seconds for the answer.

        Raises
        ------
        TritonUnavailable, TritonTimeout, TritonModelMissing
            Why not.
        """
        await asyncio.wrap_future(submit(self._check(within)))

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        submit(self._close()).result()

    async def aclose(self) -> None:
        """Close the connection without blocking the event loop; a later call opens it again."""
        await asyncio.wrap_future(submit(self._close()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What follows runs on the gRPC loop.

    def _start(
        self, patches: NDArray[np.float32], tell: Callable[[int | None], None]
    ) -> Future[NDArray[np.float32]]:
        check_patches(patches, self._patch_shape)
        future = submit(self._predict(patches, tell))
        future.add_done_callback(lambda _: tell(None))
        return future

    async def _predict(
        self, patches: NDArray[np.float32], tell: Callable[[int | None], None]
    ) -> NDArray[np.float32]:
        corrections = np.empty((len(patches), 1, *patches.shape[2:]), np.float32)
        waiting = iter(range(len(patches)))
        done = 0

        async def work(indices: Iterator[int]) -> None:
            nonlocal done
            for index in indices:
                corrections[index] = (await self._ask(patches[index : index + 1]))[0]
                done += 1
                tell(done)

        try:
            async with asyncio.timeout(self._deadline):
                await self._learn()
                check_patches(patches, self._patch_shape)
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._max_in_flight, len(patches))):
                        group.create_task(work(waiting))
        except TimeoutError:
            raise TritonTimeout(
                f"The network had done {done} of {len(patches)} patches after {self._deadline:.0f} s.",
                mend="Try again when fewer scans are waiting, or raise the deadline.",
            ) from None
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return corrections

    async def _ask(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        asked = self._aio.InferInput(INPUT, list(patch.shape), "FP32")
        async with self._slots:
            asked.set_data_from_numpy(np.ascontiguousarray(patch, np.float32))
            answer = await self._patiently(lambda client: self._infer(client, asked))
        try:
            correction = answer.as_numpy(OUTPUT)
        except ValueError:
            raise BadAnswer("The network's answer is shorter than it says.", mend=MEND) from None
        return check_answer(patch, correction)

    async def _infer(self, client: Any, asked: Any) -> Any:
        began, outcome = time.perf_counter(), "cancelled"
        # The spans of a Triton that exports any hang below this one.
        with self._tracing.span("triton.infer", kind=self._tracing.SpanKind.CLIENT, model=self._model):
            try:
                answer = await client.infer(
                    self._model,
                    [asked],
                    model_version=self._version,
                    client_timeout=self._client_timeout,
                    headers=self._tracing.carry() or None,
                )
            except self._error as error:
                outcome = _status(error).lower()
                raise
            else:
                outcome = "ok"
                return answer
            finally:
                self._on_call(outcome, time.perf_counter() - began)

    async def _learn(self) -> None:
        """Ask once what the model takes, and which server this is."""
        if self._patch_shape is not None:
            return
        timeout = min(10.0, self._client_timeout)
        model = await self._patiently(
            lambda client: client.get_model_metadata(self._model, self._version, client_timeout=timeout)
        )
        server = await self._patiently(lambda client: client.get_server_metadata(client_timeout=timeout))
        answer = await self._patiently(
            lambda client: client.get_model_config(self._model, self._version, client_timeout=timeout)
        )
        shapes = {tensor.name: tuple(tensor.shape)[1:] for tensor in model.inputs}
        if INPUT not in shapes or OUTPUT not in {tensor.name for tensor in model.outputs}:
            raise TritonRefused(
                f"The server's {self._model} does not take '{INPUT}' and give '{OUTPUT}'.",
                mend="Serve the model repository of this version of qsm-ai.",
            )
        self._patch_shape = shapes[INPUT]
        version = self._version or max(model.versions, key=int, default="?")
        told = answer.config.parameters
        weights = f" {told[WEIGHTS].string_value}," if WEIGHTS in told else ""
        self._name = f"{self._model}{weights} version {version} on Triton {server.version} ({model.platform})"

    async def _check(self, within: float) -> None:
        client = self._connect()
        try:
            ready = await client.is_model_ready(self._model, self._version, client_timeout=within)
        except self._error as error:
            raise self._explain(error) from None
        if not ready:
            raise self._missing()

    async def _patiently(self, call: Callable[[Any], Any]) -> Any:
        """Try again, with growing and irregular pauses, while nobody answers."""
        for attempt in range(self._attempts):
            try:
                return await call(self._connect())
            except self._error as error:
                failure = self._explain(error)
                may_come = isinstance(failure, TritonUnavailable) and not isinstance(failure, TritonModelDied)
                if not may_come or attempt + 1 == self._attempts:
                    raise failure from None
            pause = self._backoff * 2**attempt
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter
        raise AssertionError("unreachable")  # pragma: no cover

    def _connect(self) -> Any:
        if self._client is None:
            self._client = self._aio.InferenceServerClient(self._url, channel_args=CHANNEL)
        return self._client

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    @property
    def _error(self) -> type[Exception]:
        from tritonclient.utils import InferenceServerException

        kind: type[Exception] = InferenceServerException
        return kind

    def _missing(self) -> TritonModelMissing:
        return TritonModelMissing(
            f"The Triton server at {self._url} has not loaded {self._model}.",
            mend=f"Serve a model repository that holds {self._model}, and look into the server's log.",
        )

    def _explain(self, error: Any) -> InferenceFailure:
        status, message = _status(error), str(error.message())
        kind: type[InferenceFailure]
        match status:
            case "NOT_FOUND":
                return self._missing()
            case "UNAVAILABLE" if "unknown model" in message or "not ready" in message:
                return self._missing()
            case "UNAVAILABLE":
                kind = TritonUnavailable
                sentence = f"No Triton server answers at {self._url}."
                mend = "Start it (make up), or give the address of its gRPC port (8001 by default)."
            case "UNIMPLEMENTED":
                kind = TritonUnavailable
                sentence = f"What answers at {self._url} is no Triton server."
                mend = "Give the address of Triton's gRPC port (8001 by default)."
            case "INTERNAL" if "Stub process" in message and "not healthy" in message:
                kind = TritonModelDied
                sentence = (
                    f"The process that runs {self._model} on the Triton server at {self._url} has died."
                )
                mend = "Restart the server; if it happens again, give it more memory."
            case "DEADLINE_EXCEEDED":
                kind = TritonTimeout
                sentence = f"The Triton server at {self._url} did not answer in time."
                mend = "Try again when fewer scans are waiting, or raise the timeout."
            case _:
                kind = TritonRefused
                sentence = f"The Triton server rejects the request or failed on it ({status})."
                mend = f"It said: {' '.join(message.split())[:300]}"
        return kind(sentence, mend=mend)


def _status(error: Any) -> str:
    return str(error.status()).removeprefix("StatusCode.")
