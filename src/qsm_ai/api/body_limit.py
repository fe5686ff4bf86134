"""Requests that are read into memory stay small; scans, which are not, have limits of their own."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST = 1 << 20
"""Bytes of a body that is no file."""

FILES = re.compile(r"/api/v1/(reconstruct|uploads/[^/]+/content)/?")


class BodyLimit:
    """Plain ASGI, so that streams pass through untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or FILES.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        taken = int(declared) if declared.isdigit() and int(declared) > LARGEST else 0

        async def counted() -> Message:
            nonlocal taken
            if taken > LARGEST:
                raise HTTPException(413)
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > LARGEST:
                raise HTTPException(413)
            return message

        await self._app(scope, counted, send)
