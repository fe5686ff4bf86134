"""Addresses at which a client may speak to the object store itself, for a while and for one object."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import GCSStore, S3Store

from qsm_ai.storage import open_store

log = structlog.get_logger("qsm_ai.api")


class Presigner:
    """Signs addresses where the store can, and says so where it cannot.

    Parameters
    ----------
    store : obstore store
        ``None`` signs nothing.
    lifetime : s
        For which an address is good.
    """

    def __init__(self, store: Any, lifetime: float) -> None:
        self._store = store if isinstance(store, S3Store | GCSStore) else None
        self.lifetime = lifetime
        self._is_refused = False

    @classmethod
    def from_url(cls, url: str, *, lifetime: float, endpoint: str | None = None) -> Presigner:
        """For a store as ``Storage.from_url`` takes it.

        Parameters
        ----------
        url : str
        lifetime : s
            0 signs nothing.
        endpoint : str or None
            Address of the store as clients reach it, where that differs from the backend's: the signature
            holds for one host only.
        """
        if lifetime <= 0 or not url.startswith(("s3://", "gs://")):
            return cls(None, lifetime)
        return cls(open_store(url, endpoint), lifetime)

    @property
    def can_sign(self) -> bool:
        """Whether clients can speak to the store."""
        return self._store is not None

    async def sign(self, method: Literal["GET", "PUT"], key: str) -> str | None:
        """An address for one object, or ``None`` if the store has none to give.

        That is so too where the credentials cannot sign, as those of a Google service account without
        ``signBlob``: clients send to the backend then. It is logged once, until signing works again.
        """
        if self._store is None:
            return None
        try:
            signed = await obstore.sign_async(self._store, method, key, timedelta(seconds=self.lifetime))
        except BaseError as error:
            if not self._is_refused:
                log.warning("presigning.refused", error=type(error).__name__)
            self._is_refused = True
            return None
        self._is_refused = False
        return signed
