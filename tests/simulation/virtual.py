"""Virtual time: an event loop whose clock jumps to the next thing that is due; ten minutes take a moment. No sockets, no threads.

What runs in the context of a `Process` belongs to it, and stands still while it is stopped, as after SIGSTOP; all else is the world.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from .crashes import Crashes

T = TypeVar("T")

RESOLUTION = 1e-9
"""Timers that are due within so many seconds run together."""
FEW = 50
"""Cancelled timers that may stay in the heap."""
START = datetime(2027, 1, 4, 12, 0, 0, tzinfo=UTC)
"""Wall time at which every simulation begins."""


class NothingLeft(RuntimeError):  # noqa: N818  says what happened
    """Every task waits for something that nobody will ever do."""


class Process:
    """One process of an operator: its tasks and timers, which can be stopped and go on."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self._loop = loop
        self.name = name
        self.context = Context()
        """Everything that begins in it belongs to the process."""
        self.context.run(PROCESS.set, self)
        self.is_stopped = False
        self.pauses: list[tuple[float, float]] = []
        """When it was stopped and when it went on."""
        self.cut_off: Callable[[str], bool] = lambda _: False
        """Tells of a node whether this process is cut off from it."""
        self._waiting: list[asyncio.Handle] = []
        self._timers: list[asyncio.TimerHandle] = []

    def stop(self) -> None:
        """Do not run any more."""
        if not self.is_stopped:
            self.is_stopped = True
            self.pauses.append((self._loop.time(), self._loop.time()))
            self._timers = self._loop.take_timers(self)

    def go_on(self) -> None:
        """Run again; what became due meanwhile comes first."""
        if self.is_stopped:
            self.is_stopped = False
            self.pauses[-1] = (self.pauses[-1][0], self._loop.time())
            self._loop.give_back(self, self._timers, self._waiting)
            self._timers, self._waiting = [], []

    def put_off(self, handle: asyncio.Handle) -> None:
        """Keep for later what is to run."""
        self._waiting.append(handle)

    def awake_since(self, at: float) -> float:
        """Return the seconds in which it ran since a time."""
        now = self._loop.time()
        paused = sum(max(0.0, end - max(begin, at)) for begin, end in self.pauses if end > at)
        return now - at - paused - (max(0.0, now - max(self.pauses[-1][0], at)) if self.is_stopped else 0.0)


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)
"""Whose code runs; None: the world's."""


def outside(do: Callable[..., T], *args: Any) -> T:
    """Call what belongs to the world and not to the process that calls."""
    return Context().run(do, *args)


class _Handle(asyncio.Handle):
    """A handle without the means for debugging, which ask the loop twice for each of very many."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., object], args: Any, loop: VirtualLoop, context: Context | None) -> None:
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = self._source_traceback = None


class _Timer(asyncio.TimerHandle):
    """The same of a timer."""

    __slots__ = ()

    def __init__(self, when: float, callback: Callable[..., object], args: Any, loop: VirtualLoop, context: Context | None) -> None:
        self._when = when
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._scheduled = True
        self._repr = self._source_traceback = None


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs ready tasks in order, then jumps. What it runs is a pure function of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self._ready: deque[asyncio.Handle]
        self._stopping: bool
        self._timers: list[tuple[float, asyncio.TimerHandle]] = []
        """A heap. Pairs are compared without a call of Python code, unlike the handles alone."""
        self._cancelled = 0
        """Timers in the heap that were cancelled."""
        self.passed = 0.0
        self._stopped: set[Process] = set()
        self.connect: Callable[[Callable[[], Any], str, int], Awaitable[Any]] | None = None
        """Who answers `create_connection`."""
        self.crashes = Crashes(self.time)
        self.set_exception_handler(self.crashes.of_loop)
        self.set_task_factory(self.crashes.make_task)

    def time(self) -> float:
        """Return the virtual time in seconds since the start."""
        return self.passed

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call something after some seconds."""
        when = self.passed + delay
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, timer))
        return timer

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call something at a time."""
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, timer))
        return timer

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call something next."""
        self._check_closed()  # type: ignore[attr-defined]
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def _timer_handle_cancelled(self, handle: Any) -> None:
        self._cancelled += handle._scheduled

    def take_timers(self, process: Process) -> list[asyncio.TimerHandle]:
        """Stop a process: take what it waits for out of the time that passes."""
        taken = [timer for _, timer in self._timers if timer._context.get(PROCESS) is process]  # type: ignore[attr-defined]
        for timer in taken:
            timer._scheduled = False  # type: ignore[attr-defined]
        self._keep([(when, timer) for when, timer in self._timers if timer._scheduled])  # type: ignore[attr-defined]
        self._stopped.add(process)
        return taken

    def give_back(self, process: Process, timers: list[asyncio.TimerHandle], handles: list[asyncio.Handle]) -> None:
        """Let a process go on: what came for it first, then its timers."""
        self._stopped.discard(process)
        self._ready.extend(handles)
        for timer in timers:
            if not timer.cancelled():
                timer._scheduled = True  # type: ignore[attr-defined]
                heapq.heappush(self._timers, (timer.when(), timer))

    def _keep(self, timers: list[tuple[float, asyncio.TimerHandle]]) -> None:
        heapq.heapify(timers)
        self._timers = timers

    def _run_once(self) -> None:
        """Do what is ready; if nothing is, let the time pass until the next timer."""
        for _ in range(len(self._ready) if self._stopped else 0):
            handle = self._ready.popleft()
            process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
            if process is not None and process.is_stopped:
                process.put_off(handle)
            else:
                self._ready.append(handle)
        if self._timers and (self._timers[0][1]._cancelled or self._cancelled > max(FEW, len(self._timers) / 2)):
            self._drop_cancelled()
        ready, timers = self._ready, self._timers
        if not ready and not self._stopping:
            if not timers:
                raise NothingLeft(f"nothing is due any more at {self.passed:.3f} s")
            self.passed += max(0.0, timers[0][0] - self.passed)
        now = self.passed + RESOLUTION
        while timers and timers[0][0] < now:
            _, timer = heapq.heappop(timers)
            timer._scheduled = False  # type: ignore[attr-defined]
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:  # a call for each of very many costs time
                try:
                    handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # as a handle does itself
                    message = f"Exception in callback {handle._callback!r}"  # type: ignore[attr-defined]
                    self.call_exception_handler({"message": message, "exception": error, "handle": handle})

    def _drop_cancelled(self) -> None:
        """Forget timers that were cancelled: the first ones, or all of them once they are many."""
        if len(self._timers) > 2 * FEW and self._cancelled > len(self._timers) / 2:
            self._keep([(when, timer) for when, timer in self._timers if not timer.cancelled()])
            self._cancelled = 0
        timers = self._timers
        while timers and timers[0][1]._cancelled:
            heapq.heappop(timers)
            self._cancelled -= 1

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


class MachineClocks:
    """The two clocks of one machine; its wall clock is `skew` seconds ahead of true time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, skew: float = 0.0) -> None:
        self._loop = loop
        self._zero = START + timedelta(seconds=skew)

    def wall(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        return self._zero + timedelta(seconds=self._loop.time())

    def seconds(self) -> float:
        """Return seconds that never go back."""
        return self._loop.time()

    def step(self, seconds: float) -> None:
        """Set the machine's wall clock forward, or back."""
        self._zero += timedelta(seconds=seconds)


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run `main` to its end on a loop of its own; all that it leaves behind is cancelled."""
    loop = VirtualLoop()
    with loop.crashes.collecting():
        result = _run(loop, main)
    loop.crashes.check()
    return result


def _run(loop: VirtualLoop, main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
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
