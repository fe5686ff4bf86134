"""Which code made a number: what is computed, however it is commented."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

MAP_MAKING = ("qsm_ai.physics", "qsm_ai.reconstruction")
"""Packages on which every map depends. What invents phantoms counts with the phantom's definition."""

JUDGING = tuple(
    f"qsm_ai.reconstruction.{name}"
    for name in ("calibration", "evidence", "out_of_distribution", "quality", "stages", "uncertainty")
)
"""Modules that name, time and judge what is made, and change no map."""


@cache
def code_digest(packages: tuple[str, ...] = MAP_MAKING, without: tuple[str, ...] = JUDGING) -> str:
    """Digest of the code of packages, blind to comments, docstrings and layout.

    Parameters
    ----------
    packages : names
        Folders of modules that can be imported; none of them is.
    without : names of modules
        That do not count.

    Returns
    -------
    12 hexadecimal digits

    Raises
    ------
    ModuleNotFoundError
        If there is no such package.
    """
    digest = hashlib.sha256()
    for package in packages:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"no package {package}")
        for folder in spec.submodule_search_locations:
            for path in sorted(Path(folder).rglob("*.py")):
                module = path.relative_to(folder).with_suffix("")
                if ".".join((package, *module.parts)) in without:
                    continue
                digest.update(module.as_posix().encode())
                digest.update(bare_code(path.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:12]


def bare_code(source: str) -> str:
    """A module's code without comments and docstrings, laid out in one way.

    Parameters
    ----------
    source : str

    Returns
    -------
    str
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # Strings that stand alone: docstrings, also those of constants.
            kept = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)
