"""The fence of the WhatsApp servers: an epoch below the highest ever accepted never connects again."""

import aiohttp
import pytest

from wabiz_sim.store import StoreError
from waiting import LONG, until

from .world import World


async def _dial(world: World, epoch: str, uid: str = "u", shard: int = 0, shards: int = 1) -> aiohttp.ClientWebSocketResponse:
    url = f"http://{world.address(250)}:8080/ws/gateway"
    query = {"shard": str(shard), "epoch": epoch, "uid": uid, "shards": str(shards)}
    return await world.session.ws_connect(url, params=query)


async def _refused(world: World, epoch: str, uid: str = "u") -> bool:
    with pytest.raises(aiohttp.WSServerHandshakeError) as rejection:
        await _dial(world, epoch, uid)
    assert rejection.value.status == 409
    assert rejection.value.headers is not None
    return rejection.value.headers["X-Simulator-Rejection"] == "fenced"


async def test_a_higher_epoch_replaces_a_lower_one(world: World) -> None:
    await world.upstream()
    old = await _dial(world, "9-a", "old")

    new = await _dial(world, "10-a", "new")  # ten is more than nine, also as text it is not

    message = await old.receive(2)
    assert message.type is aiohttp.WSMsgType.CLOSE
    assert old.close_code == 4001
    counters = await world.control("counters")
    assert (counters["active"], counters["replaced"]) == ({"0": 1}, {"0": 1})
    assert counters["connections"] == {"0": {"uid": "new", "epoch": "10-a"}}
    await new.close()
    await old.close()


async def test_a_lower_epoch_is_rejected_with_the_highest(world: World) -> None:
    await world.upstream()
    socket = await _dial(world, "5-a")

    assert await _refused(world, "4-z")

    url = f"http://{world.address(250)}:8080/ws/gateway?shard=0&epoch=4-z&uid=u&shards=1"
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    status, answer = await world.call("GET", url, headers=upgrade)
    assert (status, answer) == (409, {"error": "fenced", "highest": "5-a"})
    assert (await world.control("counters"))["fenced"] == {"0": 2}
    assert not socket.closed
    await socket.close()


async def test_the_same_number_with_another_random_part_or_uid_is_refused(world: World) -> None:
    await world.upstream()
    await (await _dial(world, "5-a", "u")).close()

    assert await _refused(world, "5-b", "u")
    assert await _refused(world, "5-a", "another party")


async def test_the_same_epoch_of_the_same_uid_may_come_back(world: World) -> None:
    await world.upstream()
    first = await _dial(world, "5-a")

    second = await _dial(world, "5-a")

    assert (await first.receive(2)).type is aiohttp.WSMsgType.CLOSE
    assert (await world.control("counters"))["active"] == {"0": 1}
    await second.close()


@pytest.mark.parametrize("kill", [True, False])
async def test_the_fence_survives_the_upstream(world: World, kill: bool) -> None:
    server = await world.upstream()
    await (await _dial(world, "5-a")).close()
    await (server.kill() if kill else server.stop(2))
    await world.upstream()

    assert await _refused(world, "4-a")
    assert await _refused(world, "5-b")
    await (await _dial(world, "5-a")).close()
    assert (await world.control("counters"))["fenced"] == {"0": 2}


async def test_each_shard_has_its_own_fence(world: World) -> None:
    await world.upstream()
    await world.control("shards", {"n": 2})
    await (await _dial(world, "9-a", shard=0, shards=2)).close()

    await (await _dial(world, "3-a", shard=1, shards=2)).close()


async def test_the_fence_can_be_reset_after_a_restore(world: World) -> None:
    await world.upstream()
    await (await _dial(world, "900-a")).close()

    await world.control("reset-fence", {})

    await (await _dial(world, "3-a")).close()


async def test_a_stale_connection_cannot_send(world: World) -> None:
    await world.upstream()
    old = await _dial(world, "1-a", "old")
    new = await _dial(world, "2-b", "new")
    await old.send_json({"type": "send", "id": "m1", "to": "1", "body": "x"})
    await new.send_json({"type": "send", "id": "m2", "to": "1", "body": "x"})

    assert await new.receive_json(timeout=LONG) == {"type": "ack", "id": "m2", "duplicate": False}

    assert (await world.control("missing", {"ids": ["m1", "m2"]})) == {"missing": ["m1"]}
    await old.close()
    await new.close()


async def test_an_epoch_that_cannot_be_read_is_a_bad_request(world: World) -> None:
    await world.upstream()
    for epoch in ("", "a-1", "-a", "5", "5-", "٣-a"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as rejection:
            await _dial(world, epoch)
        assert rejection.value.status == 400


async def test_a_coreapp_reports_that_its_epoch_is_fenced_off(world: World) -> None:
    _, cores, _ = await world.cluster(1)
    newer = await _dial(world, "9-b", "new")

    await world.tell(0, 0, "5-a")

    await until(lambda: cores[0].report()["fenced"])
    assert (cores[0].report()["epoch"], cores[0].report()["gateway_status"]) == ("5-a", "disconnected")
    await newer.close()
    await world.tell(0, 0, "10-c")
    await until(lambda: cores[0].report()["gateway_status"] == "connected")
    assert not cores[0].report()["fenced"]


async def test_another_number_of_shards_is_refused(world: World) -> None:
    await world.upstream()

    with pytest.raises(aiohttp.WSServerHandshakeError) as rejection:
        await _dial(world, "1-a", shards=2)

    assert rejection.value.headers is not None
    assert rejection.value.headers["X-Simulator-Rejection"] == "shards"


async def test_a_refused_gateway_is_dialled_again(world: World) -> None:
    _, cores, _ = await world.cluster(1)
    await world.control("faults", {"call": "gateway", "fault": "error", "count": 3})

    await world.tell(0, 0, "1-a")

    await until(lambda: cores[0].report()["gateway_status"] == "connected")
    assert (await world.control("faults"))["faults"][0]["fired"] == 3


async def test_what_was_counted_but_not_stored_is_forgotten_when_all_is_read_again(world: World) -> None:
    server = await world.upstream()
    held = await _dial(world, "5-a")
    store = server._store
    assert store is not None
    count = store.count

    async def fail(name: str, shard: int) -> None:
        store.count = count  # type: ignore[method-assign]
        server._note_uncertain()
        raise StoreError(name)

    store.count = fail  # type: ignore[method-assign]
    with pytest.raises(aiohttp.WSServerHandshakeError) as rejection:
        await _dial(world, "4-a")
    assert rejection.value.status == 503
    assert (await held.receive(2)).type is aiohttp.WSMsgType.CLOSE  # it comes again and hears what is true
    assert held.close_code == 1011
    await held.close()

    async def fenced() -> dict[str, int] | None:
        status, counters = await world.call("GET", f"http://{world.address(250)}:8080/control/counters")
        return dict(counters["fenced"]) if status == 200 else None

    async def serves() -> bool:
        return await fenced() is not None

    await until(serves)
    assert await fenced() == {}
    assert await _refused(world, "4-a")  # the fence itself never let it in
    assert await fenced() == {"0": 1}
