"""Faults of the API server, of the connection to it, and of the operators: they affect all clusters at once."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from localkube.hollow.kube import KubeError
from localkube.scenarios.faults.actions import Hollow, close_ports, delete
from localkube.scenarios.hollow.servers import Rule, led, through

THROTTLED_S = 10.0
CUT_S = 20.0
PAUSE_S = 60.0
HANG_S = 30.0  # longer than any watch stays on a server that hangs
RENEWED_S = 5.0  # an operator has its watches again within this time
UNANSWERED_S = 0.5  # an API server that has not answered for this long counts as down
SIGNAL_S = 5.0  # a signal takes effect within this time


@asynccontextmanager
async def counted(case: Hollow, what: str, count: Callable[[], int]) -> AsyncIterator[None]:
    """Note in the case's effects by how much a count rises while the block lasts."""
    before = count()
    try:
        yield
    finally:
        case.effects[what] += count() - before


async def api_down(case: Hollow, seconds: float) -> None:
    """The API server is stopped for so long; a second into it the ports of a holder of each cluster close."""
    apiserver = case.environment.harness.plane.apiserver
    apiserver.pause()
    try:
        begun = time.monotonic()
        # On a busy machine, a process keeps running for a while until the signal takes effect.
        await case.environment.until(partial(_is_away, case), SIGNAL_S, "that the stopped API server answers no more")
        case.effects["API calls unanswered"] += 1
        await asyncio.sleep(begun + 1.0 - time.monotonic())
        await close_ports(case)
        await asyncio.sleep(begun + seconds - time.monotonic())
    finally:
        apiserver.resume()
    case.make_possible()


async def _is_away(case: Hollow) -> bool:
    """Whether the API server leaves a call unanswered, by a caller that no fault meets."""
    try:
        async with asyncio.timeout(UNANSWERED_S):
            await case.environment.api.get("/version")
    except (TimeoutError, KubeError):
        return True
    return False


async def one_hangs(case: Hollow) -> None:
    """A load balancer leads the operators to two API servers. One of them hangs, and a holder of each cluster is deleted at once.

    30 s later it goes on: until then every watch that was open on it has begun again.
    """
    environment, plane = case.environment, case.environment.harness.plane
    server, address = await asyncio.to_thread(plane.start_another_apiserver)
    case.exits.push_async_callback(asyncio.to_thread, plane.end_another_apiserver, server)
    wires = [*environment.wires.values()]
    await case.exits.enter_async_context(led(wires, wires[0].to, address))
    await environment.seen(lambda: all(wire.leading_to(address) for wire in wires), SIGNAL_S, "a connection to the other API server")
    await asyncio.sleep(RENEWED_S)

    async def go_on() -> None:
        await asyncio.sleep(max(0.0, stopped + HANG_S - time.monotonic()))
        server.resume()

    stopped = time.monotonic()
    case.exits.push_async_callback(go_on)
    server.pause()
    await environment.seen(server.is_paused, SIGNAL_S, "the stop of the other API server")
    case.effects["connections to an API server that hangs"] += sum(wire.leading_to(address) for wire in wires)
    await delete(case)


async def watches_die(case: Hollow) -> None:
    """Every connection between operators and API server goes silent without being closed; then a holder of each cluster is deleted."""
    wires = case.environment.wires
    await case.exits.enter_async_context(counted(case, "pieces swallowed", lambda: sum(wire.swallowed for wire in wires.values())))
    case.effects["watches cut"] += sum(wire.black_hole() for wire in wires.values())
    await delete(case)


async def throttled(case: Hollow) -> None:
    """For 10 s the operators' requests are all answered 429; a second into it the ports of a holder of each cluster close."""
    proxy = case.environment.proxy
    async with (
        counted(case, "calls answered 429", lambda: proxy.answered[429]),
        through(proxy, list(case.environment.wires.values()), Rule(429)),
    ):
        await asyncio.sleep(1.0)
        await close_ports(case)
        await asyncio.sleep(THROTTLED_S - 1.0)
    case.make_possible()


async def kill_leader(case: Hollow, *, holders_too: bool = False) -> None:
    """kill -9 for the leader, and perhaps a holder of each cluster is deleted in the same instant; then a new replica, as the Deployment
    would start it. Without holders no other is struck, so nothing may be handed over, and measured is that messages go on."""
    process = await case.environment.leading()

    async def replace() -> None:
        await case.environment.replace(process.name)
        case.effects["operators ended"] += not process.alive()

    case.exits.push_async_callback(replace)
    process.signal(signal.SIGKILL)
    if holders_too:
        await delete(case)
        return
    for cluster in case.clusters:
        case.strike(cluster, 0)
    case.struck.clear()  # nothing was done to them


async def pause_leader(case: Hollow) -> None:
    """SIGSTOP for the leader; a holder of each cluster is deleted in the same instant.

    SIGCONT comes 60 s after the stop: for a moment, the old leader believes that it still leads.
    """
    process = await case.environment.leading()

    async def wake() -> None:
        await asyncio.sleep(max(0.0, case.begun + PAUSE_S - time.monotonic()))
        process.signal(signal.SIGCONT)

    case.exits.push_async_callback(wake)
    process.signal(signal.SIGSTOP)
    await delete(case)
    await case.environment.seen(process.is_paused, SIGNAL_S, f"the stop of {process.name}")
    case.effects["operators stopped"] += 1


async def cut_leader_off(case: Hollow) -> None:
    """The network between the leader and the API server is cut; a holder of each cluster is deleted in the same instant.

    20 s after the cut the network is back, and what was in transit arrives.
    """
    wire = case.environment.wires[await case.environment.leader()]

    async def heal() -> None:
        await asyncio.sleep(max(0.0, case.begun + CUT_S - time.monotonic()))
        case.effects["pieces held"] += wire.held - before
        wire.heal()

    before = wire.held
    case.exits.push_async_callback(heal)
    wire.cut()
    await delete(case)
