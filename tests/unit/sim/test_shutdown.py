"""The upstream ends when it is stopped, also when others come straight back."""

import asyncio

import aiohttp
import pytest

from wabiz_sim.members import Members
from waiting import LONG

from .world import World

PATHS = {"node": "ws/node?pod=p&ip=1&uid=u", "gateway": "ws/gateway?shard=0&shards=1&epoch=1-a&uid=u"}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
async def test_one_that_comes_back_during_the_shutdown_does_not_hold_up_the_end(
    world: World, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await world.upstream()
    opened: asyncio.Queue[int] = asyncio.Queue()
    closes: list[int | None] = []
    close = Members.close

    async def come_back() -> None:
        while True:
            try:
                async with world.session.ws_connect(f"http://{world.address(250)}:8080/{path}") as socket:
                    opened.put_nowait(1)
                    async for _ in socket:
                        pass
                    closes.append(socket.close_code)
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.005)

    async def slow(members: Members, code: int) -> None:
        await close(members, code)
        await asyncio.wait_for(opened.get(), LONG)  # another party takes that long to answer

    monkeypatch.setattr(Members, "close", slow)
    comer = asyncio.create_task(come_back())
    try:
        await asyncio.wait_for(opened.get(), LONG)
        async with asyncio.timeout(LONG):
            await server.stop(2 * LONG)
    finally:
        comer.cancel()
        await asyncio.wait({comer})
    assert closes[:2] == [1001, 1001]
