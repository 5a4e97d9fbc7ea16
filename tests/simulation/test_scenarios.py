"""Simple scenarios: what a simulation tells when one thing at a time goes wrong, and what it costs."""

from __future__ import annotations

import pytest

from .client import CallOutcome
from .kinds import SECRET, SERVICE, WAC
from .laws import CLUSTER, SHARD
from .schedules import CALL_OUTCOMES
from .world import NAME, NAMESPACE, World, simulated


@simulated()
async def test_a_cluster_is_created_serves_and_falls_silent(world: World) -> None:
    await world.started(shards=2, elected=True, within=120)
    await world.stays_silent()
    assert world.account.restarts == 1


@pytest.mark.parametrize("force", [False, True])
@simulated(seeds=4)
async def test_a_deleted_holder_is_replaced_at_once(world: World, force: bool) -> None:
    """Law 3: nothing waits for the old holder, which does not even answer."""
    await world.started(shards=2)
    # A list soon after another one takes longer: that is another matter.
    await world.pause(5.0)
    world.tell_lost = 1.0
    machine, before = world.holding(0), world.loop.time()
    world.delete_pod(machine, force=force)
    await world.until(lambda: world.holder(0) not in (machine, None), within=1.0, what="replaced")
    assert world.loop.time() - before < 0.1
    world.tell_lost = 0.0
    await world.until_done()


@simulated()
async def test_a_crashed_holder_is_replaced_at_once(world: World) -> None:
    await world.started(shards=2)
    machine, before = world.holding(0), world.loop.time()
    world.cluster.crash(machine)
    await world.until(lambda: world.holder(0) is not machine, within=1.0, what="replaced")
    assert world.loop.time() - before < 0.2
    await world.until_done()


@pytest.mark.parametrize("evidence", ["PodDeleted", "ConnectionLost", "ProbeTimeout"])
@simulated()
async def test_each_failover_is_emitted_as_a_failure_and_as_a_handover(world: World, evidence: str) -> None:
    await world.started(shards=2, spares=2)
    await world.pause(30)
    fail = {"PodDeleted": world.delete_pod, "ConnectionLost": world.cluster.crash, "ProbeTimeout": world.cluster.hang}[evidence]
    for shard in range(2):
        world.server.events.clear()
        machine = world.holding(shard)
        fail(machine)
        await world.until(lambda: world.holder(shard) not in (machine, None), within=10, what="replaced")  # noqa: B023
        await world.pause(1)
        found = {one["reason"]: (one["type"], f"({evidence})" in one["message"]) for one in world.server.events}
        assert (found.get("FailingOver"), found.get("HandedOver")) == (("Warning", True), ("Normal", True))


@simulated()
async def test_shards_go_on_without_any_operator(world: World) -> None:
    """Law 10: with the operator gone, holders serve on, over a crash of their container too."""
    operator = await world.started(shards=2)
    operator.kill()
    served = dict(world.account.connections)
    machine = world.holding(1)
    world.cluster.crash(machine)
    await world.pause(60)
    assert world.account.connections == served


@pytest.mark.parametrize("outcome", CALL_OUTCOMES, ids=lambda outcome: f"{outcome.kind}-{outcome.status}-{outcome.applied}")
@simulated()
async def test_whatever_set_shards_answers_there_is_one_restart(world: World, outcome: CallOutcome) -> None:
    await world.started(shards=1)
    world.account.call_outcomes.append(outcome)
    world.edit(shards=2)
    await world.until_done()
    await world.stays_silent(60.0)
    assert world.account.restarts == 1


@simulated()
async def test_a_client_that_is_down_is_asked_now_and_then_only(world: World) -> None:
    operator = await world.started(shards=2)
    world.api_faults = 1.0
    world.edit(shards=4)
    await world.pause(20)
    before = operator.kube.reads.total()
    await world.pause(60)
    assert operator.kube.reads.total() - before < 1200
    world.api_faults = 0.0
    await world.until_done()
    await world.stays_silent(60.0)


@pytest.mark.parametrize("labelled", [True, False])
@simulated()
async def test_a_name_that_is_taken_is_said_and_left_alone(world: World, labelled: bool) -> None:
    """Laws 12 and 14: another's Service under a name that a shard needs."""
    labels = {CLUSTER: NAME, SHARD: "1"} if labelled else {}
    meta = {"namespace": NAMESPACE, "name": f"{NAME}-shard-1", "labels": labels}
    foreign = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": {"app": "other"}}}
    world.server.create("squatter", foreign)
    world.create(shards=2)
    operator = world.operator()
    operator.lead(1)
    await world.pause(30)
    before = operator.kube.reads.total()
    await world.pause(60)
    assert operator.kube.reads.total() - before < 1200, "hot loop"
    status = (world.server.get(WAC, (NAMESPACE, NAME)) or {})["status"]
    stalled = next(one for one in status["conditions"] if one["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "NameConflict")
    world.server.delete("user", SERVICE, (NAMESPACE, f"{NAME}-shard-1"))
    await world.until_done()
    await world.stays_silent(60.0)


@simulated()
async def test_an_intent_that_an_older_crd_does_not_keep_whole_is_no_intent(world: World) -> None:
    """Law 6: without one no call is made; it is said why, failovers go on, and so does the call when the CRD is the right one."""
    await world.started(shards=1)
    restarts = world.account.restarts
    world.server.not_in_crd = {"settleBy"}
    world.edit(shards=2)

    def reason() -> str:
        conditions = world.server.get(WAC, (NAMESPACE, NAME))["status"]["conditions"]  # type: ignore[index]
        return str(next(one for one in conditions if one["type"] == "Stalled")["reason"])

    await world.until(lambda: reason() == "CrdOutdated", within=60, what="CrdOutdated")
    machine = world.holding(0)
    world.delete_pod(machine)
    await world.until(lambda: world.holder(0) not in (machine, None), within=1.0, what="replaced")
    await world.pause(90)
    assert reason() == "CrdOutdated"
    assert world.account.restarts == restarts
    assert "operation" not in (world.server.get(WAC, (NAMESPACE, NAME)) or {})["status"]
    world.server.not_in_crd = set()
    await world.until_done()
    assert world.account.restarts == restarts + 1


@simulated()
async def test_a_cluster_that_was_deleted_and_made_again_gets_only_its_own(world: World) -> None:
    """Law 14: the new one has another uid; what the old one left is not touched and goes with its owner."""
    await world.started(shards=2)
    world.server.delete("user", WAC, (NAMESPACE, NAME))
    world.recreate()
    await world.pause(0.1)
    world.create(shards=1)
    await world.until_done()
    await world.stays_silent(60.0)


@simulated(20)
async def test_a_cluster_made_again_at_once_remembers_nothing_of_the_one_before(world: World) -> None:
    """Law 14: what was last observed of the former cluster is not taken for the new one's; no pod starts with the former password."""
    operator = await world.started(shards=2)
    made: list[str] = []

    def uid() -> str:
        return str(world.server.get(WAC, (NAMESPACE, NAME))["metadata"]["uid"])  # type: ignore[index]

    def note(what: str) -> None:
        if what in {f"create StatefulSet {NAME}-coreapp", f"create Deployment {NAME}-webapp"}:
            secret = world.server.get(SECRET, (NAMESPACE, f"{NAME}-admin"))
            # Without a Secret the pods wait for the Secret of the test.
            made.append(secret["metadata"]["ownerReferences"][0]["uid"] if secret else uid())

    world.cluster.crash(world.coreapps()[0])  # so that an observation was just made when the cluster goes
    await world.pause(0.3)
    operator.kube.before_write = note
    world.server.delete("user", WAC, (NAMESPACE, NAME))
    world.recreate()
    world.create(shards=1)
    await world.until_done()
    assert made
    assert set(made) == {uid()}


@simulated(20)
async def test_a_lowering_of_replicas_that_lands_after_a_new_intent_is_void(world: World) -> None:
    """Law 4: a write whose answer did not come in time may still land, when a call for more shards is already under way."""
    world.create(shards=1)
    operator = world.operator()
    late: list[str] = []

    def delay(what: str) -> None:
        if what == f"patch StatefulSet {NAME}-coreapp" and not late and world.server.get(WAC, (NAMESPACE, NAME))["spec"]["shards"] == 1:  # type: ignore[index]
            late.append(what)
            world.network.late = 1.0
            world.loop.call_soon(world.network.clear)

    operator.lead(1)
    await world.until_done()
    world.edit(shards=4)
    world.account.call_outcomes.extend([CallOutcome(status=403, applied=None)] * 2)
    await world.until(lambda: len(world.coreapps()) == 5, within=20, what="5 pods")
    operator.kube.before_write = delay
    await world.pause(1.0)
    world.edit(shards=1)
    await world.until(lambda: bool(late), within=20, what="the late write")
    world.account.call_outcomes.clear()
    world.edit(shards=4)
    await world.until_done()
