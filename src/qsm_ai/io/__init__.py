"""Files in, files out: NIfTI, BIDS names, DICOM folders, results."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qsm_ai.io.loading import load_scan
    from qsm_ai.io.outputs import write_outputs
    from qsm_ai.io.source import Limits, SourceFile

__all__ = ["Limits", "SourceFile", "load_scan", "write_outputs"]

_PLACES = {"Limits": "source", "SourceFile": "source", "load_scan": "loading", "write_outputs": "outputs"}


def __getattr__(name: str) -> Any:
    # Looked up when it is asked for: who needs a name taken apart need not wait for SciPy.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
