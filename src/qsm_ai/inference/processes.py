"""Child processes with a log file, that never outlive the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from qsm_ai.inference import leash


class Child:
    """A running program: a leash (see ``leash.py``) around a command, its output in a log file.

    Parameters
    ----------
    name : str
        For people.
    command : sequence of str
    log : Path
        Written anew.
    environment : mapping
        In place of this process's own.
    directory : Path
        Where it runs; here, when None.
    grace : float
        Seconds that it has to end by itself after SIGTERM.
    litter : str
        Absolute pattern of files that it leaves behind when it is killed; removed once it has ended.

    Raises
    ------
    OSError
        When the log cannot be written.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        grace: float = 10.0,
        litter: str = "",
    ) -> None:
        self.name = name
        self.log = log
        self.grace = grace
        log.parent.mkdir(parents=True, exist_ok=True)
        reading, self._holding = os.pipe()
        try:
            with log.open("wb") as sink:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", leash.__file__, str(reading), str(grace), litter, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    env=dict(os.environ if environment is None else environment),
                    cwd=directory,
                    pass_fds=[reading],
                    start_new_session=True,  # Ctrl-C in the terminal is for us alone
                )
        except BaseException:
            os.close(self._holding)
            raise
        finally:
            os.close(reading)

    @property
    def pid(self) -> int:
        """Of the leash."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; 128 + number when a signal ended it."""
        status = self._process.poll()
        return 128 - status if status is not None and status < 0 else status

    def tail(self, lines: int = 15) -> str:
        """The end of the log.

        Parameters
        ----------
        lines : int

        Returns
        -------
        str
        """
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").rstrip().splitlines()[-lines:])

    def ask_to_stop(self) -> None:
        """Send SIGTERM without waiting; its grace begins to run."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL after its grace. Safe to call again."""
        self.ask_to_stop()
        try:
            self._process.wait(self.grace + 5)
        except subprocess.TimeoutExpired:  # pragma: no cover - only if the leash itself hangs
            self._process.kill()
            self._process.wait()
        finally:
            if self._holding >= 0:
                os.close(self._holding)
                self._holding = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
