"""What ends a program ends it in one sentence, with everything cleaned up behind it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import typer

from qsm_ai.console import CANCELLED, FAILED, REFUSED, plain_errors
from qsm_ai.scan import Refusal


@contextmanager
def closing_by(unwound: list[bool]) -> Iterator[None]:
    try:
        yield
    finally:
        unwound.append(True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_and_a_closed_terminal_unwind_what_was_begun(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    unwound: list[bool] = []
    try:
        with pytest.raises(typer.Exit) as caught, plain_errors(), closing_by(unwound):
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert unwound == [True]
    assert caught.value.exit_code == CANCELLED
    assert "Cancelled" in capsys.readouterr().err


def test_a_program_that_shall_outlive_its_terminal_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with plain_errors():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


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
