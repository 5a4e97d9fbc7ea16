"""Virtual time: an event loop whose clock jumps to the next thing that is due; ten minutes take a moment. No sockets, no threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

START = datetime(2027, 1, 4, 12, 0, 0, tzinfo=UTC)
"""Wall time at which every simulation begins."""


class NothingLeft(RuntimeError):  # noqa: N818  says what happened
    """Every task waits for something that nobody will ever do."""


class _Jump:
    """Stands where a loop keeps its selector: instead of waiting it lets the time pass."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            msg = f"nothing is due any more at {self._loop.time():.3f} s"
            raise NothingLeft(msg)
        if timeout > 0:
            self._loop.passed += timeout
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs ready tasks in order, then jumps. What it runs is a pure function of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0
        self.connect: Callable[[Callable[[], Any], str, int], Awaitable[Any]] | None = None
        """Who answers `create_connection`."""
        self._selector = _Jump(self)

    def time(self) -> float:
        """Return the virtual time in seconds since the start."""
        return self.passed

    def _process_events(self, event_list: list[Any]) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody is to be woken: there are no threads."""

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Do at once what a thread would do."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    async def create_connection(self, *_args: Any, **_options: Any) -> Any:
        """Connect in the simulated network."""
        if self.connect is None:
            raise OSError
        factory, host, port = _args
        return await self.connect(factory, host, port)


class SimClock:
    """The clock of one simulated process; `skew` seconds ahead of true time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, skew: float = 0.0) -> None:
        self._loop = loop
        self._start = START + timedelta(seconds=skew)

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        return self._start + timedelta(seconds=self._loop.time())

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._loop.time()


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run `main` to its end on a loop of its own; whatever it leaves behind is cancelled."""
    loop = VirtualLoop()
    # Cancelled tasks of killed processes end in errors that nobody awaits: that is what a kill is.
    loop.set_exception_handler(lambda *_: None)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        try:
            for _ in range(20):
                tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
                if not tasks:
                    break
                for task in tasks:
                    task.cancel()
                loop.run_until_complete(asyncio.wait(tasks, timeout=5))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
