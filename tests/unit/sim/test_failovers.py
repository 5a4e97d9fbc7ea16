"""Many failovers under load: nothing is lost, nothing is taken twice, never two hold one shard."""

import asyncio
import itertools
import random

import aiohttp
import pytest

from wabiz_sim.coreapp import Coreapp
from waiting import until

from .world import World, recipient


class _Sender:
    """Sends without a pause; a retry repeats its id."""

    def __init__(self, world: World, name: str, to: str) -> None:
        self._world = world
        self._name = name
        self._to = to
        self.sent: list[str] = []

    async def run(self, enough: asyncio.Event) -> None:
        for number in itertools.count():
            if enough.is_set():
                return
            await self._deliver(f"{self._name}-{number}")

    async def _deliver(self, message_id: str) -> None:
        for _ in range(20):
            try:
                if (await self._world.send(self._to, message_id))[0] == 201:
                    self.sent.append(message_id)
                    return
            except (aiohttp.ClientError, OSError):
                continue
        pytest.fail(f"{message_id} was never delivered")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_failovers_under_load(world: World, seed: int) -> None:
    chance = random.Random(seed)
    server, _, _ = await world.cluster(3)
    cores = dict(enumerate(process for process in world.processes if isinstance(process, Coreapp)))
    holder = 0
    await world.serve(0, 0, "1-a")
    enough = asyncio.Event()
    senders = [_Sender(world, f"s{number}", recipient(0, 1, number)) for number in range(4)]
    sending = [asyncio.create_task(sender.run(enough)) for sender in senders]

    for epoch in range(2, 14):
        old, holder = holder, (holder + chance.choice((1, 2))) % 3
        what = chance.choice(("kill", "hang", "switch", "nobody tells the old one", "upstream"))
        if what == "kill":
            await cores[old].kill()
        elif what == "hang":
            cores[old].hang()
        elif what == "upstream":
            await server.kill()
            server = await world.upstream()
        await until(lambda core=cores[holder]: core.shards is not None)
        world.route(0, holder)
        assert (await world.tell(holder, 0, f"{epoch}-x"))[0] == 200
        if what == "switch":
            await world.tell(old, 0, f"{epoch}-x", holder=holder)
        await world.until_connected(holder)
        goal = sum(len(sender.sent) for sender in senders) + 20
        await until(lambda goal=goal: sum(len(sender.sent) for sender in senders) >= goal)
        if what == "kill":
            cores[old] = await world.coreapp(old)
        elif what == "hang":
            cores[old].resume()

    enough.set()
    await asyncio.gather(*sending)
    ids = [message_id for sender in senders for message_id in sender.sent]
    assert (await world.control("missing", {"ids": ids})) == {"missing": []}
    counters = await world.control("counters")
    assert counters["accepted"] == {"0": len(ids)}
    assert (await world.control("audit"))["two_holders"] == 0
    assert counters["active"] == {"0": 1}
