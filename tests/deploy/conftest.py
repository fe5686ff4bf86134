"""What the deployment's tests share: the tree, free ports, tools that may be missing."""

import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="session")
def deploy() -> Path:
    """The folder of everything that ships the service."""
    return DEPLOY


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Path of a command, or a skip that says how to get it."""

    def find(command: str, *, get: str = "") -> str:
        found = shutil.which(command) or shutil.which(command, path="/usr/sbin:/usr/local/sbin")
        if found is None:
            pytest.skip(f"{command} is not installed{': ' + get if get else ''}")
        return found

    return find


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A port that nobody listens on, below the range that the kernel hands out."""

    def find() -> int:
        for port in random.sample(range(20000, 32000), 200):
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
        raise RuntimeError("no free port")

    return find
