"""Keeps Kopf watching: in a thread and an event loop of its own, and begun anew when it ends or a watch stays dead.

Kopf ends on answers that it does not expect, and its end may wait for ever for a task that was cancelled at the wrong moment. In a thread
of its own it can be left behind in any state: what a thread that was left behind still tells is not heard.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from whatsapp_operator.shell.clock import Clock

log = logging.getLogger(__name__)

Deliver = Callable[[Callable[[], None]], None]
"""Has a callable called in the event loop of the operator."""

FIRST_PAUSE: Final = 0.2
LAST_PAUSE: Final = 10.0
"""Seconds between an end and the next beginning; doubled from end to end."""
CALM: Final = 60.0
"""Seconds after which an end is no longer counted as a repeated one."""
RENEW_AFTER = 6.0
"""Seconds for which a watch may be dead before all are begun anew, the first time; doubled up to `LAST_RENEWAL`. Kopf tries every 5 s."""
LAST_RENEWAL: Final = 60.0
CHECK_EVERY: Final = 0.5
END_WITHIN = 1.0
"""Seconds that Kopf has for its own end before it is left behind."""


def _note_stray(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Note an error that nobody in Kopf awaited, mostly of a call that is cancelled: what matters is whether the watches are connected."""
    log.debug("Kopf: %s", context.get("message"), exc_info=context.get("exception"))


class Round:
    """One run of Kopf, from its begin to its end."""

    def __init__(self, begin: Callable[[Deliver], Coroutine[Any, Any, None]]) -> None:
        """Start the thread, in which ``begin`` is awaited with what brings events to the event loop that runs now."""
        self._main = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_note_stray)
        self._task = self._loop.create_task(begin(self._deliver), name="kopf")
        self._is_left = False
        self.ended: asyncio.Future[BaseException | None] = self._main.create_future()
        """Resolved when Kopf has ended: with the exception by which it did, if any."""
        threading.Thread(target=self._run, name="kopf", daemon=True).start()

    async def stop(self, within: float) -> None:
        """End it; one that takes longer than ``within`` seconds is left behind."""
        self._is_left = True
        if not self.ended.done():
            self._call(self._task.cancel)
            await asyncio.wait({self.ended}, timeout=within)
        if not self.ended.done():
            log.warning("The watches did not end within %g s: they are left behind.", within)
            self._call(self._loop.stop)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._loop.run_until_complete(self._task)
        except BaseException as e:  # whatever it was, the supervisor says it
            error = e
        finally:
            # Of tasks that did not end nothing more is to be known.
            self._loop.set_exception_handler(lambda *_: None)
            self._loop.close()
            with suppress(RuntimeError):  # the operator has ended before us
                self._main.call_soon_threadsafe(self._note_end, error)

    def _note_end(self, error: BaseException | None) -> None:
        if not self.ended.done():
            self.ended.set_result(error)

    def _deliver(self, event: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the operator has ended before us
            self._main.call_soon_threadsafe(self._hand_over, event)

    def _hand_over(self, event: Callable[[], None]) -> None:
        if not self._is_left:
            event()

    def _call(self, what: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # it has just ended
            self._loop.call_soon_threadsafe(what)


class Supervisor:
    """Begins Kopf anew whenever it ends or does not watch what it should."""

    def __init__(
        self,
        begin: Callable[[Deliver], Coroutine[Any, Any, None]],
        *,
        dead_for: Callable[[], Awaitable[float]],
        clock: Clock,
    ) -> None:
        """``begin`` runs Kopf until cancelled; ``dead_for`` returns for how many seconds the worst watch has not been connected."""
        self._begin = begin
        self._dead_for = dead_for
        self._clock = clock
        self._renew_after = RENEW_AFTER

    async def run(self) -> None:
        """Keep Kopf running; ends by cancellation only."""
        pause = FIRST_PAUSE
        while True:
            began = self._clock.monotonic()
            one = Round(self._begin)
            try:
                why = await self._why_to_renew(one)
            finally:
                await one.stop(END_WITHIN)
            if self._clock.monotonic() - began > CALM:
                pause = FIRST_PAUSE
            log.warning("The watches are begun anew in %.1f s: %s.", pause, why)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)

    async def _why_to_renew(self, one: Round) -> str:
        """Return why this round must be followed by another, as soon as it must."""
        began = self._clock.monotonic()
        while True:
            await asyncio.wait({one.ended}, timeout=CHECK_EVERY)
            if one.ended.done():
                error = one.ended.result()
                return f"they ended by {type(error).__name__}: {str(error)[:200]}" if error is not None else "they ended"
            dead = min(await self._dead_for(), self._clock.monotonic() - began)
            if dead < CHECK_EVERY:
                self._renew_after = RENEW_AFTER
            elif dead > self._renew_after:
                self._renew_after = min(self._renew_after * 2, LAST_RENEWAL)
                return f"one of them has not been connected for {dead:.0f} s"
