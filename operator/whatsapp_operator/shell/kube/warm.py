"""Connections that a candidate keeps open: the first calls of a new leader then need no TLS handshake."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CONNECTIONS = 6
"""Calls that a new leader makes at the same time: five for its first observation of a cluster, one for the list of all clusters."""
EVERY = 30.0
"""Seconds between two calls on each connection. The API server closes one that was idle for 90 s, a load balancer perhaps after 60 s."""


class WarmConnections:
    """Makes as many concurrent calls as a new leader does, again and again, so that their connections stay open."""

    def __init__(self, read: Callable[[], Awaitable[object]], *, is_needed: Callable[[], bool]) -> None:
        """Prepare. ``read`` makes one call; what it returns or raises is not used. ``is_needed``: this process does not lead."""
        self._read = read
        self._is_needed = is_needed

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            if self._is_needed():
                # A call that fails costs a handshake later, and nothing else.
                await asyncio.gather(*(self._read() for _ in range(CONNECTIONS)), return_exceptions=True)
            await asyncio.sleep(EVERY)
