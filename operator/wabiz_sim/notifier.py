"""A notification that something changed."""

import asyncio


class Notifier:
    """A condition without a lock: ``notify`` wakes all current waiters; later ones wait for the next notification.

    A waiter that checks its condition and then waits, without an await in between, misses none.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake all that wait."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout: float) -> bool:
        """Wait for the next notification, ``timeout`` seconds at most; False when there was none."""
        if timeout <= 0:
            return False
        event = self._event
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return False
        return True
