"""Giving the leadership up gracefully, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from waiting import until
from whatsapp_operator.shell.kube.lease import Leadership

from .lease_world import a_world, now

pytestmark = pytest.mark.looptime(noop_cycles=0)


async def test_another_candidate_leads_within_a_tenth_of_a_second_and_stays() -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        b = world.process("b")
        await asyncio.sleep(5.3)
        began = now()
        assert a.election.step_down()
        await until(lambda: b.election.leading, pause=0.004)
        assert now() - began <= 0.1
        await asyncio.sleep(60)
        assert (len(a.works), len(b.works)) == (1, 1)
        assert b.election.leading


async def test_the_work_has_stopped_before_the_lease_is_released() -> None:
    async with a_world() as world:
        a = world.process("a")
        ended: list[float] = []

        async def slow_to_stop(_: Leadership) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                assert a.election.seconds_left() <= 0, "no write passes the fence any more"
                await asyncio.sleep(1.5)
                assert world.server.holder == "a"
                ended.append(now())

        a.work = slow_to_stop
        await world.leader()
        b = world.process("b")
        await asyncio.sleep(5)
        a.election.step_down()
        await until(lambda: b.election.leading, pause=0.004)
        assert 0 < now() - ended[0] <= 0.1


async def test_the_work_itself_may_ask_for_it() -> None:
    async with a_world() as world:
        a = world.process("a")

        async def uncertain(_: Leadership) -> None:
            await asyncio.sleep(3)
            a.election.step_down()
            await asyncio.Event().wait()

        a.work = uncertain
        await world.leader()
        b = world.process("b")
        await asyncio.sleep(3.2)
        assert b.election.leading
        assert world.server.holder == "b"


@pytest.mark.parametrize("abstain", [3.0, 10.0])
async def test_without_another_candidate_we_lead_again_after_abstaining(abstain: float) -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        await asyncio.sleep(5.3)
        began = now()
        a.election.step_down(abstain)
        await asyncio.sleep(abstain - 0.1)
        assert not a.election.leading
        assert world.server.holder == ""
        await until(lambda: a.election.leading, pause=0.004)
        assert abstain <= now() - began <= abstain + 0.2
        assert [term.epoch for term in a.works] == [0, 1]


async def test_it_holds_for_one_term_only() -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        a.election.step_down(10.0)
        await asyncio.sleep(12)
        assert a.election.leading

        async def ends(_: Leadership) -> None:
            await asyncio.sleep(1)

        a.work = ends
        await asyncio.sleep(0.5)
        assert a.election.leading, "an old request does not end a new term"
        a.election.step_down(0.0)
        began = now()
        while len(a.works) < 3:
            await asyncio.sleep(0.004)
        assert now() - began < 1.5, "the long abstention is not repeated"


async def test_one_that_does_not_lead_has_nothing_to_give_up() -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        b = world.process("b")
        await asyncio.sleep(1)
        assert not b.election.step_down()
        assert a.task
        a.task.cancel()
        await asyncio.sleep(0.2)
        assert b.election.leading, "it campaigns as ever"


async def test_a_cancelled_run_does_not_wait_for_the_abstention() -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        a.election.step_down(1000.0)
        await asyncio.sleep(1)
        assert a.task
        began = now()
        a.task.cancel()
        await asyncio.wait({a.task})
        assert now() - began < 0.1


@pytest.mark.parametrize("abstain", [-1.0, float("nan"), float("inf")])
async def test_nonsense_is_refused(abstain: float) -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        with pytest.raises(ValueError, match="give a number of seconds"):
            a.election.step_down(abstain)
        assert a.election.leading
