"""A Lease in memory whose calls can hang, fail, get lost and come late, and processes that campaign for it in virtual time.

Each candidate is a process of its own: it can be stopped (SIGSTOP) and go on later with all that came due meanwhile, and a killed one is
stopped forever. At every instant at most one may lead.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from copy import deepcopy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from whatsapp_operator.shell.kube.errors import AlreadyExists, Conflict, NotFound, Unavailable
from whatsapp_operator.shell.kube.lease import Election, Leadership, Timings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator

    from whatsapp_operator.shell.kube.kinds import Kind, Obj
    from whatsapp_operator.shell.kube.lease import Watch

LATENCY = 0.005


class Server:
    """The API server, as far as one Lease goes."""

    def __init__(self) -> None:
        self.lease: Obj | None = None
        self.version = 100
        self.writes: list[tuple[float, str, int]] = []
        self.streams: list[asyncio.Queue[tuple[str, Obj]]] = []

    def store(self, what: str, obj: Obj) -> Obj:
        if what == "MODIFIED" and self.lease and obj["spec"] == self.lease["spec"]:
            return deepcopy(self.lease)  # a write that changes nothing is none
        self.version += 1
        self.lease = deepcopy(obj)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        self.writes.append((now(), obj["spec"]["holderIdentity"], obj["spec"]["leaseTransitions"]))
        self.tell(what)
        return deepcopy(self.lease)

    def delete(self) -> None:
        if self.lease:
            self.tell("DELETED")
        self.lease = None

    def tell(self, what: str) -> None:
        for stream in self.streams:
            stream.put_nowait((what, deepcopy(self.lease or {})))

    @property
    def holder(self) -> str:
        return str(self.lease["spec"]["holderIdentity"]) if self.lease else ""


class Process:
    """A candidate: its own network, its own clock, its own will to run."""

    def __init__(self, world: World, identity: str, *, watching: bool = True, skew: float = 0.0, rate: float = 1.0) -> None:
        self.world = world
        self.identity = identity
        self.server = world.server
        self.skew, self.rate = skew, rate
        self.latency: Callable[[], float] = lambda: LATENCY
        self.down = False  # connection refused
        self.hanging = False  # sent, never arrives, never answered
        self.mute = False  # arrives, is never answered
        self.deaf = False  # its watch is a black hole
        self.calls = 0
        self.awake = asyncio.Event()
        self.awake.set()
        self.works: list[Leadership] = []
        self.working = 0
        self.work: Callable[[Leadership], Awaitable[None]] = self.busy
        watch: Watch | None = self.watch if watching else None
        self.election = Election(
            self,
            namespace="ns",
            name="op",
            identity=identity,
            watch=watch,
            timings=world.timings,
            clock=self.clock,
            wall=lambda: datetime(2000, 1, 1, tzinfo=UTC),  # useless on purpose: it stands still
        )
        self.task: asyncio.Task[None] | None = None

    def clock(self) -> float:
        return now() * self.rate + self.skew

    def start(self) -> None:
        token = PROCESS.set(self)
        self.task = asyncio.create_task(self.election.run(self.perform))
        PROCESS.reset(token)

    def stop(self) -> None:
        self.awake.clear()

    def go_on(self) -> None:
        self.awake.set()

    async def perform(self, term: Leadership) -> None:
        self.works.append(term)
        self.working += 1
        try:
            await self.work(term)
        finally:
            self.working -= 1

    async def busy(self, term: Leadership) -> None:
        while True:
            await asyncio.sleep(0.05)
            if self.election.seconds_left() > 2:  # the fence
                self.world.writes.append((now(), self.identity, term.epoch))
                assert [p.identity for p in self.world.processes if p.election.leading] == [self.identity]

    # its client

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        found: Obj | None = await self.call(lambda: deepcopy(self.server.lease))
        return found

    async def create(self, obj: Obj) -> Obj:
        def creating() -> Obj:
            if self.server.lease is not None:
                raise AlreadyExists("create: 409 AlreadyExists")
            return self.server.store("ADDED", obj)

        created: Obj = await self.call(creating)
        return created

    async def replace(self, obj: Obj) -> Obj:
        def replacing() -> Obj:
            if self.server.lease is None:
                raise NotFound("replace: 404")
            if self.server.lease["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
                raise Conflict("replace: 409 Conflict")
            return self.server.store("MODIFIED", obj)

        replaced: Obj = await self.call(replacing)
        return replaced

    async def call(self, act: Callable[[], Any]) -> Any:
        """Perform `act` at the server; giving up waiting for the answer does not call it back."""
        self.calls += 1
        if self.down:
            raise Unavailable("connection refused")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        delays = self.latency(), self.latency()

        def arrive() -> None:
            if self.hanging:
                return
            try:
                result, error = act(), None
            except Exception as e:
                result, error = None, e
            if not self.mute:
                loop.call_later(delays[1], settle, result, error)

        def settle(result: Any, error: Exception | None) -> None:
            if not answer.done():
                answer.set_exception(error) if error else answer.set_result(result)

        loop = asyncio.get_running_loop()
        loop.call_later(delays[0], arrive)
        return await answer

    async def watch(self, kind: Kind, namespace: str | None, *, name: str | None, server_timeout: int) -> AsyncGenerator[tuple[str, Obj]]:
        if self.down:
            raise Unavailable("connection refused")
        stream: asyncio.Queue[tuple[str, Obj]] = asyncio.Queue()
        if self.server.lease:
            stream.put_nowait(("ADDED", deepcopy(self.server.lease)))
        self.server.streams.append(stream)
        try:
            while True:
                event = await stream.get()
                await asyncio.sleep(LATENCY)
                if not (self.deaf or self.hanging):
                    yield event
        finally:
            self.server.streams.remove(stream)


class World:
    """One server, some processes, and the law that is checked all the time."""

    def __init__(self, timings: Timings) -> None:
        self.timings = timings
        self.server = Server()
        self.processes: list[Process] = []
        self.writes: list[tuple[float, str, int]] = []
        self.epochs: dict[int, str] = {}
        self.epochs_repeat = False  # a deleted Lease forgets its number

    def process(self, identity: str, **more: Any) -> Process:
        process = Process(self, identity, **more)
        self.processes.append(process)
        process.start()
        return process

    def leaders(self) -> list[str]:
        return [p.identity for p in self.processes if p.election.leading]

    def check(self) -> None:
        leaders = self.leaders()
        assert len(leaders) <= 1, f"{leaders} lead at {now()}"
        for process in self.processes:
            if (epoch := process.election.epoch) is not None and not self.epochs_repeat:
                assert self.epochs.setdefault(epoch, process.identity) == process.identity
            if process.task and process.task.done() and not process.task.cancelled():
                process.task.result()
            for term in process.works[:-1]:
                assert term != process.works[-1]

    async def leader(self, within: float = 10.0) -> Process:
        """Wait until one works as the leader."""
        async with asyncio.timeout(within):
            while not (leading := [p for p in self.processes if p.election.leading and p.working]):
                await asyncio.sleep(0.004)
        return leading[0]


def now() -> float:
    return asyncio.get_running_loop().time()


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)


def gated(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
    """Create a task that, if it belongs to a stopped process, takes no step until that goes on."""
    process = PROCESS.get()
    return asyncio.Task(coroutine if process is None else step(coroutine, process.awake), loop=loop, **options)


async def step(coroutine: Coroutine[Any, Any, Any], awake: asyncio.Event) -> Any:
    class Steps:
        def __await__(self) -> Generator[Any, Any, Any]:
            value: Any = None
            error: BaseException | None = None
            while True:
                while not awake.is_set():
                    try:
                        yield from awake.wait().__await__()
                    except asyncio.CancelledError as e:  # a timer that came due; it is dealt with when the loop goes on
                        error = e
                try:
                    request = coroutine.throw(error) if error else coroutine.send(value)
                except StopIteration as e:
                    return e.value
                try:
                    value, error = (yield request), None
                except BaseException as e:
                    value, error = None, e

    return await Steps()


@asynccontextmanager
async def a_world(timings: Timings | None = None) -> AsyncIterator[World]:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(gated)  # type: ignore[arg-type]  # typeshed's protocol is narrower than what the loop calls
    world = World(timings or Timings())

    async def police() -> None:
        while True:
            world.check()
            await asyncio.sleep(0.02)

    policing = asyncio.create_task(police())
    try:
        yield world
        world.check()
    finally:
        loop.set_task_factory(None)
        for process in world.processes:
            process.go_on()
            assert process.task
            process.task.cancel()
        await asyncio.gather(*(p.task for p in world.processes if p.task), return_exceptions=True)
        policing.cancel()
        with suppress(asyncio.CancelledError):
            await policing
