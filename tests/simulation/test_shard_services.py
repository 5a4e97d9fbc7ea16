"""What a person edits in the Service of a shard is put right: otherwise no message would reach the shard, and nothing would say so."""

from __future__ import annotations

from typing import Any

import pytest

from .kinds import SERVICE
from .world import NAME, NAMESPACE, World, simulated

SEEDS = 3
EDITS: dict[str, dict[str, Any]] = {
    "a selector that no pod has": {"selector": {"team": "messaging"}},
    "the selector of another shard": {"selector": {"multiconnect.dev/shard": "1"}},
    "the selector of another cluster": {"selector": {"multiconnect.dev/cluster": "other"}},
    "other ports": {"ports": [{"name": "messaging", "port": 1, "targetPort": 1, "protocol": "TCP"}]},
    "only ready addresses": {"publishNotReadyAddresses": False},
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("spares", [0, 1])
@pytest.mark.parametrize("seed", range(SEEDS))
@simulated()
async def test_an_edited_service_of_a_shard_is_put_right(world: World, seed: int, spares: int, edit: dict[str, Any]) -> None:
    await world.started(shards=2, spares=spares, elected=True, within=120)
    where = NAMESPACE, f"{NAME}-shard-0"
    before = world.server.get(SERVICE, where)
    world.server.merge("user", SERVICE, where, {"spec": edit})

    def is_right() -> bool:
        now = world.server.get(SERVICE, where)
        assert before is not None
        assert now is not None
        return {**now["spec"], "selector": None} == {**before["spec"], "selector": None} and (
            now["spec"]["selector"].keys() == before["spec"]["selector"].keys()
        )

    await world.until(is_right, within=15, what="the Service is as it was")
    await world.until_done(within=60)
    await world.stays_silent(60.0)


@simulated()
async def test_a_deleted_Service_of_a_shard_is_made_again_while_the_client_does_not_say_its_number(world: World) -> None:  # noqa: N802
    """As after a password that is lost: a new leader knows the number from the record alone, and the Webapps go on taking messages."""
    first = await world.started(shards=2, spares=1)
    first.kill()
    world.api_faults = 1.0
    world.operator().lead(2)
    await world.until(lambda: world.condition("Ready")[1] == "WebappNotResponding", within=60, what="it is said")
    world.server.delete("user", SERVICE, (NAMESPACE, f"{NAME}-shard-1"))
    await world.until(lambda: world.holder(1) is not None, within=1, what="the shard has a Service and a holder")
    world.api_faults = 0.0
    await world.until_done(within=120)
    await world.stays_silent(60.0)
