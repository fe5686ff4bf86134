"""Whether what a job needs can be reached."""

from __future__ import annotations

import asyncio

import grpc
from tritonclient.grpc import aio as triton
from tritonclient.utils import InferenceServerException

MODEL = "qsm_vit"


async def triton_trouble(url: str, timeout: float = 2.0) -> str | None:  # noqa: ASYNC109 - also the RPCs' deadline
    """Why the inference server cannot be used now.

    Parameters
    ----------
    url : str
        ``host:port`` of its gRPC.
    timeout : s

    Returns
    -------
    str or None
        One sentence; ``None`` if the server and the model are ready.
    """
    try:
        async with asyncio.timeout(timeout), triton.InferenceServerClient(url) as client:
            if not await client.is_server_ready(client_timeout=timeout):
                return "The inference server is not ready yet."
            if not await client.is_model_ready(MODEL, client_timeout=timeout):
                return f"The inference server has not loaded the model {MODEL}."
    except TimeoutError:
        return f"The inference server does not answer within {timeout:g} s."
    except (InferenceServerException, grpc.RpcError, OSError):
        return "The inference server cannot be reached."
    return None
