"""A leader does not act on a number of shards from before another party's restart, or another leader's (laws#5)."""

from __future__ import annotations

import pytest

from .fresh_number import changed_by_another_leader, changed_by_another_party, changed_while_the_leader_stood_still
from .trials import Trial
from .world import World, simulated


@pytest.mark.parametrize("change", [changed_by_another_party, changed_while_the_leader_stood_still, changed_by_another_leader])
@simulated(3)
async def test_a_number_from_before_a_restart_is_not_acted_on_after_it(world: World, change: Trial) -> None:
    await change(world)
