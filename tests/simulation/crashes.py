"""Unexpected errors of a simulation, wherever they are swallowed: each fails the run, and is never taken for a broken law."""

from __future__ import annotations

import asyncio
import functools
import logging
import traceback
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MISTAKES = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, NotImplementedError, TypeError, ValueError)
"""Errors that no code raises on purpose to tell its caller how a call went. A task that ends in one is broken in any case."""


class UnexpectedError(Exception):
    """Something failed that nobody meant to fail: in the operator, in a task or timer, or in a law."""


class Crashes(logging.Handler):
    """Collects unexpected errors: log records with a traceback, what the event loop was left with, tasks that end in a mistake, laws."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(logging.WARNING)
        self._now = now
        self.found: list[str] = []

    def note(self, where: str, error: BaseException) -> None:
        """Keep an error; `where` names what raised it."""
        lines = "".join(traceback.format_exception(error))
        self.found.append(f"unexpected error at {self._now():.3f} in {where}: {type(error).__name__}: {error}\n{lines}")

    def check(self, describe: Callable[[str], str] = str) -> None:
        """Raise the first error that was found."""
        if self.found:
            raise UnexpectedError(describe(self.found[0]))

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log record; only one with a traceback counts."""
        if record.exc_info and record.exc_info[1] is not None:
            self.note(f"the log of {record.name} ({record.getMessage()})", record.exc_info[1])

    def of_loop(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take what the event loop says of a callback that failed or an error that nobody retrieved."""
        error = context.get("exception")
        if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
            self.note(f"the event loop ({context['message']})", error)

    def make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T] | Generator[Any, None, T], **options: Any
    ) -> asyncio.Task[T]:
        """Make a task that is observed when it ends: a mistake counts, even if other code gathers and forgets it."""
        task = asyncio.Task(coroutine, loop=loop, **options)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        # A task of a killed process ends cancelled: that is what a kill is.
        error = None if task.cancelled() else task._exception  # reading it here must not retrieve it
        for one in _leaves(error):
            if isinstance(one, MISTAKES) and not getattr(one, "is_verdict", False):
                self.note(f"task {task.get_name()}", one)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Listen to the operator's log meanwhile."""
        logger = logging.getLogger("whatsapp_operator")
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)


def _leaves(error: BaseException | None) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    elif error is not None:
        yield error


class Judge(Protocol):
    """A judge that works while others run."""

    crashes: Crashes


J = TypeVar("J", bound=Judge)


def never_swallowed(judge: Callable[Concatenate[J, P], T]) -> Callable[Concatenate[J, P], T]:
    """Keep an error of a law before the code that caused the judgement can swallow it."""

    @functools.wraps(judge)
    def judged(self: J, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return judge(self, *args, **kwargs)
        except Exception as error:
            self.crashes.note(f"the law {judge.__qualname__}", error)
            raise

    return judged
