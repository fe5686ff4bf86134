"""What a measurement is worth nothing without: versions, weights, machine, date, command."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qsm_ai.inference.repository import weights_digest

PACKAGES = ("qsm-ai", "numpy", "scipy", "openvino", "qsm-ci", "qsm-forward")


def versions() -> dict[str, str]:
    """Of Python and of every package that has a part in the numbers and is installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str | int]:
    """Processor, cores that this process may use, and system; not whose machine it is."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())


def network_record(name: str, weights: Path) -> dict[str, str]:
    """Which network it was.

    Parameters
    ----------
    name : str
        As ``Network.name`` has it.
    weights : Path

    Returns
    -------
    dict
        Name, and SHA-256 of the weights.
    """
    return {"name": name, "sha256": weights_digest(weights)}


def write_record(
    path: Path, command: Sequence[str], network: Mapping[str, str] | None, **results: Any
) -> None:
    """Write what was measured as JSON, with all that is needed to measure it again.

    Parameters
    ----------
    path : Path
        Its folder is made.
    command : words
    network : mapping or None
        See :func:`network_record`.
    results : JSON values
    """
    record = {
        "command": " ".join(f'"{word}"' if " " in word else word for word in command),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "network": network,
        **results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
