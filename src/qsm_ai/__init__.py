"""QSM-AI: quantitative susceptibility maps from the phase of a multi-echo gradient-echo MRI scan."""

from importlib.metadata import version

__version__ = version("qsm-ai")
