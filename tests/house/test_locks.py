"""The locks: every package by version and by hash, no addresses, one set of versions for all layers."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LAYERS = sorted((ROOT / "requirements").glob("*.txt"))
# Each has an environment that nothing else is installed into.
APART = {"triton", "policies", "moto", "docs"}
PIN = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==(?P<version>[^\s;\\]+)", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


def entries(lock: Path) -> list[str]:
    """Each requirement of a lock with its continuation lines, comments left out."""
    lines = [
        line for line in lock.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def pins(lock: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for pin in PIN.finditer(lock.read_text()):
        found.setdefault(canonicalize_name(pin["name"]), set()).add(pin["version"])
    return found


@pytest.mark.parametrize("lock", LAYERS, ids=lambda p: p.stem)
def test_every_entry_is_pinned_and_hashed(lock: Path) -> None:
    assert entries(lock)
    assert [entry for entry in entries(lock) if not (PIN.match(entry) and HASH.search(entry))] == []


@pytest.mark.parametrize("lock", LAYERS, ids=lambda p: p.stem)
def test_a_lock_holds_no_address(lock: Path) -> None:
    assert not re.search(r"://|--index-url|--extra-index-url|--find-links|file:", lock.read_text())


@pytest.mark.parametrize("lock", LAYERS, ids=lambda p: p.stem)
def test_a_lock_holds_neither_pytorch_nor_cuda(lock: Path) -> None:
    heavy = {name for name in pins(lock) if name == "torch" or name.startswith(("nvidia-cu", "nvidia-nccl"))}
    assert heavy == set()


@pytest.mark.parametrize("lock", [p for p in LAYERS if p.stem not in APART], ids=lambda p: p.stem)
def test_layers_share_the_versions_of_the_runtime(lock: Path) -> None:
    runtime = pins(ROOT / "requirements/runtime.txt")
    differing = {
        name: (versions, runtime[name])
        for name, versions in pins(lock).items()
        if name in runtime and versions != runtime[name]
    }
    assert differing == {}


def test_the_locks_satisfy_what_the_project_asks_for() -> None:
    asked = runpy.run_path(str(ROOT / "requirements/lock.py"))["LAYERS"]
    for layer, requirements in asked.items():
        locked = pins(ROOT / f"requirements/{layer}.txt")
        for requirement in map(Requirement, requirements):
            versions = locked[canonicalize_name(requirement.name)]
            assert all(requirement.specifier.contains(v, prereleases=True) for v in versions), requirement


def test_pytorch_is_pinned_where_it_is_asked_for() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = [r for requirements in extras.values() for r in requirements if r.startswith("torch")]
    assert asked
    assert all(re.fullmatch(r"torch==[\d.]+", r) for r in asked)
