"""A Coreapp follows its last role assignment, over restarts of its container and of the upstream."""

import asyncio
import json
import socket
import time

import aiohttp
import pytest

from waiting import LONG, until

from .stopwatch import Stopwatch
from .world import World, closed, recipient


async def test_it_starts_as_standby(world: World) -> None:
    await world.cluster(1)

    assert await world.report(0) == {
        "uid": "uid-coreapp-0",
        "pod": "coreapp-0",
        "shard": None,
        "epoch": None,
        "shards": 1,
        "gateway_status": "disconnected",
        "fenced": False,
        "version": "v2.53.4",
        "stopping": False,
    }


async def test_assigned_it_serves_and_answers_with_its_report(world: World) -> None:
    _, cores, _ = await world.cluster(1)

    status, answer = await world.tell(0, 0, "7-abc")

    assert status == 200
    assert (answer["shard"], answer["epoch"], answer["shards"]) == (0, "7-abc", 1)
    await until(lambda: cores[0].report()["gateway_status"] == "connected")
    assert (await world.control("counters"))["connections"] == {"0": {"uid": "uid-coreapp-0", "epoch": "7-abc"}}


async def test_assigned_the_same_again_it_keeps_its_connection(world: World) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")
    for _ in range(3):
        assert (await world.tell(0, 0, "1-a"))[0] == 200

    assert (await world.control("counters"))["replaced"] == {}
    assert (await world.report(0))["gateway_status"] == "connected"


async def test_it_refuses_orders_that_are_not_for_it_or_too_old(world: World) -> None:
    await world.cluster(1)
    await world.tell(0, 0, "5-a")

    assert (await world.tell(0, 0, "6-b", uid="another party"))[0] == 409
    assert (await world.tell(0, 0, "6-b", shards=2))[0] == 409
    status, answer = await world.tell(0, 0, "4-z")
    assert status == 409
    assert answer == {"error": "epoch 4-z of shard 0 is older than 5-a"}
    assert (await world.report(0))["epoch"] == "5-a"


@pytest.mark.parametrize(
    "bad", [{"epoch": "none"}, {"epoch": None}, {"shard": 1}, {"shard": "0"}, {"uid": 7}, {"shards": "1"}, {"holder": {}}]
)
async def test_an_unreadable_order_changes_nothing(world: World, bad: dict[str, object]) -> None:
    await world.cluster(1)
    order = {"uid": "uid-coreapp-0", "shard": 0, "epoch": "1-a", "shards": 1, **bad}

    status, _ = await world.call("POST", f"http://{world.address(1)}:6252/role", order)

    assert status == 400
    assert (await world.report(0))["shard"] is None


async def test_assigned_with_another_holder_it_stands_by(world: World) -> None:
    await world.cluster(2)
    await world.serve(0, 0, "1-a")

    status, answer = await world.tell(0, 0, "2-b", holder=1)

    assert status == 200
    assert (answer["shard"], answer["epoch"], answer["gateway_status"]) == (None, None, "disconnected")
    assert (await world.tell(0, 0, "1-a"))[0] == 409  # a late order of the old epoch


async def test_assigned_to_stand_by_it_closes_its_connection(world: World) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")

    assert (await world.tell(0, None, None))[1]["shard"] is None

    async def nobody_is_connected() -> bool:
        return not (await world.control("counters"))["connections"]

    await until(nobody_is_connected)


async def test_a_role_survives_the_container(world: World) -> None:
    _, cores, _ = await world.cluster(1)
    await world.serve(0, 0, "3-a")
    await cores[0].kill()

    again = await world.coreapp(0)

    await until(lambda: again.report()["gateway_status"] == "connected")
    assert (again.report()["shard"], again.report()["epoch"]) == (0, "3-a")
    assert (await world.control("counters"))["fenced"] == {}


async def test_a_role_does_not_survive_another_number_of_shards(world: World) -> None:
    _, cores, _ = await world.cluster(1)
    await world.serve(0, 0, "3-a")
    await cores[0].kill()
    await world.control("shards", {"n": 2})

    again = await world.coreapp(0)

    await until(lambda: again.shards == 2)
    assert again.report()["shard"] is None


async def test_a_role_does_not_survive_the_pod(world: World) -> None:
    _, cores, _ = await world.cluster(1)
    await world.serve(0, 0, "3-a")
    await cores[0].kill()

    again = await world.coreapp(0, POD_UID="another pod of that name")

    await until(lambda: again.shards == 1)
    assert again.report()["shard"] is None


@pytest.mark.parametrize("note", ["", "{", "[]", '{"uid": "uid-coreapp-0", "known": {"0": "x"}}', '{"uid": "uid-coreapp-0"}'])
async def test_an_unreadable_note_means_standby(world: World, note: str) -> None:
    await world.upstream()
    (world.folder / "coreapp-0").mkdir()
    (world.folder / "coreapp-0" / "role.json").write_text(note)

    core = await world.coreapp(0)

    await until(lambda: core.shards == 1)
    assert core.report()["shard"] is None


async def test_standing_by_survives_the_container_too(world: World) -> None:
    _, cores, _ = await world.cluster(2)
    await world.serve(0, 0, "1-a")
    await world.tell(0, 0, "2-b", holder=1)
    await cores[0].kill()

    again = await world.coreapp(0)

    await until(lambda: again.shards == 1)
    assert again.report()["shard"] is None
    assert (await world.tell(0, 0, "1-a"))[0] == 409  # and it still knows which epochs are over


async def test_a_resumed_role_that_is_over_is_fenced(world: World) -> None:
    _, cores, _ = await world.cluster(2)
    await world.serve(0, 0, "1-a")
    await cores[0].kill()
    await world.serve(1, 0, "2-b")

    again = await world.coreapp(0)

    async def fenced() -> bool:
        return bool((await world.control("counters"))["fenced"] == {"0": 1})

    await until(fenced)
    assert (again.report()["epoch"], again.report()["gateway_status"]) == ("1-a", "disconnected")  # its assignment, until another one
    message = {"id": "m1", "shard": 0, "to": recipient(0, 1), "body": "x"}
    status, answer = await world.call("POST", f"http://{world.address(1)}:6250/messages", message)
    assert (status, answer["holder"]) == (421, None)
    assert (await world.control("counters"))["connections"]["0"]["uid"] == "uid-coreapp-1"


async def test_a_higher_epoch_elsewhere_takes_the_connection(world: World) -> None:
    _, cores, _ = await world.cluster(2)
    await world.serve(0, 0, "1-a")

    await world.serve(1, 0, "2-b")

    await until(lambda: cores[0].report()["gateway_status"] == "disconnected")
    assert cores[0].report()["shard"] == 0
    counters = await world.control("counters")
    assert (counters["replaced"], counters["active"]) == ({"0": 1}, {"0": 1})
    assert (await world.control("audit"))["two_holders"] == 0


async def test_it_survives_a_restart_of_the_upstream(world: World) -> None:
    server, cores, _ = await world.cluster(1)
    await world.serve(0, 0, "1-a")
    await world.send(recipient(0, 1), "m1")
    await server.kill()
    await until(lambda: cores[0].report()["gateway_status"] == "connecting")

    await world.upstream()

    await until(lambda: cores[0].report()["gateway_status"] == "connected")
    assert (await world.send(recipient(0, 1), "m2"))[0] == 201
    assert (await world.send(recipient(0, 1), "m1"))[0] == 201
    assert (await world.control("counters"))["accepted"] == {"0": 2}


async def test_without_an_upstream_it_listens_and_knows_no_shards(world: World) -> None:
    core = await world.coreapp(0)

    assert core.ready
    assert (await world.report(0))["shards"] is None
    assert (await world.tell(0, 0, "1-a"))[0] == 409

    await world.upstream()
    await until(lambda: core.shards == 1)


async def test_a_missed_set_shards_is_made_good(world: World) -> None:
    server, cores, _ = await world.cluster(1)
    await server.kill()
    await world.upstream()
    await until(lambda: world.member_count(1))
    folder = world.folder / "simulator"
    await world.processes[-1].kill()
    _rewrite_shards(folder / "upstream.sqlite", 4)

    await world.upstream()

    await until(lambda: cores[0].shards == 4)


def _rewrite_shards(path: object, shards: int) -> None:
    import sqlite3

    with sqlite3.connect(str(path)) as db:
        db.execute("UPDATE fact SET value = ? WHERE name = 'shards'", (json.dumps(shards),))
    db.close()


async def test_set_shards_restarts_it_inside_its_process(world: World) -> None:
    _, cores, _ = await world.cluster(1)
    world.restart_seconds = "0.3"
    await world.serve(0, 0, "1-a")
    tether_reader, tether_writer = await asyncio.open_connection(world.address(1), 6253)

    started = time.monotonic()
    await world.control("shards", {"n": 2})
    async with asyncio.timeout(LONG):
        assert await tether_reader.read() == b""  # the tether breaks
    assert closed(world.address(1), 6250)
    assert not cores[0].ready

    await until(lambda: cores[0].shards == 2)
    assert time.monotonic() - started >= 0.1
    assert cores[0].ready
    assert cores[0].report()["shard"] is None
    tether_writer.close()


async def test_set_shards_to_the_same_number_keeps_its_role(world: World) -> None:
    _, cores, _ = await world.cluster(1)
    await world.serve(0, 0, "1-a")

    await world.control("shards", {"n": 1})

    await world.restarted(cores[0])
    await world.until_connected(0)
    assert cores[0].report()["epoch"] == "1-a"


async def test_a_tether_lasts_and_breaks_at_once_when_it_is_killed(world: World) -> None:
    _, cores, _ = await world.cluster(1)
    reader, writer = await asyncio.open_connection(world.address(1), 6253)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LONG)
    assert head.startswith(b"HTTP/1.1 200")
    assert b"close" not in head.lower()
    body = await asyncio.wait_for(reader.read(4096), LONG)
    assert json.loads(body)["uid"] == "uid-coreapp-0"

    watch = Stopwatch()
    killing = asyncio.create_task(cores[0].kill())
    try:
        rest = await asyncio.wait_for(reader.read(), LONG)
    except ConnectionResetError:
        rest = b""
    assert rest == b""
    assert watch.own < 0.1
    await killing
    writer.close()
    for port in (6250, 6251, 6252, 6253):
        assert closed(world.address(1), port)

    again = await world.coreapp(0)  # the same addresses, at once
    assert again.ready
    await cores[0].wait_stopped()


async def test_killed_it_leaves_nobody_waiting(world: World) -> None:
    _, cores, _ = await world.cluster(1)
    message = {"id": "m1", "shard": 0, "to": recipient(0, 1), "body": "x"}
    waiting = asyncio.create_task(world.call("POST", f"http://{world.address(1)}:6250/messages", message))
    await asyncio.wait({waiting}, timeout=0.1)

    await cores[0].kill()

    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await waiting


async def test_hung_it_takes_connections_and_answers_nothing(world: World) -> None:
    _, cores, _ = await world.cluster(1)
    cores[0].hang()
    assert not cores[0].ready

    with socket.create_connection((world.address(1), 6253), timeout=LONG):
        pass
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(world.report(0), 0.2)

    cores[0].resume()
    assert cores[0].ready
    assert (await world.report(0))["shards"] == 1


async def test_stopped_it_goes_on_redirecting(world: World) -> None:
    _, cores, _ = await world.cluster(2)
    await world.serve(0, 0, "1-a")
    await cores[0].disturb({"linger": LONG})
    stopping = asyncio.create_task(cores[0].stop(LONG))
    await until(lambda: not cores[0].ready)
    assert (await world.report(0))["stopping"] is True

    await world.serve(1, 0, "2-b")
    await world.tell(0, 0, "2-b", holder=1)
    world.route(0, 0)  # a route that lags
    assert (await world.send(recipient(0, 1), "m1"))[0] == 201

    await cores[0].kill()
    await stopping


async def test_stopped_it_serves_until_the_grace_ends(world: World) -> None:
    _, cores, _ = await world.cluster(1)

    watch = Stopwatch()
    await cores[0].stop(0.4)

    assert watch.elapsed > 0.3
    assert watch.own < 1.0
    assert closed(world.address(1), 6250)


async def test_stopped_while_hung_it_is_killed_when_the_grace_ends(world: World) -> None:
    _, cores, _ = await world.cluster(1)
    cores[0].hang()

    await asyncio.wait_for(cores[0].stop(0.1), LONG)

    assert closed(world.address(1), 6253)


async def test_killed_in_the_middle_of_a_stop_it_is_gone_at_once(world: World) -> None:
    _, cores, _ = await world.cluster(1)
    stopping = asyncio.create_task(cores[0].stop(30))
    await until(lambda: not cores[0].ready)

    watch = Stopwatch()
    await cores[0].kill()
    await stopping

    assert watch.own < 1.0
    assert closed(world.address(1), 6253)


async def test_a_kill_that_nobody_waits_for_is_finished_all_the_same(world: World) -> None:
    _, cores, _ = await world.cluster(1)
    killing = asyncio.create_task(cores[0].kill())
    await asyncio.sleep(0)
    killing.cancel()

    await asyncio.wait_for(cores[0].wait_stopped(), LONG)
    await cores[0].kill()

    assert closed(world.address(1), 6253)


async def test_it_cannot_be_started_twice_nor_on_a_taken_address(world: World) -> None:
    core = await world.coreapp(0)
    with pytest.raises(RuntimeError, match="started before"):
        await core.start()

    with pytest.raises(OSError, match="in use"):
        await world.coreapp(0)

    assert (await world.report(0))["pod"] == "coreapp-0"


async def test_a_role_that_cannot_be_noted_is_not_taken(world: World) -> None:
    await world.cluster(1)
    (world.folder / "coreapp-0").rmdir()

    status, answer = await world.tell(0, 0, "1-a")

    assert status == 500
    assert answer == {"error": "the role could not be noted durably: No such file or directory"}
    assert (await world.report(0))["shard"] is None
    (world.folder / "coreapp-0").mkdir()
    assert (await world.tell(0, 0, "1-a"))[0] == 200


async def test_background_work_that_fails_ends_the_process_with_its_error(world: World) -> None:
    core = await world.coreapp(0)

    async def fail() -> None:
        raise LookupError("something nobody thought of")

    core.spawn(fail())

    with pytest.raises(LookupError, match="nobody thought of"):
        await asyncio.wait_for(core.wait_stopped(), LONG)
    assert closed(world.address(1), 6253)


async def test_contacts_are_answered(world: World) -> None:
    await world.coreapp(0)

    status, answer = await world.call("POST", f"http://{world.address(1)}:6251/contacts", {"contacts": ["+16315551111"]})

    assert (status, answer) == (200, {"contacts": [{"input": "+16315551111", "status": "valid", "wa_id": "16315551111"}]})
