"""Users as logs may name them."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

_key = secrets.token_bytes(32)


def set_user_key(key: bytes) -> None:
    """Set the secret with which users are hashed; without it every process draws its own."""
    global _key  # noqa: PLW0603 - one for the whole process, set before the first request
    _key = key


def use_key(stated: str | None, folder: Path) -> None:
    """Set the secret for this process: the one stated, or one that is kept in a folder.

    Parameters
    ----------
    stated : str or None
    folder : Path

    Raises
    ------
    OSError
        When none is stated and none can be kept.
    """
    set_user_key(stated.encode() if stated else kept_key(folder / "log-user.key"))


def user_tag(owner: str) -> str:
    """The same in every line for the same user; without the key nobody can tell who it is, or try names.

    Parameters
    ----------
    owner : str

    Returns
    -------
    str
        48 bits of HMAC-SHA256, in hexadecimal.
    """
    return hmac.new(_key, owner.encode(), hashlib.sha256).hexdigest()[:12]


def kept_key(path: Path) -> bytes:
    """The secret in a file that only its owner may read; drawn and written when there is none.

    Parameters
    ----------
    path : Path

    Returns
    -------
    bytes

    Raises
    ------
    OSError
        When it can be neither read nor written.
    """
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
    return path.read_bytes().strip()
