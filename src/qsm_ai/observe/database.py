"""How long the database takes, statement by statement."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from qsm_ai.observe.timing import Watch

OPERATIONS = ("select", "insert", "update", "delete")
"""Statements told by name; what else there is (transactions, settings, migrations) is ``other``."""

_BEGAN = "qsm_ai.began"


def watch_database(engine: sa.Engine, watch: Watch) -> None:
    """Tell ``watch`` of every statement that an engine executes.

    Parameters
    ----------
    engine : sqlalchemy.Engine
    watch : Watch
    """

    def begin(connection: sa.Connection, *_: Any) -> None:
        connection.info.setdefault(_BEGAN, []).append(time.perf_counter())

    def end(connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        watch(_operation(statement), time.perf_counter() - connection.info[_BEGAN].pop(), None)

    def fail(context: sa.engine.ExceptionContext) -> None:
        began = context.connection.info.get(_BEGAN) if context.connection is not None else None
        seconds = time.perf_counter() - began.pop() if began else 0.0
        watch(_operation(context.statement or ""), seconds, type(context.original_exception).__name__)

    event.listen(engine, "before_cursor_execute", begin)
    event.listen(engine, "after_cursor_execute", end)
    event.listen(engine, "handle_error", fail)


def _operation(statement: str) -> str:
    word = statement.lstrip()[:6].lower()
    return word if word in OPERATIONS else "other"
