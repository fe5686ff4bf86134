"""A batch and jobs on a terminal: bars where someone looks, lines where not, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from types import TracebackType

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from qsm_ai.client import Job
from qsm_ai.remote.batch import Ended

STATES = {"done": "done", "there": "was there already", "failed": "failed"}


class BatchDisplay:
    """Bars on standard error: one for all scans, one for each that is worked on.

    Parameters
    ----------
    count : int
        Scans in all.
    quiet : bool
    """

    def __init__(self, count: int, quiet: bool = False) -> None:
        console = Console(stderr=True, quiet=quiet)
        self._lines = not quiet and not console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description:<32.32}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[title]}", style="dim"),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._all = self._bars.add_task("All scans", total=count, title="")
        self._of: dict[str, TaskID] = {}

    def __enter__(self) -> BatchDisplay:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def began(self, scan: str) -> None:
        """Show a bar for a scan."""
        self._of[scan] = self._bars.add_task(scan, total=100, title="")

    def at(self, scan: str, title: str, fraction: float) -> None:
        """Move a scan's bar."""
        self._bars.update(self._of[scan], completed=int(100 * fraction), title=title)

    def ended(self, ended: Ended) -> None:
        """Take a scan's bar away."""
        self._bars.remove_task(self._of.pop(ended.scan))
        self._bars.advance(self._all)
        if self._lines:
            typer.echo(f"{ended.scan}: {STATES[ended.state]}", err=True)


def summary(ended: Sequence[Ended]) -> Table:
    """A row for every scan."""
    table = Table(title=None)
    for column in ("Scan", "State", "Explained", "Problem"):
        table.add_column(column, overflow="fold")
    for one in ended:
        score = "" if one.score is None else f"{100 * one.score:.1f} %"
        table.add_row(one.scan, STATES[one.state], score, one.problem or "")
    return table


def job_table(jobs: Iterable[Job]) -> Table:
    """A row for every job."""
    table = Table(title=None)
    # An id in two pieces cannot be copied.
    table.add_column("Job", no_wrap=True)
    for column in ("State", "Progress", "Created", "File"):
        table.add_column(column, overflow="fold")
    for job in jobs:
        files = job.raw.get("files") or [{"name": ""}]
        created = _here(str(job.raw.get("created_at", "")))
        table.add_row(job.id, job.state, progress(job), created, str(files[0]["name"]))
    return table


def _here(time: str) -> str:
    """A time of the service on the clock of who reads it."""
    try:
        return f"{datetime.fromisoformat(time).astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return time


def progress(job: Job) -> str:
    """How far a job is, in a few words."""
    if job.state == "queued":
        return f"place {job.queue_position}" if job.queue_position else ""
    if job.state == "running":
        return f"{100 * job.fraction:.0f} % {job.title or ''}".strip()
    return job.problem.code if job.problem else ""


def describe(job: Job) -> str:
    """A job in a few lines."""
    lines = [f"Job      {job.id}", f"State    {job.state}"]
    if told := progress(job):
        lines.append(f"Progress {told}")
    if job.seconds_left is not None:
        lines.append(f"Left     about {job.seconds_left:.0f} s")
    if job.problem is not None:
        lines.append(f"Problem  {job.problem}")
    if (score := job.scores.get("physics_check")) is not None:
        lines.append(f"The map explains {100 * score:.1f} % of the local field's energy.")
    lines += [f"Note     {warning}" for warning in job.warnings]
    return "\n".join(lines)
