"""The life cycle of a component, like that of a container's process: start, stop, kill, hang, resume."""

import abc
import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress

import aiohttp

from .listener import Listener
from .resolve import Resolve, by_dns
from .settings import Settings

log = logging.getLogger(__name__)

_NEW, _RUNNING, _STOPPING, _STOPPED = "new", "running", "stopping", "stopped"


class Process(abc.ABC):
    """A component. It can be started once: a restarted container is a new object with the same settings."""

    linger_seconds = 0.0
    """Seconds for which it keeps serving after SIGTERM, because routes are updated late."""

    def __init__(self, settings: Settings, *, resolve: Resolve = by_dns) -> None:
        self.settings = settings
        self.resolve = resolve
        self.gate = asyncio.Event()
        """Closed while the component hangs: then nothing is answered, sent or decided."""
        self.gate.set()
        self.listeners: list[Listener] = []
        self.log = logging.LoggerAdapter(logging.getLogger(type(self).__module__), {"pod": settings.pod_name})
        self._state = _NEW
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._fresh_session: aiohttp.ClientSession | None = None
        self._stopped = asyncio.Event()
        self._failure: BaseException | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._killing: asyncio.Task[None] | None = None

    @abc.abstractmethod
    async def come_up(self) -> None:
        """Read durable state, listen, start background work."""

    async def announce_shutdown(self) -> None:  # noqa: B027 - most have no connections to close
        """Send close frames; called once on SIGTERM after the linger time."""

    async def let_go(self) -> None:  # noqa: B027 - most hold nothing else
        """Release the rest after listeners, tasks and connections are closed."""

    @property
    def ready(self) -> bool:
        """True while it listens, does not hang and is not stopping."""
        return self._state == _RUNNING and self.gate.is_set() and any(listener.listening for listener in self.listeners)

    @property
    def running(self) -> bool:
        """True from ``start`` until it has stopped."""
        return self._state in {_RUNNING, _STOPPING}

    @property
    def stopping(self) -> bool:
        """True from SIGTERM until it has stopped."""
        return self._state == _STOPPING

    @property
    def session(self) -> aiohttp.ClientSession:
        """The HTTP client for everything this component calls; it keeps connections, and resolves names again for each new one."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, use_dns_cache=False, keepalive_timeout=60)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session

    @property
    def fresh_session(self) -> aiohttp.ClientSession:
        """Like ``session``, but with a new connection for every call."""
        if self._fresh_session is None:
            connector = aiohttp.TCPConnector(limit=0, use_dns_cache=False, force_close=True)
            self._fresh_session = aiohttp.ClientSession(connector=connector)
        return self._fresh_session

    async def start(self) -> None:
        """Start.

        Raises OSError when an address is taken, SettingsError when a setting that this component needs is missing, RuntimeError when
        it was started before.
        """
        if self._state != _NEW:
            msg = f"{self.settings.pod_name} was started before; make a new object for a restarted container"
            raise RuntimeError(msg)
        self._state = _RUNNING
        try:
            await self.come_up()
        except BaseException:
            await self.kill()
            raise

    async def stop(self, grace: float) -> None:
        """Do what SIGTERM does: keep serving for the linger time, then stop; after ``grace`` seconds in total it is killed."""
        if self._state != _RUNNING:
            await self.kill()
            return
        self._state = _STOPPING
        deadline = asyncio.get_running_loop().time() + grace
        try:
            async with asyncio.timeout(grace):
                await self.gate.wait()
                if await self._killed_within(min(grace, self.linger_seconds)):
                    return
                await self.announce_shutdown()
                left = max(0.0, deadline - asyncio.get_running_loop().time())
                await asyncio.gather(*(listener.close(left) for listener in self.listeners))
        except TimeoutError:
            log.debug("%s did not stop within %.1f s and is killed", self.settings.pod_name, grace)
        await self.kill()

    async def kill(self) -> None:
        """Kill it: every listener and connection is closed at once, without close frames. May be called again."""
        if self._stopping is None:
            self._state = _STOPPED
            for listener in self.listeners:
                listener.abort()
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)  # the caller may be cancelled; it is finished all the same

    async def _stop(self) -> None:
        sessions = [session for session in (self._session, self._fresh_session) if session is not None]
        closing = [asyncio.ensure_future(session.connector.close()) for session in sessions if session.connector is not None]
        await asyncio.sleep(0)  # the connections are cut first, so that no cancelled task can send a close frame on them
        for task in self._tasks:
            task.cancel()
        try:
            if self._tasks:
                await asyncio.wait(set(self._tasks), timeout=5.0)
            await asyncio.gather(*(listener.close(0.0) for listener in self.listeners))
            await asyncio.gather(*closing, return_exceptions=True)
            for session in sessions:
                await session.close()
        finally:
            try:
                await self.let_go()
            finally:
                self._stopped.set()

    def hang(self) -> None:
        """Stop answering like a frozen process: connections stay open, and the kernel accepts new ones."""
        self.gate.clear()

    def resume(self) -> None:
        """Continue after ``hang``."""
        self.gate.set()

    async def wait_stopped(self) -> None:
        """Wait until it has stopped.

        Raises the error by which it ended, unless it was stopped.
        """
        await self._stopped.wait()
        if self._failure is not None:
            raise self._failure

    def spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run a background task that ends with the component; if it fails, the component ends with its error."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None or self._state == _STOPPED:
            return
        self._failure = task.exception()
        self.log.error("%s died", self.settings.pod_name, exc_info=self._failure)
        self._killing = asyncio.create_task(self.kill())

    async def _killed_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        return self._state == _STOPPED
