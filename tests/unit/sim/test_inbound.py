"""Messages from WhatsApp users reach the webhook through the holder of their shard, or the next one."""

import pytest

from waiting import until

from .world import World, recipient


async def _with_webhook(world: World, coreapps: int) -> None:
    await world.cluster(coreapps)
    url = await world.start_webhook()
    change = {"webhooks": {"url": url}, "callback_backoff_delay_ms": 50}
    assert (await world.api("PATCH", "/v1/settings/application", change))[0] == 200


async def test_an_inbound_message_is_posted_to_the_webhook(world: World) -> None:
    await _with_webhook(world, 1)
    await world.serve(0, 0, "1-a")

    answer = await world.control("inbound", {"from": recipient(0, 1), "body": "hi there"})

    await until(lambda: world.webhook)
    message = world.webhook[0]
    assert (message["id"], message["from"], message["type"], message["text"]) == (
        answer["id"],
        recipient(0, 1),
        "text",
        {"body": "hi there"},
    )

    async def acked() -> bool:
        counters = await world.control("counters")
        return (counters["inbound_sent"], counters["inbound_acked"], counters["inbound_waiting"]) == ({"0": 1}, {"0": 1}, 0)

    await until(acked)


async def test_it_waits_for_a_holder(world: World) -> None:
    await _with_webhook(world, 1)
    for number in range(100):
        await world.control("inbound", {"from": recipient(0, 1), "body": "x", "id": f"in-{number}"})
    assert (await world.control("counters"))["inbound_waiting"] == 100

    await world.serve(0, 0, "1-a")

    await until(lambda: len(world.webhook) == 100)
    assert len({message["id"] for message in world.webhook}) == 100


async def test_what_a_dead_holder_did_not_deliver_goes_to_the_next(world: World) -> None:
    await _with_webhook(world, 2)
    world.webhook_status = 500
    await world.serve(0, 0, "1-a")
    await world.control("inbound", {"from": recipient(0, 1), "body": "x", "id": "in-1"})

    async def sent() -> bool:
        return bool((await world.control("counters"))["inbound_sent"] == {"0": 1})

    await until(sent)
    await world.processes[1].kill()
    world.webhook_status = 200
    await world.serve(1, 0, "2-b")

    await until(lambda: [message["id"] for message in world.webhook] == ["in-1"])
    counters = await world.control("counters")
    assert counters["inbound_sent"] == {"0": 2}


@pytest.mark.parametrize("status", [201, 202, 204, 503])
async def test_a_webhook_that_answers_anything_but_200_is_tried_again(world: World, status: int) -> None:
    await _with_webhook(world, 1)
    await world.serve(0, 0, "1-a")
    world.webhook_status = status
    await world.control("inbound", {"from": recipient(0, 1), "body": "x", "id": "in-1"})
    await until(lambda: world.webhook_posts >= 1)

    world.webhook_status = 200

    await until(lambda: len(world.webhook) == 1)


async def test_it_waits_until_a_webhook_is_set(world: World) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")
    await world.control("inbound", {"from": recipient(0, 1), "body": "x", "id": "in-1"})
    url = await world.start_webhook()

    await world.api("PATCH", "/v1/settings/application", {"webhooks": {"url": url}})

    await until(lambda: len(world.webhook) == 1)


async def test_an_inbound_message_survives_the_upstream(world: World) -> None:
    await _with_webhook(world, 1)
    await world.control("inbound", {"from": recipient(0, 1), "body": "x", "id": "in-1"})
    assert (await world.control("inbound", {"from": recipient(0, 1), "body": "x", "id": "in-1"}))["duplicate"] is True
    await world.processes[0].kill()
    await world.upstream()
    await until(lambda: world.member_count(1))

    await world.serve(0, 0, "1-a")

    await until(lambda: [message["id"] for message in world.webhook] == ["in-1"])


async def test_an_inbound_message_follows_its_sender_into_another_shard(world: World) -> None:
    await _with_webhook(world, 1)
    await world.control("inbound", {"from": recipient(1, 2), "body": "x", "id": "in-1"})
    await world.control("shards", {"n": 2})
    await until(lambda: world.report_or_none(0, shards=2))

    await world.serve(0, 1, "1-a", shards=2)

    await until(lambda: [message["id"] for message in world.webhook] == ["in-1"])
