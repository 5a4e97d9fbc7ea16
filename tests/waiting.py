"""Waits of tests: for an event, with a deadline, and with a sentence when it does not come."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

LONG = 60.0
"""Seconds in which everything has happened, also on a busy machine."""


def wait_until(ask: Callable[[], T], what: str = "it was so", *, within: float = LONG, pause: float = 0.01) -> T:
    """The first answer that is true, asked again after each pause. AssertionError with the last answer after so many seconds."""
    deadline = time.monotonic() + within
    while not (found := ask()):
        assert time.monotonic() < deadline, _late(what, within, found)
        time.sleep(pause)
    return found


async def until(
    ask: Callable[[], Any] | Callable[[], Awaitable[Any]],
    what: str = "it was so",
    *,
    within: float = LONG,
    pause: float = 0.005,
    despite: tuple[type[Exception], ...] = (),
) -> Any:
    """The same while other tasks go on; ``ask`` may return something to be awaited. ``despite``: errors that are an answer like another."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + within
    while True:
        try:
            found = ask()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
        except despite as error:
            found = error
        assert clock() < deadline, _late(what, within, found)
        await asyncio.sleep(pause)


def _late(what: str, within: float, found: object) -> str:
    return f"waited {within:g} s without success until {what}; last answer: {str(found)[:3000]}"
