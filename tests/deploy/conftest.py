"""What the deployment's tests share: the tree, free ports, tools that may be missing."""

import os
import random
import shutil
import socket
import subprocess
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


@pytest.fixture(scope="session")
def plugins() -> str:
    """Where Terraform's providers lie on a machine without a way to their registry."""
    if folder := os.environ.get("TERRAFORM_PLUGIN_DIR"):
        return folder
    # Some machines have a command that says where.
    data = os.environ.get("QSM_SHARED_DATA")
    nearby = [Path(data).parent / "bin"] if data else []
    nearby.append(DEPLOY.parents[1] / "shared" / "bin")
    for place in nearby:
        finder = place / "terraform-mirror"
        if finder.is_file():
            found = subprocess.run([str(finder)], capture_output=True, text=True, check=False).stdout.strip()
            if found:
                return found
    pytest.skip("no folder of Terraform providers: set TERRAFORM_PLUGIN_DIR")
