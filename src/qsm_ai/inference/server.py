"""Starting a real tritonserver on the model repository, and stopping it without leftovers."""

from __future__ import annotations

import http.client
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from qsm_ai.inference.environment import TritonEnvironment, ensure
from qsm_ai.inference.errors import ModelFileMissing, TritonStartFailed
from qsm_ai.inference.ports import any_free, is_free
from qsm_ai.inference.processes import Child
from qsm_ai.inference.repository import MODEL, model_repository
from qsm_ai.inference.traces import trace_arguments

MEBIBYTE = 1 << 20
TENSORS_STEP = 64 * MEBIBYTE
"""What the Python backend takes of /dev/shm at first, and whenever it needs more; a patch takes 20 MiB."""

HARMLESS = re.compile(r"NVML|DCGM|CUDA|GPU", re.IGNORECASE)
"""What Triton says about the missing accelerator on every CPU."""


@dataclass(frozen=True)
class Ports:
    """Where a server listens."""

    http: int
    grpc: int
    metrics: int

    @classmethod
    def free(cls, host: str = "127.0.0.1") -> Self:
        """Three ports that nobody listens on."""
        http_port = any_free(host)
        grpc_port = any_free(host, but={http_port})
        return cls(http_port, grpc_port, any_free(host, but={http_port, grpc_port}))


class TritonServer:
    """A tritonserver process of our own; start it with ``start()`` or as a context manager.

    It listens on this machine only: a malformed request can crash this Triton, so nobody else may reach it.

    Parameters
    ----------
    repository : Path
        Model repository; the project's own when None.
    models : sequence of str
        Those to load.
    ports : Ports
        Free ones, chosen at the start, when None.
    log : Path
        A file in the folder for temporary files when None, removed after a clean stop.
    precision : str
        ``auto``, ``f32`` or ``bf16``; what the model's configuration says when None.
    threads : int
        Of the network; what the model's configuration says when None.
    config_name : str
        ``configs/<name>.pbtxt`` in place of ``config.pbtxt``.
    host : str
        Address to listen on.
    start_timeout : float
        Seconds in which it must be ready.
    variables : mapping
        More environment variables for the server and its models.

    Examples
    --------
    >>> with TritonServer() as server:  # doctest: +SKIP
    ...     network = TritonNetwork(server.grpc_url)
    """

    def __init__(
        self,
        repository: Path | None = None,
        *,
        models: tuple[str, ...] = (MODEL,),
        ports: Ports | None = None,
        log: Path | None = None,
        precision: str | None = None,
        threads: int | None = None,
        config_name: str | None = None,
        host: str = "127.0.0.1",
        start_timeout: float = 120.0,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.repository = repository.absolute() if repository else model_repository()
        self.models = models
        self.host = host
        self._asked_ports = ports
        self._asked_log = log
        self._config_name = config_name
        self._start_timeout = start_timeout
        self._variables = dict(variables or {})
        if precision is not None:
            self._variables["QSM_PRECISION"] = precision
        if threads is not None:
            self._variables["QSM_THREADS"] = str(threads)
        self._child: Child | None = None
        self._ports: Ports | None = None
        self._stubs: list[int] = []

    @property
    def ports(self) -> Ports:
        """Where it listens, once started."""
        if self._ports is None:
            raise RuntimeError("the server has not been started")
        return self._ports

    @property
    def grpc_url(self) -> str:
        """``host:port`` for ``TritonNetwork``."""
        return f"{self.host}:{self.ports.grpc}"

    @property
    def log(self) -> Path:
        """Its log file, once started."""
        return self._running.log

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return self._running.exit_status

    @property
    def _running(self) -> Child:
        if self._child is None:
            raise RuntimeError("the server has not been started")
        return self._child

    def start(self, say: Callable[[str], None] = lambda _: None) -> Self:
        """Start it and wait until its models are ready.

        Parameters
        ----------
        say : callable
            Told what is being waited for.

        Returns
        -------
        TritonServer
            Itself.

        Raises
        ------
        ModelFileMissing
            When a model is not in the repository.
        RuntimeMissing
            When Triton's environment cannot be made.
        TritonStartFailed
            When it ends before it is ready, or is not ready in time.
        """
        attempts = 1 if self._asked_ports else 3
        for attempt in range(attempts):
            child = self.launch(say)
            try:
                self._wait(say)
            except TritonStartFailed:
                child.stop()
                taken = not all(is_free(p, self.host) for p in vars(self.ports).values())
                if attempt + 1 == attempts or not taken:
                    raise
            except BaseException:
                child.stop()
                raise
            else:
                return self
        raise AssertionError("unreachable")  # pragma: no cover

    def launch(self, say: Callable[[str], None] = lambda _: None) -> Child:
        """Start it without waiting until it is ready.

        Parameters
        ----------
        say : callable
            Told what is being done.

        Returns
        -------
        Child
            The process.

        Raises
        ------
        ModelFileMissing
            When a model is not in the repository.
        RuntimeMissing
            When Triton's environment cannot be made.
        """
        for model in self.models:
            if not (self.repository / model / "config.pbtxt").is_file():
                raise ModelFileMissing(
                    f"The model repository holds no {model}.",
                    mend=f"It needs {model}/config.pbtxt and a folder for each version.",
                )
        environment = ensure(say)
        self._ports = self._asked_ports or Ports.free(self.host)
        self._stubs = []
        self._child = self._launch(environment)
        return self._child

    def stop(self) -> None:
        """Stop it and its stubs; safe to call again, or when it never started."""
        if self._child is None:
            return
        self._child.stop()
        if self._asked_log is None and self._child.exit_status == 0:
            self._child.log.unlink(missing_ok=True)

    def is_ready(self) -> bool:
        """Whether it answers that all its models are ready."""
        connection = http.client.HTTPConnection(self.host, self.ports.http, timeout=2)
        try:
            connection.request("GET", "/v2/health/ready")
            ready = connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        if ready and not self._stubs:
            self._stubs = self._find_stubs()
        return ready

    def dead_models(self) -> bool:
        """Whether a process that runs a model has died, of which this Triton itself takes no notice.

        It stays ready and answers every request with an error; only a restart helps.
        """
        return any(not _command_line(pid)[0] for pid in self._stubs) and self.is_ready()

    def _launch(self, environment: TritonEnvironment) -> Child:
        ports = self.ports
        log = self._asked_log
        if log is None:
            descriptor, name = tempfile.mkstemp(prefix=f"qsm-ai-triton-{ports.grpc}-", suffix=".log")
            os.close(descriptor)
            log = Path(name)
        command = [
            str(environment.tritonserver),
            f"--model-repository={self.repository}",
            f"--backend-directory={environment.backends}",
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in self.models),
            "--disable-auto-complete-config",
            "--exit-timeout-secs=3",
            f"--http-address={self.host}",
            f"--http-port={ports.http}",
            f"--grpc-address={self.host}",
            f"--grpc-port={ports.grpc}",
            f"--metrics-address={self.host}",
            f"--metrics-port={ports.metrics}",
            "--http-thread-count=2",
            "--log-format=ISO8601",
            # Regions in /dev/shm bear the port, so that servers live side by side.
            f"--backend-config=python,shm-region-prefix-name=qsm_ai_{ports.grpc}_",
            f"--backend-config=python,shm-default-byte-size={TENSORS_STEP}",
            f"--backend-config=python,shm-growth-byte-size={TENSORS_STEP}",
        ]
        if self._config_name:
            command.append(f"--model-config-name={self._config_name}")
        variables = environment.variables() | self._variables
        return Child(
            "Triton",
            [*command, *trace_arguments(variables)],
            log=log,
            environment=variables,
            litter=f"/dev/shm/*qsm_ai_{ports.grpc}_*",  # noqa: S108 - where Triton puts tensors
        )

    def _wait(self, say: Callable[[str], None]) -> None:
        say(f"Loading {', '.join(self.models)}")
        deadline = time.monotonic() + self._start_timeout
        while not self.is_ready():
            if self._running.exit_status is not None:
                raise TritonStartFailed(
                    f"Triton ended before it was ready (exit status {self._running.exit_status}).",
                    mend=f"Its log ends:\n{self._complaints()}",
                )
            if time.monotonic() > deadline:
                raise TritonStartFailed(
                    f"Triton was not ready within {self._start_timeout:.0f} s.",
                    mend=f"Its log ends:\n{self._complaints()}",
                )
            time.sleep(0.1)

    def _find_stubs(self) -> list[int]:
        """The processes that run Python models of this server."""
        mark = f"qsm_ai_{self.ports.grpc}_".encode()
        found = []
        for pid in (int(entry.name) for entry in Path("/proc").glob("[0-9]*")):
            program, *arguments = _command_line(pid)
            if program.endswith(b"python_backend_stub") and any(a.startswith(mark) for a in arguments):
                found.append(pid)
        return found

    def _complaints(self) -> str:
        """The lines of the log that say what went wrong, or its last ones."""
        lines = self._running.tail(400).splitlines()
        errors = [line for line in lines if re.search(r"^E\d|Z E |[Ee]rror|failed", line)]
        told = [line for line in errors if not HARMLESS.search(line)] or lines
        return "\n".join(line[:400] for line in told[-8:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self.stop()


def _command_line(pid: int) -> list[bytes]:
    """Program and arguments of a process; one empty string when it has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return [b""]
