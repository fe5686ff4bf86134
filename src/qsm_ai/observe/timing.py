"""Telling how long calls to storage and database take, without those knowing of any metric."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Coroutine[Any, Any, Any]])


class Watch(Protocol):
    """Who wants to know."""

    def __call__(self, operation: str, seconds: float, error: str | None) -> None:
        """A call ended; ``error`` is the kind of error that it ended with."""


def timed(operation: str, *, expected: tuple[type[Exception], ...] = ()) -> Callable[[Method], Method]:
    """Tell an object's ``watch``, where it has one, of each call of an asynchronous method.

    Parameters
    ----------
    operation : str
        Name of the call for the watch.
    expected : exception types
        That are answers, not errors.
    """

    def decorate(method: Method) -> Method:
        @wraps(method)
        async def call(self: Any, *arguments: Any, **named: Any) -> Any:
            watch: Watch | None = self.watch
            if watch is None:
                return await method(self, *arguments, **named)
            began, failure = time.perf_counter(), None
            try:
                return await method(self, *arguments, **named)
            except Exception as error:
                failure = None if isinstance(error, expected) else type(error).__name__
                raise
            finally:
                watch(operation, time.perf_counter() - began, failure)

        return cast(Method, call)

    return decorate
