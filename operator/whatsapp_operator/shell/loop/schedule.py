"""Limits concurrent observations, urgent ones first. Decides nothing about a cluster."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

AT_A_TIME = 10
"""Concurrent observations: each makes up to ten calls, and the Kubernetes client has a hundred connections."""
BACKGROUND = 7
"""Of these, the ones that are not urgent: there is always room for a failover."""


class PriorityLimiter:
    """Grants turns in the order of the requests, urgent ones and background ones separately."""

    def __init__(self, *, at_a_time: int = AT_A_TIME, background: int = BACKGROUND) -> None:
        """Prepare; ``background`` must not exceed ``at_a_time``."""
        self._most = {True: at_a_time, False: background}
        self._running = {True: 0, False: 0}
        self._waiting: dict[bool, deque[asyncio.Future[None]]] = {True: deque(), False: deque()}

    @asynccontextmanager
    async def turn(self, *, is_urgent: bool) -> AsyncIterator[None]:
        """Wait for a turn; it ends with the block."""
        if not self._is_free(is_urgent) or self._waiting[is_urgent]:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[is_urgent].append(future)
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._end(is_urgent)
                raise
        else:
            self._running[is_urgent] += 1
        try:
            yield
        finally:
            self._end(is_urgent)

    def _is_free(self, is_urgent: bool) -> bool:
        total = self._running[True] + self._running[False]
        return total < self._most[True] and (is_urgent or self._running[False] < self._most[False])

    def _end(self, is_urgent: bool) -> None:
        self._running[is_urgent] -= 1
        for kind in (True, False):
            waiting = self._waiting[kind]
            while waiting and self._is_free(kind):
                future = waiting.popleft()
                if not future.done():
                    self._running[kind] += 1
                    future.set_result(None)
