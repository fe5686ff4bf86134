"""Spans for work that tells which step it is at, and knows nothing of spans."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from qsm_ai.observe.tracing import span


class Steps:
    """One span per step, the current one until the next begins; a context manager ends the last.

    Parameters
    ----------
    prefix : str
        Before the names of the spans.

    Examples
    --------
    >>> with Steps("stage") as steps:
    ...     steps.at("mask")
    ...     steps.at("mask")
    ...     steps.at("background")
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._step: str | None = None
        self._open = ExitStack()

    def at(self, step: str) -> None:
        """Say at which step the work is; the same one again changes nothing."""
        if step == self._step:
            return
        self._open.close()
        self._step = step
        self._open.enter_context(span(f"{self._prefix}.{step}"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
