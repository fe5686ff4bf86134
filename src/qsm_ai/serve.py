"""Everything on this machine with one command: Triton, the backend and the page, as three processes.

They speak over the network only, just as they do in containers. This process starts them, waits until the
backend says that it can reconstruct, and then watches: when one ends, it says which and why, and stops the
others. However it ends itself, ``kill -9`` included, none of them outlives it.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from qsm_ai.inference.commands import port_option
from qsm_ai.inference.environment import ROOT, ensure
from qsm_ai.inference.errors import InferenceFailure
from qsm_ai.inference.ports import next_free
from qsm_ai.inference.processes import Child
from qsm_ai.inference.repository import model_file
from qsm_ai.inference.server import Ports, TritonServer

HOST = "127.0.0.1"
"""This machine only: nobody has to sign in here."""

WATCH_EVERY = 0.25

app = typer.Typer()


class CannotServe(Exception):  # noqa: N818 - a sentence for people, not an error of ours
    """Why the three do not run (any more): a sentence, with the end of a log where it helps."""


@dataclass(frozen=True)
class Addresses:
    """Ports of everything; those that were taken are replaced by the next free ones."""

    page: int
    api: int
    triton: Ports
    moved: tuple[str, ...] = ()
    """A sentence for each port that was taken."""

    @classmethod
    def choose(cls, *, page: int, api: int, triton: Ports) -> Self:
        """Those wanted, or the next free ones.

        Parameters
        ----------
        page, api : int
        triton : Ports

        Returns
        -------
        Addresses

        Raises
        ------
        CannotServe
            When a hundred ports in a row are taken.
        """
        wanted = {
            "the page": page,
            "the backend": api,
            "Triton's HTTP": triton.http,
            "Triton's gRPC": triton.grpc,
            "Triton's metrics": triton.metrics,
        }
        chosen: dict[str, int] = {}
        for name, port in wanted.items():
            others = set(chosen.values()) | (set(wanted.values()) - {port})
            try:
                chosen[name] = next_free(port, HOST, but=others)
            except OSError as error:
                raise CannotServe(f"There is {error} for {name}.") from None
        moved = tuple(
            f"Port {wanted[name]} is taken; {name} listens on {port}."
            for name, port in chosen.items()
            if port != wanted[name]
        )
        page, api, *inference = chosen.values()
        return cls(page, api, Ports(*inference), moved)


@dataclass
class Tier:
    """One of the three processes.

    ``trouble`` says what it is waiting for, or None once it is ready.
    """

    name: str
    child: Child
    trouble: Callable[[], str | None]
    since: float = field(default_factory=time.monotonic)


def ask(port: int, path: str, patience: float = 5.0) -> tuple[int, bytes]:
    """GET from a server on this machine; status 0 when it does not answer.

    Parameters
    ----------
    port : int
    path : str
    patience : float
        Seconds.

    Returns
    -------
    (int, bytes)
        Status and body.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=patience)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


class Supervisor:
    """Starts the three tiers, waits for them, watches them, stops them.

    Parameters
    ----------
    addresses : Addresses
    data : Path
        Folder for jobs, results and logs.
    precision : str
        Of the network: ``auto``, ``f32`` or ``bf16``.
    environment : mapping
        Variables that the tiers start from.
    """

    def __init__(
        self, addresses: Addresses, data: Path, *, precision: str, environment: Mapping[str, str]
    ) -> None:
        self.addresses = addresses
        self.data = data
        self.logs = data / "log"
        self._environment = dict(environment)
        self._triton = TritonServer(
            ports=addresses.triton, log=self.logs / "triton.log", precision=precision, host=HOST
        )
        self.tiers: list[Tier] = []

    @property
    def page_url(self) -> str:
        """Where people go."""
        return f"http://{HOST}:{self.addresses.page}"

    @property
    def api_url(self) -> str:
        """Where programs go."""
        return f"http://{HOST}:{self.addresses.api}"

    def start(self) -> None:
        """Start all three; they come up side by side."""
        self.tiers.append(Tier("Triton", self._triton.launch(), self._triton_trouble))
        self._add("Backend", "backend", [sys.executable, "-m", "qsm_ai.api"], self._backend_trouble)
        self._add(
            "Page",
            "page",
            [
                sys.executable, "-m", "qsm_ai.ui",
                f"--server.address={HOST}", f"--server.port={self.addresses.page}", "--server.headless=true",
                "--server.fileWatcherType=none", "--browser.gatherUsageStats=false",
            ],
            self._page_trouble,
        )  # fmt: skip

    def wait(self, patience: float, stopping: threading.Event, show: Callable[[Tier, str], None]) -> bool:
        """Wait until all are ready.

        Parameters
        ----------
        patience : float
            Seconds.
        stopping : Event
            Set when somebody wants an end.
        show : callable
            Told of each tier what it waits for, or ``ready`` and after how long.

        Returns
        -------
        bool
            False when somebody wanted an end first.

        Raises
        ------
        CannotServe
            When one ends, or the time is up.
        """
        deadline = time.monotonic() + patience
        waiting = list(self.tiers)
        while waiting:
            if stopping.wait(WATCH_EVERY):
                return False
            self.look()
            reasons: dict[str, str] = {}
            for tier in list(waiting):
                reason = tier.trouble()
                if reason is None:
                    waiting.remove(tier)
                    show(tier, f"ready after {time.monotonic() - tier.since:.1f} s")
                else:
                    reasons[tier.name] = reason
                    show(tier, reason)
            if waiting and time.monotonic() > deadline:
                told = "\n".join(f"{name}: {reason}" for name, reason in reasons.items())
                raise CannotServe(f"Not ready after {patience:.0f} s.\n{told}\nThe logs are in {self.logs}.")
        return True

    def watch(self, stopping: threading.Event) -> None:
        """Stay until somebody wants an end, or one of the three ends.

        Parameters
        ----------
        stopping : Event

        Raises
        ------
        CannotServe
            Which ended, and the end of its log.
        """
        while not stopping.wait(WATCH_EVERY):
            self.look()

    def look(self) -> None:
        """Raise ``CannotServe`` if one of the three has ended."""
        for tier in self.tiers:
            status = tier.child.exit_status
            if status is not None:
                how = f"killed by signal {status - 128}" if status > 128 else f"exit status {status}"
                end = tier.child.tail(20) or "(nothing)"
                raise CannotServe(f"{tier.name} ended by itself ({how}). Its log ends:\n\n{end}")
        if self._triton.dead_models():
            raise CannotServe(
                "The process that runs the network in Triton was killed, perhaps for its memory."
            )

    def stop(self) -> None:
        """Stop all three: page and backend first, then what they use."""
        page_and_backend = [tier.child for tier in self.tiers if tier.name != "Triton"]
        for child in page_and_backend:
            child.ask_to_stop()
        for child in page_and_backend:
            child.stop()
        self._triton.stop()
        self.tiers.clear()

    def _add(self, name: str, log: str, command: list[str], trouble: Callable[[], str | None]) -> None:
        child = Child(name, command, log=self.logs / f"{log}.log", environment=self._variables())
        self.tiers.append(Tier(name, child, trouble))

    def _variables(self) -> dict[str, str]:
        ours = {
            "PYTHONUNBUFFERED": "1",
            "QSM_HOST": HOST,
            "QSM_PORT": str(self.addresses.api),
            "QSM_TRITON_URL": f"{HOST}:{self.addresses.triton.grpc}",
            "QSM_DATA_DIR": str(self.data),
            "QSM_API_URL": self.api_url,
        }
        defaults = {
            "QSM_CORS_ORIGINS": f"{self.page_url},http://localhost:{self.addresses.page}",
            "QSM_SAMPLE_DIR": str(ROOT / "data" / "sample"),
            "STREAMLIT_SERVER_MAX_UPLOAD_SIZE": self._environment.get("QSM_MAX_UPLOAD_MB", "2048"),
        }
        return defaults | self._environment | ours

    def _triton_trouble(self) -> str | None:
        return None if self._triton.is_ready() else "loading the network"

    def _backend_trouble(self) -> str | None:
        status, body = ask(self.addresses.api, "/readyz")
        if status == http.client.OK:
            return None
        if status == 0:
            return "starting"
        try:
            checks = json.loads(body)["checks"]
            reasons = [check["reason"] for check in checks.values() if not check["ok"] and check["reason"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            reasons = []
        return " ".join(reasons) or f"answers {status}"

    def _page_trouble(self) -> str | None:
        status, _ = ask(self.addresses.page, "/_stcore/health")
        return None if status == http.client.OK else "starting"


class Screen:
    """What people see meanwhile: a spinner per tier on a terminal, a line per change elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<10}"),
            TextColumn("{task.fields[state]}", style="dim"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._shown: dict[str, str] = {}

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the spinners while in here."""
        with self._progress:
            yield

    def show(self, tier: Tier, state: str) -> None:
        """Say where a tier is.

        Parameters
        ----------
        tier : Tier
        state : str
        """
        if self._shown.get(tier.name) == state:
            return
        self._shown[tier.name] = state
        if not self.console.is_terminal:
            self.say(f"{tier.name}: {state}")
            return
        if tier.name not in self._tasks:
            self._tasks[tier.name] = self._progress.add_task(tier.name, total=1, state=state)
        finished = 1 if state.startswith("ready") else 0
        self._progress.update(self._tasks[tier.name], state=state, completed=finished)

    def say(self, sentence: str, style: str | None = None) -> None:
        """Print a sentence as it is."""
        self.console.print(sentence, style=style, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def only_one(data: Path, address: str) -> Iterator[None]:
    """Hold the data folder, which two backends must not share.

    Parameters
    ----------
    data : Path
    address : str
        Of the page; told to whoever comes second.

    Raises
    ------
    CannotServe
        When another holds it, or it cannot be written.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "serve.lock").open("a+")
    except OSError as error:
        raise CannotServe(
            f"The data folder {data} cannot be written ({error.strerror}). Give another --data."
        ) from None
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            where = file.read().strip() or "another address"
            raise CannotServe(
                f"QSM-AI runs already on this data folder, at {where}. Stop it first, or give another --data."
            ) from None
        file.truncate(0)
        file.write(address)
        file.flush()
        yield


@contextmanager
def until_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and a closed terminal set, while in here."""
    stopping = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@app.command()
def serve(
    port: Annotated[int, port_option("QSM_UI_PORT", "Of the page.")] = 8501,
    api_port: Annotated[int, port_option("QSM_API_PORT", "Of the backend.")] = 8080,
    triton_http_port: Annotated[int, port_option("QSM_TRITON_HTTP_PORT", "Triton, HTTP.")] = 8000,
    triton_grpc_port: Annotated[int, port_option("QSM_TRITON_GRPC_PORT", "Triton, gRPC.")] = 8001,
    triton_metrics_port: Annotated[int, port_option("QSM_TRITON_METRICS_PORT", "Triton, metrics.")] = 8002,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder for jobs, results and logs.",
            envvar="QSM_DATA_DIR",
            show_default="var in the project",
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Of the network: auto, f32 or bf16.", envvar="QSM_PRECISION")
    ] = "auto",
    patience: Annotated[
        float, typer.Option(help="Seconds in which all must be ready.", envvar="QSM_START_TIMEOUT")
    ] = 300.0,
) -> None:
    """Start Triton, the backend and the page on this machine; Ctrl-C stops all three.

    A port that is taken is replaced by the next free one.
    """
    screen = Screen()
    try:
        model_file()
        ensure(screen.say)
        with ExitStack() as held:
            stopping = held.enter_context(until_signal())
            _serve(screen, stopping, held, Ports(triton_http_port, triton_grpc_port, triton_metrics_port),
                   page=port, api=api_port, data=data, precision=precision, patience=patience)  # fmt: skip
    except (CannotServe, InferenceFailure) as failure:
        screen.say(str(failure), style="red")
        raise typer.Exit(1) from None


def _serve(
    screen: Screen,
    stopping: threading.Event,
    held: ExitStack,
    triton: Ports,
    *,
    page: int,
    api: int,
    data: Path | None,
    precision: str,
    patience: float,
) -> None:
    addresses = Addresses.choose(page=page, api=api, triton=triton)
    folder = (data or ROOT / "var").absolute()
    supervisor = Supervisor(addresses, folder, precision=precision, environment=os.environ)
    held.enter_context(only_one(folder, supervisor.page_url))
    for sentence in addresses.moved:
        screen.say(sentence, style="yellow")
    held.callback(_stop, screen, supervisor)
    supervisor.start()
    with screen.live():
        ready = supervisor.wait(patience, stopping, screen.show)
    if not ready:
        return
    screen.say("")
    screen.say("QSM-AI is ready. Research use only; not a medical device.", style="bold green")
    screen.say(f"  Page    {supervisor.page_url}")
    screen.say(f"  API     {supervisor.api_url}")
    screen.say(f"  Triton  {HOST}:{addresses.triton.grpc} (gRPC), {addresses.triton.http} (HTTP)")
    screen.say(f"  Logs    {supervisor.logs}")
    screen.say("Ctrl-C stops everything.")
    supervisor.watch(stopping)


def _stop(screen: Screen, supervisor: Supervisor) -> None:
    if supervisor.tiers:
        screen.say("Stopping")
    supervisor.stop()


if __name__ == "__main__":
    app()
