"""Messages reach the holder of their shard, each once, no matter what moves meanwhile."""

import asyncio
import gc
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest

from wabiz_sim import coreapp, delivery
from wabiz_sim.delivery import Delivery, Message
from waiting import LONG, until

from .stopwatch import Stopwatch
from .world import World, recipient


async def test_a_message_goes_to_the_holder_of_its_shard(world: World) -> None:
    await world.cluster(2)
    await world.control("shards", {"n": 2})
    for number in range(2):
        await until(lambda number=number: world.report_or_none(number, shards=2))
    await world.serve(0, 0, "1-a", shards=2)
    await world.serve(1, 1, "1-b", shards=2)

    for shard in range(2):
        status, answer = await world.send(recipient(shard, 2), f"m{shard}")

        assert (status, answer["messages"]) == (201, [{"id": f"m{shard}"}])
    counters = await world.control("counters")
    assert counters["accepted"] == {"0": 1, "1": 1}
    assert counters["misrouted"] == {}
    assert (await world.control("audit"))["two_holders"] == 0


async def test_attempts_that_fail_when_another_one_succeeds_are_no_error_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, begun = asyncio.Event(), 0

    async def post(*_: object, **__: object) -> tuple[int, dict[str, Any]]:
        nonlocal begun
        begun += 1
        number = begun
        await answered.wait()
        if number != 10:
            raise TimeoutError
        return 200, {}

    monkeypatch.setattr(Delivery, "_post", post)
    monkeypatch.setattr(delivery, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(delivery, "_CHECK_SECONDS", 0.001)
    process = SimpleNamespace(resolve=AsyncMock(return_value=("shard-0", 1)))
    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    trying = asyncio.create_task(Delivery(cast("Any", process))._try(("shard-0", 1), "shard-0", 0, Message("m", "1", "x")))
    while begun < 20:
        await asyncio.sleep(0.001)
    answered.set()
    assert await trying == (200, {})
    gc.collect()
    assert logged == []


async def test_an_id_is_taken_once_however_often_it_is_sent(world: World) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")

    answers = await asyncio.gather(*(world.send(recipient(0, 1), "same") for _ in range(5)))

    assert {status for status, _ in answers} == {201}
    counters = await world.control("counters")
    assert counters["accepted"] == {"0": 1}
    assert (await world.control("missing", {"ids": ["same", "other"]})) == {"missing": ["other"]}
    assert [message["id"] for message in (await world.control("messages"))["messages"]] == ["same"]


async def test_a_message_without_an_id_gets_one(world: World) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")

    status, answer = await world.api("POST", "/v1/messages", {"to": recipient(0, 1), "type": "text", "text": {"body": "hi"}})

    assert status == 201
    assert len(answer["messages"][0]["id"]) == 32


async def test_a_straggler_is_redirected_to_the_new_holder_and_arrives(world: World) -> None:
    await world.cluster(2)
    await world.serve(0, 0, "1-a")
    assert (await world.tell(1, 0, "2-b"))[0] == 200
    await world.until_connected(1)
    assert (await world.tell(0, 0, "2-b", holder=1))[0] == 200

    message = {"id": "m1", "shard": 0, "to": recipient(0, 1), "body": "x"}
    status, answer = await world.call("POST", f"http://{world.address(1)}:6250/messages", message)
    assert status == 421
    assert answer == {"error": answer["error"], "holder": f"{world.address(2)}:6250", "shard": 0, "epoch": "2-b"}

    assert (await world.send(recipient(0, 1), "m1"))[0] == 201  # the route still leads to the old one


async def test_a_message_waits_for_a_coreapp_that_is_not_yet_assigned(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreapp, "_HOLD_SECONDS", LONG)
    monkeypatch.setattr(delivery, "_TRY_SECONDS", LONG)
    await world.cluster(1)
    world.route(0, 0)

    sending = asyncio.create_task(world.send(recipient(0, 1), "early"))
    done, _ = await asyncio.wait({sending}, timeout=0.2)
    assert not done
    await world.tell(0, 0, "1-a")

    assert (await sending)[0] == 201


async def test_a_message_without_an_assigned_coreapp_is_rejected_after_two_seconds(world: World) -> None:
    await world.cluster(1)
    watch = Stopwatch()

    message = {"id": "m1", "shard": 0, "to": recipient(0, 1), "body": "x"}
    status, answer = await world.call("POST", f"http://{world.address(1)}:6250/messages", message)

    assert status == 503
    assert "not served here" in answer["error"]
    assert watch.elapsed > 1.9
    assert watch.own < 3.0


async def test_a_failover_during_a_message_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_RETRY_SECONDS", LONG)
    _, cores, _ = await world.cluster(2)
    await world.serve(0, 0, "1-a")
    assert (await world.send(recipient(0, 1), "before"))[0] == 201

    await cores[0].kill()
    sending = asyncio.create_task(world.send(recipient(0, 1), "during"))
    await asyncio.wait({sending}, timeout=0.2)
    world.route(0, 1)
    await world.tell(1, 0, "2-b")

    assert (await sending)[0] == 201
    counters = await world.control("counters")
    assert counters["accepted"] == {"0": 2}
    assert (await world.control("audit"))["two_holders"] == 0


async def test_a_shard_that_moves_only_after_its_evicted_holder_has_ended_rejects_messages_and_loses_none(world: World) -> None:
    _, cores, _ = await world.cluster(2)
    await world.serve(0, 0, "1-a")

    ending = asyncio.create_task(cores[0].stop(10.0))
    await until(lambda: not cores[0].ready)
    assert (await world.send(recipient(0, 1), "while it serves on"))[0] == 201
    await ending
    assert (await world.send(recipient(0, 1), "too early for its successor"))[0] == 503
    await world.serve(1, 0, "2-b")

    assert (await world.send(recipient(0, 1), "too early for its successor"))[0] == 201
    assert (await world.control("counters"))["accepted"] == {"0": 2}


async def test_a_message_stuck_in_a_hung_coreapp_follows_the_service(world: World) -> None:
    _, cores, _ = await world.cluster(2)
    await world.serve(0, 0, "1-a")
    cores[0].hang()
    sending = asyncio.create_task(world.send(recipient(0, 1), "stuck"))
    await asyncio.wait({sending}, timeout=0.2)
    assert not sending.done()

    world.route(0, 1)
    await world.tell(1, 0, "2-b")

    watch = Stopwatch()
    assert (await sending)[0] == 201
    assert watch.own < 1.0
    cores[0].resume()
    await until(lambda: cores[0].report()["gateway_status"] == "disconnected")
    assert (await world.control("counters"))["replaced"] == {"0": 1}


async def test_a_message_stuck_behind_a_services_own_address_goes_where_that_leads_by_now(world: World) -> None:
    """As through kube-proxy: the address stays, what stands stays as it was, a fresh connection goes to the next holder."""
    service = world.address(150)
    world.routes[service] = service
    ways = {"to": world.address(1)}
    piping: set[asyncio.Task[None]] = set()

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(ways["to"], 6250)
        for source, sink in ((reader, forth), (back, writer)):
            piping.add(asyncio.create_task(pipe(source, sink)))

    async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(4096):
            sink.write(chunk)
        sink.close()

    await world.upstream()
    cores = [await world.coreapp(number) for number in range(2)]
    await world.webapp(WABIZ_SHARD_SERVICE=service.removesuffix("0") + "{shard}")
    await world.login()
    for core in cores:
        await until(lambda core=core: core.shards is not None)
    proxy = await asyncio.start_server(lead, service, 6250)
    async with proxy:
        await world.tell(0, 0, "1-a")
        await world.until_connected(0)
        assert (await world.send(recipient(0, 1), "before"))[0] == 201  # its connection stands, and leads to the first one forever
        cores[0].hang()
        sending = asyncio.create_task(world.send(recipient(0, 1), "stuck"))
        await asyncio.wait({sending}, timeout=0.2)
        ways["to"] = world.address(2)
        await world.tell(1, 0, "2-b")
        watch = Stopwatch()
        assert (await sending)[0] == 201
        assert watch.own < 1.5
    assert (await world.control("audit"))["two_holders"] == 0
    for task in piping:
        task.cancel()
    await asyncio.gather(*piping, return_exceptions=True)


async def test_without_a_holder_the_sender_is_asked_to_retry(world: World) -> None:
    await world.cluster(1)
    watch = Stopwatch()

    status, answer = await world.send(recipient(0, 1), "m1")

    assert status == 503
    assert answer["errors"][0]["code"] == 1011
    assert answer["meta"]["api_status"] == "stable"
    assert watch.own < 3.0


@pytest.mark.parametrize("applies", [True, False])
async def test_a_send_that_was_never_acknowledged_is_retried_by_its_id(world: World, applies: bool) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")
    await world.control("faults", {"call": "messages", "fault": "timeout", "applies": applies})

    first, _ = await world.send(recipient(0, 1), "m1")
    second, _ = await world.send(recipient(0, 1), "m1")

    assert (first, second) == (503, 201)
    counters = await world.control("counters")
    assert counters["accepted"] == {"0": 1}
    assert counters["duplicates"] == ({"0": 1} if applies else {})


async def test_a_cut_gateway_is_dialled_again_and_the_message_sent_again(world: World) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")
    await world.control("faults", {"call": "messages", "fault": "reset", "applies": True})

    assert (await world.send(recipient(0, 1), "m1"))[0] == 201

    counters = await world.control("counters")
    assert (counters["accepted"], counters["duplicates"]) == ({"0": 1}, {"0": 1})


async def test_a_slow_acknowledgement_is_waited_for(world: World) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")
    await world.control("faults", {"call": "messages", "fault": "slow", "seconds": 0.2})
    watch = Stopwatch()

    assert (await world.send(recipient(0, 1), "m1"))[0] == 201

    assert watch.elapsed >= 0.2


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"type": "text", "text": {"body": "x"}}, 400, 1008),
        ({"to": "1", "type": "text"}, 400, 1008),
        ({"to": "1", "type": "image", "image": {}}, 400, 1009),
        (["no object"], 400, 1009),
    ],
)
async def test_a_bad_message_is_refused_in_the_documented_envelope(world: World, body: object, status: int, code: int) -> None:
    await world.upstream()
    await world.webapp()
    await world.login()

    got, answer = await world.api("POST", "/v1/messages", body)

    assert (got, answer["errors"][0]["code"]) == (status, code)
