"""A Webapp answers with a lower number of shards than the client has: an old process behind its address, or one with another database.

A shard is served while the servers keep a connection of just the pod and the epoch that its Service names. The judge asks them only.
"""

from __future__ import annotations

from typing import Any

import pytest

from .operators import SimSession
from .test_holder_disagrees import is_served
from .world import World, simulate

SHARDS = 4


@pytest.mark.parametrize("answered", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_a_number_that_is_too_low_takes_no_service_from_a_shard(answered: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    lies = False
    true = SimSession._send

    async def said(self: SimSession, access: Any, method: str, path: str, **options: Any) -> dict[str, Any]:
        nonlocal asked
        answer = await true(self, access, method, path, **options)
        if lies and (method, path) == ("GET", "/v1/account/shards"):
            asked += 1
            answer["account"]["shards"] = answered
        return answer

    monkeypatch.setattr(SimSession, "_send", said)

    async def scenario(world: World) -> None:
        nonlocal lies
        await world.started(shards=SHARDS, spares=1, elected=True, within=120)
        await world.pause(5)
        lies = True
        for _ in range(600):
            await world.pause(0.1)
            assert [shard for shard in range(SHARDS) if not is_served(world, shard)] == []
        assert asked > 1
        assert world.condition("Stalled")[1] == "ShardsDrifted"
        lies = False
        await world.until_done(within=120)
        assert world.account.restarts == 1, "only that of the first Set Shards"
        await world.stays_silent(120)

    simulate(scenario, seed)
