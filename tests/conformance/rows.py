"""The conformance table: what is registered here is true of the real API server, and must be true of the simulated one."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from .backend import Backend, Failure, Obj

Row = Callable[[Backend], Awaitable[None]]

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
CONFLICT, INVALID, NOT_FOUND = (409, "Conflict"), (422, "Invalid"), (404, "NotFound")
ROWS: dict[str, Row] = {}
"""Every behaviour by its name. The function does something and asserts what must be seen."""


def row(do: Row) -> Row:
    """Put a behaviour into the table."""
    name = getattr(do, "__name__", "")
    assert name not in ROWS, name
    ROWS[name] = do
    return do


async def rejection(call: Awaitable[Any]) -> tuple[int, str]:
    """Return the code and the reason with which a call was rejected; AssertionError if it was not."""
    try:
        await call
    except Failure as failure:
        return failure.code, failure.reason
    raise AssertionError("it was not rejected")


async def take(stream: AsyncGenerator[tuple[str, Obj]], count: int) -> list[tuple[str, Obj]]:
    """Return the first events of a watch, then end it. Fewer if the server ends it earlier."""
    events: list[tuple[str, Obj]] = []
    async with aclosing(stream) as incoming:
        async for event in incoming:
            events.append(event)
            if len(events) == count:
                break
    return events


def names_of(events: list[tuple[str, Obj]]) -> list[tuple[str, str]]:
    """Return the types and names of events."""
    return [(what, obj["metadata"]["name"]) for what, obj in events]
