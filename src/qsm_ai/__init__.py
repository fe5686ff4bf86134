"""QSM-AI: quantitative susceptibility maps from the phase of a multi-echo gradient-echo MRI scan."""

__version__: str


def __getattr__(name: str) -> str:
    # Looked up when it is asked for, so that the program can be interrupted as soon as it is called.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("qsm-ai")
