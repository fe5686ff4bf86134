"""What people see on a terminal: progress by stage, and refusals in one sentence."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from qsm_ai.scan import Refusal

if TYPE_CHECKING:
    from qsm_ai.reconstruction import pipeline

REFUSED = 2
FAILED = 1
CANCELLED = 130

ENDINGS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that end the program as Ctrl-C does: a request, and a terminal that was closed."""

DEBUG = "QSM_DEBUG"
"""Environment variable: set, unexpected errors show where they happened."""


class Terminal:
    """Progress on standard error: a bar where someone looks, a line per stage where not.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        console = Console(stderr=True, quiet=quiet)
        self._bar = Progress(
            TextColumn("{task.description:<46}"),
            BarColumn(bar_width=28),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", style="dim"),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._lines = not quiet and not console.is_terminal
        self._task = self._bar.add_task("", total=1.0, detail="")
        self._title = ""

    def __enter__(self) -> Terminal:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, title: str) -> None:
        """Name what is going on outside the stages."""
        self._show(title)
        self._bar.update(self._task, description=title, detail="")

    def progress(self, at: pipeline.Progress) -> None:
        """Show how far a reconstruction is."""
        self._show(at.title)
        self._bar.update(self._task, description=at.title, completed=at.fraction, detail=at.detail)

    def _show(self, title: str) -> None:
        if self._lines and title != self._title:
            typer.echo(f"{title} …", err=True)
        self._title = title


@contextmanager
def plain_errors(interrupted: str = "Cancelled; nothing was written.") -> Iterator[None]:
    """Turn everything that can go wrong into one sentence and an exit code, never a traceback.

    Parameters
    ----------
    interrupted : str
        What is said after Ctrl-C.
    """
    previous = {number: signal.getsignal(number) for number in ENDINGS}
    for number, handler in previous.items():
        # What is ignored stays so: nohup lets a program outlive its terminal.
        if handler is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    except Refusal as refusal:
        raise _exit(str(refusal), REFUSED) from None
    except KeyboardInterrupt:
        raise _exit(interrupted, CANCELLED) from None
    except typer.Exit:
        raise
    except Exception as error:
        raise _exit(in_words(error), FAILED) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def in_words(error: Exception) -> str:
    """What went wrong and what to do about it; a defect shows where it happened if ``QSM_DEBUG`` is set."""
    if isinstance(error, MemoryError):
        return "There is not enough memory for this scan. Crop it to the head, or reconstruct fewer echoes."
    # Errors of the inference package carry the same two sentences; it is not imported for their sake.
    if hasattr(error, "sentence") and hasattr(error, "mend"):
        return str(error)
    if os.environ.get(DEBUG):
        traceback.print_exception(error, file=sys.stderr)
    return (
        f"Something went wrong that should not have ({type(error).__name__}). "
        f"Set {DEBUG}=1 and run it again to see where, and report it."
    )


def _exit(sentence: str, code: int) -> typer.Exit:
    # The terminal may be gone, and with it whoever would read this.
    with suppress(OSError):
        typer.secho(sentence, err=True, fg=typer.colors.RED)
    return typer.Exit(code)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
