"""The election in virtual time: handovers, crashes, pauses, outages, and what chance makes of them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from waiting import until
from whatsapp_operator.shell.clock import boottime
from whatsapp_operator.shell.kube.client import LightKube
from whatsapp_operator.shell.kube.errors import Unavailable
from whatsapp_operator.shell.kube.lease import Election, Leadership, Timings, WorkDidNotStop

from .lease_world import LATENCY, Process, a_world, now

if TYPE_CHECKING:
    from whatsapp_operator.shell.kube.client import Fence, Kube
    from whatsapp_operator.shell.kube.lease import Leases, Watch

pytestmark = pytest.mark.looptime(noop_cycles=0)


def typed(kube: LightKube) -> None:
    """Let mypy say that the parts fit."""
    fake: Kube = kube
    leases: Leases = fake
    watch: Watch = kube.watch
    fence: Fence = Election(leases, namespace="n", name="n", identity="i", watch=watch)
    kube.fenced(fence)


async def test_the_first_candidate_leads_at_once_and_stays() -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader(within=0.1)
        assert a.election.epoch == 0
        assert 3.9 < a.election.seconds_left() <= 4
        await asyncio.sleep(60)
        assert a.works == [Leadership(0, "a")]
        assert 55 <= len(world.server.writes) <= 62  # one renewal each second, never a write more
        assert a.calls <= 65


async def test_a_released_lease_is_taken_within_a_tenth_of_a_second() -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        b = world.process("b")
        await asyncio.sleep(10.4)
        assert a.task
        a.task.cancel()
        began = now()
        await until(lambda: b.election.leading, pause=0.004)
        assert now() - began <= 0.1
        assert a.task.cancelled()
        assert b.election.epoch == 1


async def test_the_work_has_stopped_before_the_lease_is_released() -> None:
    async with a_world() as world:
        a = world.process("a")
        ended: list[float] = []

        async def slow_to_stop(_: Leadership) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                assert not a.election.leading
                assert a.election.seconds_left() <= 0
                await asyncio.sleep(1.5)
                assert world.server.holder == "a"
                ended.append(now())

        a.work = slow_to_stop
        await world.leader()
        b = world.process("b")
        await asyncio.sleep(5)
        assert a.task
        a.task.cancel()
        await asyncio.sleep(0.5)
        a.task.cancel()  # a second signal does not break the order
        await until(lambda: b.election.leading, pause=0.004)
        assert 0 < now() - ended[0] <= 0.1


async def test_work_that_does_not_stop_ends_the_run_and_is_never_released() -> None:
    async with a_world() as world:
        a = world.process("a")
        stubborn = asyncio.Event()

        async def never_stops(_: Leadership) -> None:
            while not stubborn.is_set():
                with suppress(asyncio.CancelledError):
                    await stubborn.wait()

        a.work = never_stops
        await world.leader()
        world.processes.remove(a)
        assert a.task
        a.task.cancel()
        with pytest.raises(WorkDidNotStop, match=r"did not stop within 4 s of being cancelled; end this process\."):
            await a.task
        assert world.server.holder == "a"
        stubborn.set()


@pytest.mark.parametrize("watching", [True, False])
async def test_a_killed_leader_is_replaced_within_five_seconds(watching: bool) -> None:
    async with a_world() as world:
        a = world.process("a", watching=watching)
        await world.leader()
        b, c = world.process("b", watching=watching), world.process("c", watching=watching)
        await asyncio.sleep(10.37)
        a.stop()
        killed = now()
        await until(lambda: b.election.leading or c.election.leading, pause=0.004)
        assert 3 <= now() - killed < 5
        new = await world.leader()
        assert new is not a
        assert new.election.epoch == 1
        await asyncio.sleep(10)
        assert world.leaders() == [new.identity]


async def test_a_stopped_leader_knows_when_it_goes_on_before_it_writes() -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        b = world.process("b")
        await asyncio.sleep(5.2)
        a.stop()
        await asyncio.sleep(8)
        assert b.election.leading
        assert a.election.seconds_left() <= 0
        a.go_on()
        resumed = now()
        await asyncio.sleep(10)
        assert not [w for w in world.writes if w[0] >= resumed and w[1] == "a"]
        assert world.leaders() == ["b"]
        assert a.working == 0


async def test_a_campaign_suspended_while_it_won_does_not_begin_to_work() -> None:
    async with a_world() as world:
        a = world.process("a")
        await until(lambda: world.server.holder, pause=0.001)
        a.skew += 10  # the machine slept while the answer was on its way
        await asyncio.sleep(1)
        assert a.works == [Leadership(1, "a")]  # asked again: by now it could have been another's


async def test_a_machine_that_was_suspended_leads_no_longer_though_no_timer_ran() -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        a.skew += 10  # CLOCK_BOOTTIME counts the suspension, the event loop's clock does not
        assert a.election.seconds_left() < 0
        assert a.election.leading is False
        assert a.election.epoch is None
        await asyncio.sleep(2.5)
        assert [term.epoch for term in a.works] == [0, 1]


async def test_hanging_renewals_end_the_leadership_before_the_next_one_begins() -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        b = world.process("b")
        await asyncio.sleep(6.5)  # between two renewals
        a.hanging = True
        began = now()
        while a.election.leading:
            await asyncio.sleep(0.004)
        gave_up = now()
        assert 2 <= gave_up - began <= 3.1
        await until(lambda: b.election.leading, pause=0.004)
        assert 0.9 < now() - gave_up < 1.1
        assert a.working == 0


async def leads_with_time_for_a_write(leader: Process) -> None:
    """For half a minute, the leader keeps the Lease, and never has less of it left than a write may take."""
    for _ in range(3000):
        await asyncio.sleep(0.01)
        assert leader.election.seconds_left() > 2.0
    assert [term.epoch for term in leader.works] == [0]


async def test_while_one_of_two_servers_hangs_the_leader_may_write_at_any_time() -> None:
    """What it sent to that server arrives much later, and takes no effect."""
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        world.process("b")
        hung, answered = (7.0, 7.0), (LATENCY, LATENCY)
        delays = itertools.chain.from_iterable(itertools.cycle((hung, answered)))
        a.latency = lambda: next(delays)
        await leads_with_time_for_a_write(a)
        assert a.election.sent_again["later"] > 0
        assert a.election.sent_again["first"] == a.election.sent_again["none"] == 0


@pytest.mark.parametrize(("latency", "counted"), [(0.3, "first"), (7.0, "none")])
async def test_renewals_that_are_sent_again_count_by_the_one_that_was_answered(latency: float, counted: str) -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        a.latency = lambda: latency
        await until(lambda: a.election.sent_again[counted] > 0)
        assert sum(a.election.sent_again.values()) == a.election.sent_again[counted]


async def test_while_one_of_two_servers_is_slow_and_the_other_one_gone_the_leader_may_write_at_any_time() -> None:
    """That the second attempt fails says nothing about the first one, whose answer is on its way."""
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        world.process("b")
        gone = itertools.cycle((False, False, True))

        def latency() -> float:
            if next(gone):
                msg = "connection refused"
                raise Unavailable(msg)
            return 0.3

        a.latency = latency
        await leads_with_time_for_a_write(a)


async def test_renewals_that_are_written_but_never_answered_lose_the_lease_too() -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        b = world.process("b")
        await asyncio.sleep(6)
        a.mute = True
        await until(lambda: b.election.leading, pause=0.004)
        assert a.working == 0
        a.mute = False
        await asyncio.sleep(20)
        assert world.leaders() == ["b"]


async def test_a_first_record_that_is_stored_late_when_another_one_was_deleted_is_not_acquired_before_its_holder_has_stopped() -> None:
    """No compare-and-swap covers it: it was sent while there was no record, and arrives while there is none again."""
    async with a_world() as world:
        b = world.process("b")
        delays = iter([LATENCY, LATENCY, *[5.0] * 4])
        b.latency = lambda: next(delays, LATENCY)
        await asyncio.sleep(0.1)
        a = world.process("a")
        await asyncio.sleep(4.8)
        assert a.election.leading
        a.hanging = True
        world.server.delete()
        await until(lambda: world.server.holder == "b", pause=0.004)
        assert a.election.leading
        await until(lambda: b.election.leading, pause=0.004)


@pytest.mark.parametrize("how", ["down", "hanging", "mute"])
@pytest.mark.parametrize("phase", [0.0, 0.25, 0.5, 0.9, 0.999])
async def test_an_outage_up_to_deadline_less_retry_loses_nothing(how: str, phase: float) -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        b = world.process("b")
        await asyncio.sleep(10 + phase)
        for process in (a, b):
            setattr(process, how, True)
        await asyncio.sleep(1.9 if how == "down" else 0.9)
        for process in (a, b):
            setattr(process, how, False)
        await asyncio.sleep(10)
        assert a.election.epoch == 0
        assert len(a.works) == 1
        assert b.works == []


async def test_a_long_outage_for_all_ends_with_one_leader() -> None:
    async with a_world() as world:
        for name in "abc":
            world.process(name)
        await world.leader()
        for process in world.processes:
            process.down = True
        await asyncio.sleep(30)
        assert world.leaders() == []
        for process in world.processes:
            process.down = False
        await world.leader(within=3)


async def test_a_deleted_lease_is_put_back_by_its_holder() -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        b = world.process("b")
        await asyncio.sleep(10.2)
        world.server.delete()
        await asyncio.sleep(0.1)
        assert world.server.holder == "a"
        await asyncio.sleep(20)
        assert a.election.epoch == 0
        assert b.works == []


async def test_a_deleted_lease_of_a_holder_that_hangs_is_taken_only_when_that_must_have_stopped() -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        b = world.process("b")
        await asyncio.sleep(10.2)
        a.hanging = True
        world.server.delete()
        deleted = now()
        await until(lambda: b.election.leading, pause=0.004)
        assert 3.5 < now() - deleted < 4.1
        assert b.election.epoch == 1  # it remembers the number of the record that is gone


async def test_a_stolen_lease_is_given_up_at_once() -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        await asyncio.sleep(5.3)
        assert world.server.lease
        stolen = deepcopy(world.server.lease)
        stolen["spec"] |= {"holderIdentity": "thief", "leaseTransitions": 7}
        world.server.store("MODIFIED", stolen)
        await asyncio.sleep(0.1)
        assert not a.election.leading
        assert world.server.holder == "thief"
        await asyncio.sleep(6)
        assert a.election.epoch == 8


async def test_another_epoch_under_our_name_is_not_ours() -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        assert world.server.lease
        edited = deepcopy(world.server.lease)
        edited["spec"]["leaseTransitions"] = 5
        world.server.store("MODIFIED", edited)
        await asyncio.sleep(3)
        assert [term.epoch for term in a.works] == [0, 6]


async def test_what_others_keep_in_the_lease_stays() -> None:
    async with a_world() as world:
        world.process("a")
        await world.leader()
        assert world.server.lease
        edited = deepcopy(world.server.lease)
        edited["metadata"]["labels"] = {"owner": "helm"}
        edited["spec"]["renewTime"] = "x"
        world.server.store("MODIFIED", edited)
        await asyncio.sleep(5)
        assert world.server.lease["metadata"]["labels"] == {"owner": "helm"}
        assert world.server.lease["spec"]["renewTime"] != "x"


async def test_a_longer_duration_in_the_record_is_respected() -> None:
    async with a_world() as world:
        world.server.store(
            "ADDED",
            {"metadata": {"name": "op"}, "spec": {"holderIdentity": "older", "leaseDurationSeconds": 15, "leaseTransitions": 3}},
        )
        a = world.process("a")
        await asyncio.sleep(14.9)
        assert not a.election.leading
        await asyncio.sleep(0.2)
        assert a.election.epoch == 4


async def test_a_duration_that_no_process_has_makes_nobody_wait() -> None:
    """A person has edited the record of a leader that is gone: the operator must not be without a leader for days."""
    async with a_world() as world:
        spec = {
            "holderIdentity": "gone",
            "leaseDurationSeconds": 2**31 - 1,
            "leaseTransitions": 3,
            "renewTime": "2999-01-01T00:00:00.000000Z",
        }
        world.server.store("ADDED", {"metadata": {"name": "op"}, "spec": spec})
        a = world.process("a")
        await asyncio.sleep(59.9)
        assert not a.election.leading
        await asyncio.sleep(0.2)
        assert a.election.epoch == 4


async def test_a_duration_that_is_edited_while_a_leader_renews_is_put_right() -> None:
    async with a_world() as world:
        world.process("a")
        await world.leader()
        assert world.server.lease
        edited = deepcopy(world.server.lease)
        edited["spec"] |= {"leaseDurationSeconds": 86400, "renewTime": "2999-01-01T00:00:00.000000Z"}
        world.server.store("MODIFIED", edited)
        await asyncio.sleep(2)
        assert world.server.lease["spec"]["leaseDurationSeconds"] == 4
        assert world.server.lease["spec"]["renewTime"] < "2999"


async def test_timestamps_of_others_are_not_believed() -> None:
    async with a_world() as world:
        stamp = {"holderIdentity": "old", "leaseDurationSeconds": 4, "leaseTransitions": 3, "renewTime": "1970-01-01T00:00:00.000000Z"}
        world.server.store("ADDED", {"metadata": {"name": "op"}, "spec": stamp})
        a = world.process("a")
        await asyncio.sleep(3.9)
        assert not a.election.leading  # it may have been renewed the moment before the check
        await world.leader(within=0.3)


async def test_clocks_may_differ_by_years() -> None:
    async with a_world() as world:
        a = world.process("a", skew=-1e8, rate=1 + 1e-4)
        await world.leader()
        b = world.process("b", skew=+3e8, rate=1 - 1e-4)
        world.process("c", skew=17.0)
        await asyncio.sleep(20)
        assert world.leaders() == ["a"]
        a.stop()
        stopped = now()
        await asyncio.sleep(3)
        while world.leaders() in ([], ["a"]):
            await asyncio.sleep(0.004)
        assert now() - stopped < 5
        assert b.election.seconds_left() <= 4.001


async def test_a_watch_that_is_dead_costs_nothing_but_time() -> None:
    async with a_world() as world:
        a = world.process("a")
        await world.leader()
        b = world.process("b")
        b.deaf = True
        await asyncio.sleep(30)
        assert world.leaders() == ["a"]
        a.stop()
        stopped = now()
        await until(lambda: b.election.leading, pause=0.004)
        assert now() - stopped < 6.1


async def test_work_that_fails_is_logged_and_the_lease_goes_to_another(caplog: pytest.LogCaptureFixture) -> None:
    async with a_world() as world:
        a = world.process("a")

        async def fails(_: Leadership) -> None:
            await asyncio.sleep(0.5)
            raise ZeroDivisionError

        a.work = fails
        await world.leader()
        b = world.process("b")
        await asyncio.sleep(0.7)
        assert b.election.epoch == 1
        assert "leader-work failed: ZeroDivisionError" in caplog.text


async def test_work_that_fails_begins_again_after_a_retry_if_nobody_else_is_there() -> None:
    async with a_world() as world:
        a = world.process("a")
        begun: list[float] = []

        async def fails(_: Leadership) -> None:
            begun.append(now())
            raise ZeroDivisionError

        a.work = fails
        await asyncio.sleep(5)
        assert len(begun) >= 4
        assert all(0.9 < later - earlier < 1.2 for earlier, later in itertools.pairwise(begun))
        assert [term.epoch for term in a.works][:4] == [0, 1, 2, 3]


async def test_work_that_returns_gives_leadership_up() -> None:
    async with a_world() as world:
        a = world.process("a")
        self_check = asyncio.Event()

        async def until_uncertain(_: Leadership) -> None:
            await self_check.wait()

        a.work = until_uncertain
        await world.leader()
        b = world.process("b")
        await asyncio.sleep(5)
        self_check.set()
        await asyncio.sleep(0.1)
        assert b.election.leading
        await asyncio.sleep(20)
        assert world.leaders() == ["b"]


async def test_a_campaign_cancelled_while_it_won_does_not_leave_its_name_behind() -> None:
    async with a_world() as world:
        a = world.process("a")
        await until(lambda: world.server.holder, pause=0.004)
        assert not a.election.leading  # the answer is still on its way
        assert a.task
        a.task.cancel()
        with suppress(asyncio.CancelledError):
            await a.task
        assert world.server.holder == ""


async def test_troubles_are_logged_once_and_not_each_second(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with a_world() as world:
        a = world.process("a")
        a.down = True
        await asyncio.sleep(60)
        assert caplog.text.count("Could not acquire the Lease: connection refused") == 1
        assert caplog.text.count("cannot be watched") == 1


@pytest.mark.parametrize("seed", range(16))
async def test_never_two_leaders_whatever_happens(seed: int) -> None:
    chance = random.Random(seed)
    async with a_world() as world:
        world.epochs_repeat = True
        born = 0

        def birth() -> None:
            nonlocal born
            born += 1
            process = world.process(
                f"p{born}", watching=chance.random() < 0.8, skew=chance.uniform(-1e6, 1e6), rate=1 + chance.uniform(-1e-4, 1e-4)
            )
            spread = chance.choice([0.004, 0.05, 0.4, 1.2])
            process.latency = lambda: chance.uniform(0.002, spread)

        for _ in range(3):
            birth()
        for _ in range(60):
            await asyncio.sleep(chance.expovariate(1.0))
            process = chance.choice(world.processes)
            what = chance.choice(["down", "hanging", "mute", "deaf", "freeze", "kill", "leave", "delete", "heal"])
            match what:
                case "down" | "hanging" | "mute" | "deaf":
                    setattr(process, what, not getattr(process, what))
                case "freeze":
                    process.stop() if process.awake.is_set() else process.go_on()
                case "delete":
                    if all(p.election._last_record is not None for p in world.processes):  # else it is the case that is not covered
                        world.server.delete()
                case "heal":
                    for each in world.processes:
                        each.down = each.hanging = each.mute = each.deaf = False
                        each.go_on()
                case "kill" | "leave":
                    if world.server.lease is None:  # a new candidate would not know of the holder
                        continue
                    if what == "leave" and process.awake.is_set():
                        assert process.task
                        process.task.cancel()
                        await asyncio.wait({process.task}, timeout=8)
                        assert process.task.done()
                    process.stop()  # a dead one stays among the processes until its lease must have run out
                    await asyncio.sleep(0.3)
                    if not process.election.leading:
                        process.go_on()
                        assert process.task
                        process.task.cancel()
                        world.processes.remove(process)
                        await asyncio.wait({process.task})
                        birth()
        for process in world.processes:
            process.down = process.hanging = process.mute = process.deaf = False
            process.go_on()
            process.latency = lambda: LATENCY
        await asyncio.sleep(12)
        leader = await world.leader(within=3)
        await asyncio.sleep(10)
        assert world.leaders() == [leader.identity]
        assert world.writes


def test_timings_that_cannot_work_are_refused() -> None:
    for bad in [(4, 4, 1), (4, 3, 3), (4, 3, 0), (3.5, 3, 1), (61, 3, 1)]:
        with pytest.raises(ValueError, match="they must fall from duration over renew deadline to retry"):
            Timings(*bad)


def test_an_identity_is_needed() -> None:
    with pytest.raises(ValueError, match="unique for this process"):
        Election(None, namespace="n", name="n", identity="", watch=None)  # type: ignore[arg-type]


def test_the_clock_counts_suspensions() -> None:
    def uptime() -> float:
        return float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])

    before, seen, after = uptime(), boottime(), uptime()
    assert before - 0.02 <= seen <= after + 0.02, "uptime is given to the hundredth of a second"
