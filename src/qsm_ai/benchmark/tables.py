"""Tables whose rows are shown as they are measured."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table


class GrowingTable:
    """A table that grows on a terminal, or a line of Markdown for each row.

    Parameters
    ----------
    title : str
        On terminals alone.
    columns : names
    words : int
        How many of the first columns are words; numbers are set to the right.
    markdown : bool
        Markdown even where someone looks.
    """

    def __init__(self, title: str, columns: Sequence[str], *, words: int = 1, markdown: bool = False) -> None:
        self._console = Console()
        self._table = Table(title=title)
        for index, column in enumerate(columns):
            self._table.add_column(column, justify="left" if index < words else "right")
        self._live: Live | None = None
        if self._console.is_terminal and not markdown:
            self._live = Live(self._table, console=self._console, vertical_overflow="visible")
        else:
            self._line(columns)
            self._line(["---" if index < words else "---:" for index in range(len(columns))])

    def __enter__(self) -> GrowingTable:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def add(self, *cells: str) -> None:
        """Show one more row."""
        if self._live is None:
            self._line(cells)
        else:
            self._table.add_row(*cells)
            self._live.refresh()

    def _line(self, cells: Sequence[str]) -> None:
        print(f"| {' | '.join(cells)} |", flush=True)
