"""Connections to the API server: none is left open by a call that is cancelled, and a server that is slow gets few reads more."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import httpx2
import pytest

from localkube.hollow.kube import Kube
from localkube.kubeconfig import Access
from whatsapp_operator.shell.kube.transport import MOST_AGAIN, SLOW, ReconnectingTransport


async def through_lines(url: str) -> None:
    lines = ReconnectingTransport(lambda: httpx2.AsyncHTTPTransport(trust_env=False))
    async with httpx2.AsyncClient(transport=lines, trust_env=False) as client:
        await client.get(url)


async def through_hollow_nodes(url: str) -> None:
    async with Kube(Access(server=url, authority="")) as kube:
        await kube.get("/api/v1/nodes")


async def by_a_hollow_watch(url: str) -> None:
    async with Kube(Access(server=url, authority="")) as kube:
        await anext(kube.watch("/api/v1/nodes", "0"))


@pytest.mark.parametrize("call", [through_lines, through_hollow_nodes, by_a_hollow_watch])
async def test_a_call_cancelled_in_the_tls_handshake_closes_its_connection(call: Callable[[str], Awaitable[None]]) -> None:
    greeted, closed = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)  # the client's half of the handshake, which gets no answer
        greeted.set()
        await reader.read()
        closed.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        with warnings.catch_warnings(record=True) as left:
            warnings.simplefilter("always", ResourceWarning)
            calling = asyncio.ensure_future(call(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
            async with asyncio.timeout(60):
                await greeted.wait()
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            async with asyncio.timeout(60):
                await closed.wait()
            del calling
            gc.collect()
    assert [str(one.message) for one in left] == []


class Body(httpx2.AsyncByteStream):
    is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{}"

    async def aclose(self) -> None:
        self.is_closed = True


class Pool(httpx2.AsyncBaseTransport):
    """Answers the n-th call after so many seconds; what is cancelled takes a moment to end, as a connection that is closed does."""

    def __init__(self, *delays: float, otherwise: float = 0.0) -> None:
        self.delays, self.otherwise = [*delays], otherwise
        self.statuses = list[int]()
        self.bodies = list[Body]()
        self.calls = 0
        self.cancelled = asyncio.Event()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.calls += 1
        status = self.statuses.pop(0) if self.statuses else 200
        try:
            await asyncio.sleep(self.delays.pop(0) if self.delays else self.otherwise)
        except asyncio.CancelledError:
            self.cancelled.set()
            await asyncio.sleep(0.1)
            raise
        self.bodies.append(Body())
        return httpx2.Response(status, stream=self.bodies[-1])


async def read(transport: ReconnectingTransport) -> None:
    await (await transport.handle_async_request(httpx2.Request("GET", "http://a"))).aclose()


@pytest.mark.looptime(noop_cycles=0)
async def test_a_read_that_is_cancelled_after_its_answer_closes_that_as_well() -> None:
    """The answer came over the second connection, and the call over the first one is still being given up."""
    pool = Pool(3600)
    reading = asyncio.create_task(read(ReconnectingTransport(lambda: pool)))
    await pool.cancelled.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert [body.is_closed for body in pool.bodies] == [True]


@pytest.mark.looptime(noop_cycles=0)
async def test_a_server_that_is_very_slow_gets_few_reads_more_at_the_same_time() -> None:
    pool = Pool(otherwise=3600)
    transport = ReconnectingTransport(lambda: pool)
    reads = [asyncio.create_task(read(transport)) for _ in range(20)]
    await asyncio.sleep(60)
    assert pool.calls == 20 + MOST_AGAIN
    for one in reads:
        one.cancel()
    await asyncio.wait(reads)
    assert all(one.cancelled() for one in reads)


@pytest.mark.looptime(noop_cycles=0)
@pytest.mark.parametrize("delay", [SLOW * 1.1, SLOW * 1.9])
async def test_of_a_server_that_is_merely_slow_few_reads_are_sent_again(delay: float) -> None:
    """Each of them costs a connection, and more work of a server that may have too much of it."""
    pool = Pool(otherwise=delay)
    transport = ReconnectingTransport(lambda: pool)
    for _ in range(20):
        await asyncio.gather(read(transport), read(transport))
    assert pool.calls <= 40 + 2


@pytest.mark.looptime(noop_cycles=0)
@pytest.mark.parametrize("last", [0.01, 60.0])
async def test_once_it_answers_as_before_reads_are_sent_again_as_soon_as_before(last: float) -> None:
    """Or once the answer came to what was sent again: then it is one server of several that is slow."""
    pool = Pool(SLOW * 1.5, SLOW * 1.5, SLOW * 1.5, last)
    transport = ReconnectingTransport(lambda: pool)
    for _ in range(2):
        await read(transport)
    pool.delays = [last]
    await read(transport)
    pool.delays, began = [3600.0], asyncio.get_running_loop().time()
    await read(transport)
    assert asyncio.get_running_loop().time() - began < SLOW * 1.5


@pytest.mark.looptime(noop_cycles=0)
@pytest.mark.parametrize(
    ("delays", "statuses", "expected", "after"),
    [
        ([SLOW * 1.5, 0.0], [200, 503], 200, SLOW * 1.5),
        ([3600.0, 0.0, 0.0], [200, 503, 200], 200, SLOW * 2 + 0.1),
        ([SLOW * 1.5, 0.0], [404, 503], 404, SLOW * 1.5),
        ([SLOW * 1.5, 0.0], [500, 503], 500, SLOW * 1.5),
        ([0.0], [503], 503, 0.0),
    ],
    ids=["the first one", "the third one", "not there", "none", "at once"],
)
async def test_a_server_that_fails_says_nothing_for_the_other_one(
    delays: list[float], statuses: list[int], expected: int, after: float
) -> None:
    """One of several API servers may be slow while another one ends, or its load balancer says that it is gone."""
    pool = Pool(*delays)
    pool.statuses = [*statuses]
    transport = ReconnectingTransport(lambda: pool)
    began = asyncio.get_running_loop().time()
    answer = await transport.handle_async_request(httpx2.Request("GET", "http://a"))
    assert answer.status_code == expected
    assert asyncio.get_running_loop().time() - began == pytest.approx(after)
    await answer.aclose()
    assert all(body.is_closed for body in pool.bodies)


@pytest.mark.looptime(noop_cycles=0)
@pytest.mark.parametrize(
    ("delays", "counted"),
    [
        ([0.0], {}),
        ([SLOW * 1.5, 3600], {"first": 1}),
        ([3600, 0.0], {"later": 1}),
        ([3600, 3600, 0.0], {"later": 1}),
        ([3600] * 3, {"none": 1}),
    ],
    ids=["sent once", "the first one", "the second one", "the third one", "none"],
)
async def test_reads_that_are_sent_again_count_by_the_one_that_was_answered(delays: list[float], counted: dict[str, int]) -> None:
    pool = Pool(*delays)
    transport = ReconnectingTransport(lambda: pool)
    with suppress(TimeoutError):
        async with asyncio.timeout(60):
            await read(transport)
    assert transport.sent_again == {"first": 0, "later": 0, "none": 0} | counted
