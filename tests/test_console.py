"""What ends a program ends it in one sentence, with everything cleaned up behind it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import typer

from qsm_ai.console import CANCELLED, FAILED, REFUSED, plain_errors
from qsm_ai.scan import Refusal

ENDED_BY = """
import signal
import sys
import typer
from qsm_ai.console import plain_errors

number, begins_ignored = int(sys.argv[1]), sys.argv[2] == "ignored"
signal.signal(number, signal.SIG_IGN if begins_ignored else signal.SIG_DFL)
try:
    with plain_errors():
        signal.raise_signal(number)
        print("went on")
except typer.Exit as end:
    sys.exit(end.exit_code)
finally:
    print("unwound", signal.getsignal(number).name)
"""


def ended_by(number: signal.Signals, at_first: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: a signal to this one would end the tests."""
    return subprocess.run(
        [sys.executable, "-c", ENDED_BY, str(int(number)), at_first],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_and_a_closed_terminal_unwind_what_was_begun(number: signal.Signals) -> None:
    ended = ended_by(number, "heeded")
    assert ended.stdout == "unwound SIG_DFL\n"
    assert "Cancelled" in ended.stderr
    assert ended.returncode == CANCELLED


def test_a_program_that_shall_outlive_its_terminal_does() -> None:
    ended = ended_by(signal.SIGHUP, "ignored")
    assert ended.stdout == "went on\nunwound SIG_IGN\n"
    assert ended.returncode == 0


def test_a_terminal_that_is_gone_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(typer, "secho", gone)
    with pytest.raises(typer.Exit) as caught, plain_errors():
        raise KeyboardInterrupt
    assert caught.value.exit_code == CANCELLED


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Refusal("is wrong.", mend="Mend it.", file="a.nii"), REFUSED, "a.nii: is wrong. Mend it."),
        (MemoryError(), FAILED, "not enough memory"),
        (RuntimeError("Doe^Jane"), FAILED, "RuntimeError"),
    ],
)
def test_an_error_is_a_sentence(
    error: Exception, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, plain_errors():
        raise error
    assert caught.value.exit_code == code
    said = capsys.readouterr().err
    assert words in said
    assert "Doe" not in said


def test_what_is_said_of_an_interruption_can_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, plain_errors(interrupted="It goes on."):
        raise KeyboardInterrupt
    assert caught.value.exit_code == CANCELLED
    assert capsys.readouterr().err == "It goes on.\n"
