"""Files in, files out: NIfTI, BIDS names, DICOM folders, results."""

from qsm_ai.io.loading import load_scan
from qsm_ai.io.outputs import write_outputs
from qsm_ai.io.source import Limits, SourceFile

__all__ = ["Limits", "SourceFile", "load_scan", "write_outputs"]
