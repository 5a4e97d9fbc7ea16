"""Keeps Kopf watching: in its own thread and event loop, restarted when it ends or a watch stays dead.

Kopf ends on answers that it does not expect, and its shutdown may hang on a task that was cancelled at the wrong moment. In its own thread
it can be abandoned in any state; events of an abandoned thread are ignored.
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
"""Calls a callable in the event loop of the operator."""

FIRST_PAUSE: Final = 0.2
LAST_PAUSE: Final = 10.0
"""Seconds between an end and the next start; doubled each time."""
CALM: Final = 60.0
"""Seconds of running after which an end no longer counts as a repeated one."""
RENEW_AFTER = 6.0
"""Seconds for which a watch may be dead before all are restarted; doubled up to `LAST_RENEWAL`. Kopf itself tries every 5 s."""
LAST_RENEWAL: Final = 60.0
CHECK_EVERY: Final = 0.5
END_WITHIN = 1.0
"""Seconds that Kopf has to end before it is abandoned."""
STRAYS_END_WITHIN: Final = 3.0
"""Seconds that the tasks that Kopf left running have to end. A watch of Kopf ends within 2 s: it waits that long for its workers."""


def _note_stray(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that Kopf did not await, usually of a cancelled call. What matters is whether the watches are connected."""
    log.debug("Kopf: %s", context.get("message"), exc_info=context.get("exception"))


class Round:
    """One run of Kopf, from start to end."""

    def __init__(self, begin: Callable[[Deliver], Coroutine[Any, Any, None]]) -> None:
        """Start the thread. It awaits ``begin``, whose argument calls callables in the event loop that runs now."""
        self._main = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_note_stray)
        self._task = self._loop.create_task(begin(self._deliver), name="kopf")
        self._is_left = False
        self.ended: asyncio.Future[BaseException | None] = self._main.create_future()
        """Resolved when Kopf has ended, with its exception if there was one."""
        threading.Thread(target=self._run, name="kopf", daemon=True).start()

    async def stop(self, within: float) -> None:
        """End it; after ``within`` seconds it is abandoned."""
        self._is_left = True
        if not self.ended.done():
            self._call(self._task.cancel)
            await asyncio.wait({self.ended}, timeout=within)
        if not self.ended.done():
            log.warning("The watches did not end within %g s: they are abandoned.", within)
            self._call(self._loop.stop)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._loop.run_until_complete(self._task)
        except BaseException as e:  # the supervisor logs it
            error = e
        finally:
            # Errors of tasks that did not end are ignored.
            self._loop.set_exception_handler(lambda *_: None)
            self._end_strays()
            self._loop.close()
            with suppress(RuntimeError):  # the operator has ended before this thread
                self._main.call_soon_threadsafe(self._note_end, error)

    def _end_strays(self) -> None:
        """Cancel the tasks that Kopf left running, and let them end: a task that is freed while it waits prints errors."""
        strays = asyncio.all_tasks(self._loop)
        for task in strays:
            task.cancel()
        if strays:
            with suppress(RuntimeError):  # `stop` abandons them
                self._loop.run_until_complete(asyncio.wait(strays, timeout=STRAYS_END_WITHIN))

    def _note_end(self, error: BaseException | None) -> None:
        if not self.ended.done():
            self.ended.set_result(error)

    def _deliver(self, event: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the operator has ended before this thread
            self._main.call_soon_threadsafe(self._hand_over, event)

    def _hand_over(self, event: Callable[[], None]) -> None:
        if not self._is_left:
            event()

    def _call(self, what: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # it has just ended
            self._loop.call_soon_threadsafe(what)


class Supervisor:
    """Restarts Kopf when it ends or a watch stays dead."""

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
        """Keep Kopf running until cancelled."""
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
            log.warning("The watches are restarted in %.1f s: %s.", pause, why)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)

    async def _why_to_renew(self, one: Round) -> str:
        """Wait until this round must be replaced, and return why."""
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
