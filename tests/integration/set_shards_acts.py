"""What happens in the cases of Set Shards, one function each; each leaves the cluster on its way to rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from .set_shards_stage import SETTLES, Scene

Act = Callable[[Scene], Awaitable[None]]


# --- answers


def answered(**fault: Any) -> Act:
    """The first call is answered so."""

    async def act(s: Scene) -> None:
        if fault:
            await s.go_wrong(**fault)
        await s.resize()

    return act


def unanswered(*, again: bool = False, **fault: Any) -> Act:
    """The first call gets no clear answer; ``again``: it was not applied, and so comes a second time, but not before it is settled."""

    async def act(s: Scene) -> None:
        await s.go_wrong(**fault)
        await s.resize()
        await s.until_made()
        await s.until(lambda _: s.status().get("operation", {}).get("answer") == "Unknown" or s.is_at_rest(), "AnswerUnknown")
        if again:
            first, second = await s.until_made(2)
            assert seconds_between(first["at"], second["at"]) > SETTLES - 1

    return act


def seconds_between(earlier: str, later: str) -> float:
    """Seconds from one RFC 3339 time to another."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


async def token_expired(s: Scene) -> None:
    """The token is void when the call is due."""
    await s.stand_in("tokens", expire=True)
    await s.resize()


# --- preflight


def spoiled(word: str, **changes: str | None) -> Act:
    """The account's Secret is as it should not be; nothing is sent until it is put right."""

    async def act(s: Scene) -> None:
        await s.put_account(**changes)
        await s.resize()
        await s.word("Stalled", word)
        assert await s.made() == []
        await s.put_account()

    return act
