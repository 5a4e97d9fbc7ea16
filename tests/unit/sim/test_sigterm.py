"""What a caller gets when SIGTERM comes in the middle of its call. With processes, as a kubelet ends them."""

import asyncio
import itertools
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from waiting import LONG, until

from .test_main import _run
from .world import PASSWORD, World, closed

pytestmark = pytest.mark.slow

Component = asyncio.subprocess.Process
RECIPIENT = "16315550000"


@pytest.fixture
async def started(tmp_path: Path, world: World) -> AsyncIterator[dict[str, Component]]:
    """One of each, logged in; the Coreapp serves shard 0."""
    service = {"WABIZ_SHARD_SERVICE": f"{world.block}.1{{shard}}", "WABIZ_RESTART_SECONDS": "0.1"}
    parts = {
        part: await _run(world, part, number, tmp_path, **service) for part, number in (("upstream", 250), ("coreapp", 10), ("webapp", 200))
    }
    await until(lambda: _is(_logged_in(world)))
    await until(lambda: _is(_serves(world)))
    yield parts
    for one in parts.values():
        if one.returncode is None:
            one.kill()
        await one.communicate()


async def _is(call: Any) -> bool:
    try:
        return bool(await call)
    except (aiohttp.ClientError, OSError):
        return False


async def _logged_in(world: World) -> bool:
    return (await world.login(PASSWORD))[0] == 200 or (await world.login())[0] == 200


async def _serves(world: World, epoch: str = "1-a", shards: int = 1) -> bool:
    body = {"uid": "coreapp", "shard": 0, "epoch": epoch, "shards": shards}
    await world.call("POST", f"http://{world.address(10)}:6252/role", body)
    report: dict[str, Any] = (await world.call("GET", f"http://{world.address(10)}:6253/"))[1]
    return bool(report["gateway_status"] == "connected")


async def test_a_webapp_that_ends_cuts_no_call_of_a_caller_that_keeps_its_connection(world: World, started: dict[str, Component]) -> None:
    got: Counter[str] = Counter()
    headers = {"Authorization": f"Bearer {world.token}"}
    message = {"to": RECIPIENT, "type": "text", "text": {"body": "hello"}}

    async def sender() -> None:
        connector = aiohttp.TCPConnector(ssl=False, limit=1)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            while True:
                try:
                    async with session.post(f"https://{world.address(200)}:8443/v1/messages", json=message) as response:
                        got[str(response.status)] += 1
                        if response.headers.get("Connection") == "close":  # the next one goes to another Webapp
                            return
                except aiohttp.ClientError as error:
                    got[type(error).__name__] += 1
                    return

    senders = [asyncio.create_task(sender()) for _ in range(20)]
    await until(lambda: got["201"] > 100)
    started["webapp"].send_signal(signal.SIGTERM)
    await asyncio.wait_for(asyncio.gather(*senders), LONG)

    assert set(got) == {"201"}, got
    assert await asyncio.wait_for(started["webapp"].wait(), LONG) == 0
    assert closed(world.address(200), 8443)


async def test_a_call_that_a_webapp_has_begun_is_answered_before_it_ends(world: World, started: dict[str, Component]) -> None:
    await world.control("faults", {"call": "set_shards", "fault": "slow", "seconds": 4.0})
    call = asyncio.create_task(world.set_shards(2))
    await until(lambda: _is(_shards(world, 2)))
    started["webapp"].send_signal(signal.SIGTERM)

    assert (await call)[0] == 201
    assert await asyncio.wait_for(started["webapp"].wait(), LONG) == 0


async def _shards(world: World, shards: int) -> bool:
    counters: dict[str, Any] = await world.control("counters")
    return bool(counters["shards"] == shards)


@pytest.mark.parametrize("victim", ["coreapp", "upstream"])
async def test_what_was_answered_is_kept_and_what_was_not_can_be_sent_again(
    world: World, started: dict[str, Component], tmp_path: Path, victim: str
) -> None:
    answered: dict[str, int] = {}
    ended = asyncio.Event()

    async def sender(name: int) -> None:
        for number in itertools.count():
            one = f"{name}-{number}"
            while (status := await _sent(world, one)) != 201:
                answered[one] = status
            answered[one] = status
            if ended.is_set():
                return

    senders = [asyncio.create_task(sender(name)) for name in range(10)]
    await until(lambda: len(answered) > 100)
    started[victim].send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(started[victim].wait(), LONG) == 0
    number = {"upstream": 250, "coreapp": 10}[victim]
    started["again"] = await _run(world, victim, number, tmp_path, WABIZ_RESTART_SECONDS="0.1")
    await until(lambda: _is(_serves(world, "2-b")))
    ended.set()
    await asyncio.wait_for(asyncio.gather(*senders), LONG)

    assert set(answered.values()) == {201}
    assert (await world.control("missing", {"ids": list(answered)}))["missing"] == []
    counters = await world.control("counters")
    assert (counters["accepted"], counters["doubled"]) == ({"0": len(answered)}, 0)


async def _sent(world: World, message_id: str) -> int:
    try:
        return (await world.send(RECIPIENT, message_id))[0]
    except (aiohttp.ClientError, OSError):
        return 0


@pytest.mark.parametrize("pause", [0.0, 0.005])
async def test_set_shards_is_done_or_not_as_its_answer_says(
    world: World, started: dict[str, Component], tmp_path: Path, pause: float
) -> None:
    call = asyncio.create_task(world.set_shards(2))
    await asyncio.sleep(pause)
    started["upstream"].send_signal(signal.SIGTERM)
    status, answer = await call
    assert await asyncio.wait_for(started["upstream"].wait(), LONG) == 0
    started["again"] = await _run(world, "upstream", 250, tmp_path, WABIZ_RESTART_SECONDS="0.1")
    await until(lambda: _is(world.control("counters")))
    found = await world.control("counters")
    assert (status, found["shards"]) in {(201, 2), (500, 1), (500, 2), (503, 1)}, answer
    assert len(found["set_shards_calls"]) == found["shards"] - 1
