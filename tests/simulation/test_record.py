"""What is remembered in the status: only what was done is noted, nothing is forgotten, and the record of another cluster is not taken."""

from __future__ import annotations

import pytest

from whatsapp_operator.shell.kube.errors import Unavailable

from .apiserver import TooManyRequests
from .kinds import EVENT, PDB, SERVICE, STATEFULSET, WAC
from .laws import CLUSTER
from .world import NAME, NAMESPACE, Change, World, condition_of, simulated

WHOLE = (NAMESPACE, NAME)


def noted_intents(world: World) -> set[str]:
    """Keep the ids of all intents that are written from now on."""
    seen: set[str] = set()

    def check(change: Change) -> None:
        operation = ((change.after or {}).get("status") or {}).get("operation") if change.kind is WAC else None
        seen.update([operation["id"]] if operation else [])

    world.server.checks.append(check)
    return seen


@pytest.mark.parametrize("shards", [1, 4])
@simulated()
async def test_no_intent_is_reported_when_another_act_fails_in_the_tick_that_was_to_call(world: World, shards: int) -> None:
    """Else silence is explained by a restart that nobody asked for: a hung holder is not replaced, and drains are blocked."""
    operator = await world.started(shards=2)
    intents, restarts = noted_intents(world), world.account.restarts

    def refuse(what: str) -> None:
        if what == f"replace PodDisruptionBudget {NAME}-coreapp":
            raise Unavailable(what)

    operator.kube.before_write = refuse
    world.server.merge("user", PDB, (NAMESPACE, f"{NAME}-coreapp"), {"spec": {"maxUnavailable": 3}})
    world.edit(shards=shards)
    await world.pause(20)
    assert intents == set()
    assert world.condition("Reconciling")[1] != "AnswerUnknown"
    machine = world.holding(0)
    assert machine.coreapp is not None
    machine.coreapp.hang()
    await world.until(lambda: world.holder(0) is not machine, within=10, what="the hung holder is replaced")
    operator.kube.before_write = None
    await world.until_done(within=60)
    assert (len(intents), world.account.restarts) == (1, restarts + 1)


@pytest.mark.parametrize("conflicts", range(8, 14))
@simulated()
async def test_no_intent_is_reported_when_noting_it_met_only_conflicts(world: World, conflicts: int) -> None:
    """A foreign writer writes the resource before every note; no matter what comes of that, an intent is there only with its call."""
    operator = await world.started(shards=2)
    intents, restarts, left = noted_intents(world), world.account.restarts, [conflicts]

    def annotate(what: str) -> None:
        if what == f"status WhatsAppCluster {NAME}" and left[0]:
            left[0] -= 1
            world.annotate(note=str(left[0]))

    operator.kube.before_write = annotate
    world.edit(shards=1)
    await world.until_done(within=60)
    assert left == [0]
    assert (len(intents), world.account.restarts) == (1, restarts + 1)


@simulated()
async def test_a_note_whose_answer_is_lost_has_no_call_and_nobody_waits_for_one(world: World) -> None:
    """The process that lost the answer knows that it sent nothing."""
    operator = await world.started(shards=2)
    intents, restarts, lost = noted_intents(world), world.account.restarts, list[str]()

    def lose(what: str) -> None:
        operation = world.status().get("operation")
        if what == f"status WhatsAppCluster {NAME}" and operation and not lost:
            lost.append(operation["id"])
            raise TooManyRequests("the answer is lost")

    operator.kube.after_write = lose
    world.edit(shards=1)
    await world.until(lambda: world.account.restarts > restarts, within=10, what="it is called")
    await world.until_done(within=60)
    assert (len(lost), len(intents), world.account.restarts) == (1, 2, restarts + 1)


@simulated()
async def test_a_ban_is_remembered_when_another_rule_speaks_first(world: World) -> None:
    """Nothing is sent to a banned account, no matter what else was wrong meanwhile, and no matter which one leads."""
    operator = await world.started(shards=2)
    world.account.is_banned = True
    intents = noted_intents(world)
    world.edit(shards=4)
    await world.until(lambda: world.condition("Stalled")[:2] == ("True", "Banned"), within=60, what="Banned")
    foreign = {"metadata": {"namespace": NAMESPACE, "name": f"{NAME}-shard-3"}, "spec": {"selector": {"app": "other"}}}
    world.server.delete("user", SERVICE, (NAMESPACE, f"{NAME}-shard-3"))
    world.server.create("squatter", {"apiVersion": "v1", "kind": "Service", **foreign})
    await world.until(lambda: world.condition("Stalled")[:2] == ("True", "NameConflict"), within=30, what="NameConflict")
    operator.kill()
    world.operator().lead(2)
    await world.pause(10)
    world.server.delete("user", SERVICE, (NAMESPACE, f"{NAME}-shard-3"))
    await world.until(lambda: world.condition("Stalled")[:2] != ("True", "NameConflict"), within=30, what="the name is free")
    await world.pause(30)
    assert world.condition("Stalled")[:2] == ("True", "Banned")
    assert world.condition("Ready")[:2] == ("False", "Banned")
    assert len(intents) == 1


@pytest.mark.parametrize("shards", [1, 2, 4])
@simulated()
async def test_a_cluster_is_not_ready_before_its_first_number_of_shards_is_settled(world: World, shards: int) -> None:
    """`kubectl wait --for=condition=Ready` must not return while only some of the shards are there."""
    steps: list[tuple[str, str]] = []

    def check(change: Change) -> None:
        status = ((change.after or {}).get("status") or {}) if change.kind is WAC else {}
        if status.get("conditions"):
            steps.append(condition_of(status, "Ready")[:2])
            if condition_of(status, "Ready")[0] == "True":
                assert (status["shards"], status.get("settledShards")) == (shards, shards)

    world.server.checks.append(check)
    await world.started(shards=shards)
    text = {word for state, word in steps if state == "False"}
    assert "Bootstrapping" in text
    if shards > 1:
        assert text & {"AwaitingCoreapps", "AssigningShards", "SettingShards", "Restarting"}


@simulated()
async def test_a_status_restored_from_another_life_brings_no_call_of_that_life(world: World) -> None:
    """A backup taken during Set Shards is restored as a new resource, status and all: its uid is another one."""
    operator = await world.started(shards=2)

    def die(what: str) -> None:
        if what == f"status WhatsAppCluster {NAME}" and world.status().get("operation"):
            operator.kill()

    operator.kube.after_write = die
    world.edit(shards=8)
    await world.until(lambda: operator.dead, within=60, what="the intent is noted")
    saved = world.status()
    assert saved["operation"]["to"] == 8
    world.server.delete("user", WAC, WHOLE)
    world.recreate()
    await world.pause(60)
    most = [0]

    def check(change: Change) -> None:
        if change.kind is STATEFULSET and change.after is not None:
            most[0] = max(most[0], int(change.after["spec"].get("replicas", 1)))

    world.server.checks.append(check)
    world.create(shards=2)
    world.server.merge("velero", WAC, WHOLE, {"status": saved}, status=True)
    world.operator().lead(2)
    await world.until_done(within=60)
    assert most == [3]
    await world.stays_silent(60)


@simulated()
async def test_an_event_whose_sentence_changed_is_emitted_again(world: World) -> None:
    await world.started(shards=2)
    assigned: list[str] = []
    world.server.checks.append(
        lambda change: (
            assigned.append(change.after["message"])
            if change.kind is EVENT and change.after is not None and change.after["reason"] == "NameConflict"
            else None
        )
    )

    def squat(shard: int) -> None:
        meta = {"namespace": NAMESPACE, "name": f"{NAME}-shard-{shard}", "labels": {CLUSTER: "other"}}
        world.server.create("squatter", {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": {"app": "other"}}})

    squat(3)
    world.edit(shards=4)
    await world.until(lambda: len(assigned) == 1, within=30, what="the first name is emitted")
    # Not one that the operator may have created meanwhile.
    squat(7)
    world.edit(shards=8)
    await world.until(lambda: len(assigned) == 2, within=60, what="the second name is emitted")
    await world.pause(120)
    assert len(assigned) == 2
    assert f"{NAME}-shard-7" in assigned[1]
