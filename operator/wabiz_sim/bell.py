"""A notification that something changed."""

import asyncio


class Bell:
    """A condition without a lock: ``ring`` wakes all current waiters; later ones wait for the next ring.

    A waiter that checks its condition and then waits, without an await in between, misses no ring.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake all that wait."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout: float) -> bool:
        """Wait for the next ring, ``timeout`` seconds at most; False when there was none."""
        if timeout <= 0:
            return False
        event = self._event
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return False
        return True
