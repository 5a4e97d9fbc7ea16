"""A write that the API server rejects for long is named in the resource, no matter of what: a right is missing, or a webhook denies it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from whatsapp_operator.shell.kube.errors import Rejected
from whatsapp_operator.shell.kube.kinds import Kind

from .kinds import PDB, SERVICE, STATEFULSET
from .kube import SimKube
from .machines import Machine
from .world import NAME, NAMESPACE, World, simulated

T = TypeVar("T")
BUDGET = (NAMESPACE, f"{NAME}-webapp")


class Denied(SimKube):
    """A way to the API server that rejects some writes: those whose verb, kind and name begin with one of ``denied``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.denied: list[str] = []
        self.answers = 0
        """How often it rejected something."""

    async def _write(self, what: str, kind: Kind, name: str, touch: Callable[[], None] | None, do: Callable[[], T]) -> T:
        said = f"{what} {kind.kind} {name}"
        if any(map(said.startswith, self.denied)):
            self.answers += 1
            msg = f"{said}: 403 Forbidden: the operator may not do that"
            raise Rejected(msg, code=403, reason="Forbidden")
        return await super()._write(what, kind, name, touch, do)


async def settled(world: World, spares: int = 1) -> Denied:
    operator, kube = world.operator_by(Denied)
    world.create(shards=2, spares=spares)
    operator.lead(1)
    await world.until_done()
    return kube


def fail_holder(world: World) -> None:
    holder = world.holding(0)
    world.delete_pod(holder)


def hang_spare(world: World) -> None:
    holders = [world.holder(shard) for shard in range(2)]
    spare = next(machine for machine in world.coreapps() if machine not in holders)
    assert spare.coreapp is not None
    spare.coreapp.hang()


CASES: dict[str, tuple[str, Callable[[World], None]]] = {
    "scale": ("patch StatefulSet", lambda world: world.edit(spares=3)),
    "anchor": ("status StatefulSet", lambda world: world.edit(shards=4)),
    "a shard's Service": ("create Service acme-shard", lambda world: world.edit(shards=4)),
    "prepare": ("patch Pod", fail_holder),
    "commit": ("patch Service", fail_holder),
    "delete": ("delete Pod", hang_spare),
}


@pytest.mark.parametrize(("denied", "asked"), CASES.values(), ids=CASES)
@simulated()
async def test_a_write_that_is_rejected_for_long_is_named_and_tried_again(
    world: World, denied: str, asked: Callable[[World], None]
) -> None:
    kube = await settled(world)
    # A fault of the way to the API server, for the laws of progress.
    world.network.dropped = 1e-12
    kube.denied.append(denied)
    asked(world)
    await world.until(lambda: world.condition("Stalled")[:2] == ("True", "ChangeRejected"), within=45, what="it is said")
    assert f"{denied}" in world.condition("Stalled")[2]
    assert "403 Forbidden: the operator may not do that" in world.condition("Stalled")[2]
    assert world.condition("Reconciling")[0] == "False"
    kube.denied.clear()
    world.network.dropped = 0.0
    await world.until_done()
    await world.until(lambda: world.condition("Stalled")[0] == "False", within=1, what="nothing waits for a person")
    await world.stays_silent(60)


@simulated()
async def test_no_call_is_made_while_a_Service_of_a_new_shard_is_rejected(world: World) -> None:  # noqa: N802
    """A quota of Services is used up. After the call a part of all messages would have no Service until a person acts."""
    kube = await settled(world)
    restarts = world.account.restarts
    world.network.dropped = 1e-12
    kube.denied.append("create Service acme-shard-3")
    world.edit(shards=4)
    await world.until(lambda: world.condition("Stalled")[:2] == ("True", "ChangeRejected"), within=45, what="it is said")
    await world.pause(60)
    assert (world.account.shards, world.account.restarts) == (2, restarts)
    assert world.condition("Ready")[0] == "True"
    # A leader that does not know the client's number yet gives no Coreapp a shard that is still to come.
    world.living()[0].kill()
    world.api_faults = 1.0
    other, kube = world.operator_by(Denied)
    kube.denied.append("create Service acme-shard-3")
    other.lead(2)
    await world.pause(20)
    assert (world.holder(2), world.condition("Ready")[1]) == (None, "WebappNotResponding")
    world.api_faults = 0.0
    kube.denied.clear()
    world.network.dropped = 0.0
    await world.until_done()
    await world.stays_silent(60)


@simulated()
async def test_Coreapps_are_raised_although_another_object_is_rejected(world: World) -> None:  # noqa: N802
    """laws#4: raising them comes first, before the StatefulSet's controller ends those that hold shards. A policy may reject for days."""
    kube = await settled(world)
    world.network.dropped = 1e-12
    kube.denied.append("create PodDisruptionBudget")
    world.server.delete("user", PDB, (NAMESPACE, f"{NAME}-webapp"))
    await world.until(lambda: world.condition("Stalled")[:2] == ("True", "ObjectsRejected"), within=60, what="it is said")
    coreapps = (NAMESPACE, f"{NAME}-coreapp")
    world.server.merge("autoscaler", STATEFULSET, coreapps, {"spec": {"replicas": 1}}, scale=True)
    await world.until(lambda: (world.server.get(STATEFULSET, coreapps) or {})["spec"]["replicas"] == 3, within=0.1, what="they are raised")
    assert world.condition("Stalled")[:2] == ("True", "ObjectsRejected")
    kube.denied.clear()
    world.network.dropped = 0.0
    await world.until_done()


def reject_an_object(world: World, kube: Denied) -> None:
    kube.denied.append("create PodDisruptionBudget")
    world.server.delete("user", PDB, BUDGET)


def reject_more_coreapps(world: World, kube: Denied) -> None:
    kube.denied.append("patch StatefulSet")
    world.edit(spares=2)


def reject_a_request(world: World, kube: Denied) -> None:
    kube.denied.append("patch WhatsAppCluster")
    world.annotate(switchover="1")


def take_a_name(world: World, _: Denied) -> None:
    world.server.delete("user", PDB, BUDGET)
    spec = {"selector": {"matchLabels": {"app": "other"}}, "maxUnavailable": 1}
    meta = {"namespace": NAMESPACE, "name": BUDGET[1]}
    world.server.create("user", {"apiVersion": PDB.api_version, "kind": PDB.kind, "metadata": meta, "spec": spec})


@pytest.mark.parametrize("hinder", [reject_an_object, reject_more_coreapps, reject_a_request, take_a_name])
@simulated()
async def test_what_cannot_be_written_holds_up_no_shard_and_no_other_object(world: World, hinder: Callable[[World, Denied], None]) -> None:
    """A policy may reject for days. Meanwhile messages of a shard without a Service would be lost."""
    kube = await settled(world)
    world.network.dropped = 1e-12
    hinder(world, kube)
    await world.until(lambda: world.condition("Stalled")[0] == "True", within=60, what="it is said")
    said = world.condition("Stalled")[1]
    stalled: list[str] = []
    world.server.checks.append(lambda _: stalled.append(world.condition("Stalled")[1]))
    for name in ("shard-0", "webapp"):
        world.server.delete("user", SERVICE, (NAMESPACE, f"{NAME}-{name}"))
    await world.until(lambda: world.holder(0) is not None, within=1, what="the shard has a Service and a holder")
    await world.until(lambda: world.server.get(SERVICE, (NAMESPACE, f"{NAME}-webapp")) is not None, within=1, what="so have the Webapps")
    await world.pause(20)
    assert {*stalled} == {said}, "what is accepted does not take back what is said of another object"
    assert (world.condition("Stalled")[0], world.condition("Ready")[0]) == ("True", "True")


@pytest.mark.parametrize("after", [6.0, 60.0])
@simulated()
async def test_a_name_that_is_free_again_is_noticed_after_a_quarter_of_the_time(world: World, after: float) -> None:
    """No event tells of it: budgets are not watched."""
    kube = await settled(world)
    take_a_name(world, kube)
    await world.until(lambda: world.condition("Stalled")[1] == "NameConflict", within=60, what="it is said")
    await world.pause(after)
    world.server.delete("user", PDB, BUDGET)
    await world.until(lambda: world.condition("Stalled")[0] == "False", within=after / 4 + 2, what="it is no longer said")
    await world.until_done(within=5)
    await world.stays_silent(60)


@simulated()
async def test_an_edited_Service_does_not_wait_until_another_object_is_tried_again(world: World) -> None:  # noqa: N802
    kube = await settled(world)
    world.network.dropped = 1e-12
    reject_an_object(world, kube)
    await world.until(lambda: world.condition("Stalled")[0] == "True", within=60, what="it is said")
    where = (NAMESPACE, f"{NAME}-shard-0")
    for _ in range(3):
        answers = kube.answers
        while kube.answers == answers:
            await world.pause(0.1)
        world.server.merge("user", SERVICE, where, {"spec": {"publishNotReadyAddresses": False}})
        await world.until(
            lambda: (world.server.get(SERVICE, where) or {})["spec"]["publishNotReadyAddresses"], within=1, what="the Service is as it was"
        )


def spares_of(world: World, which: int) -> tuple[Machine, Machine]:
    """One of two spares, and the other one. Which one comes first for the operator is its matter, so both are tried."""
    holders = [world.holder(shard) for shard in range(2)]
    found = sorted((one for one in world.coreapps() if one not in holders), key=lambda one: one.name)
    return found[which], found[1 - which]


@pytest.mark.parametrize("which", range(2))
@simulated()
async def test_a_standby_that_takes_no_labels_is_left_for_another_one(world: World, which: int) -> None:
    """A policy may reject pods of an older image, no matter what of them is changed."""
    kube = await settled(world, spares=2)
    world.network.dropped = 1e-12
    rejected, other = spares_of(world, which)
    kube.denied.append(f"patch Pod {rejected.name[1]}")
    fail_holder(world)
    await world.until(lambda: world.holder(0) is other, within=1, what="the other one takes over")


@pytest.mark.parametrize("shards", [1, 2])
@simulated()
async def test_the_Services_of_shards_that_are_not_wanted_any_more_go_away(world: World, shards: int) -> None:  # noqa: N802
    kube = await settled(world)
    kube.denied.append("create Service acme-shard-3")
    world.edit(shards=4)
    made = (NAMESPACE, f"{NAME}-shard-2")
    await world.until(lambda: world.server.get(SERVICE, made) is not None, within=45, what="one is made")
    world.edit(shards=shards)
    await world.until_done()
    assert world.server.get(SERVICE, made) is None
    await world.stays_silent(60)


@simulated()
async def test_a_write_that_is_rejected_for_a_moment_is_not_named(world: World) -> None:
    """An API server that comes back after an outage rejects everything until it has read the roles."""
    kube = await settled(world)
    stalled: list[str] = []
    world.server.checks.append(lambda _: stalled.append(world.condition("Stalled")[0]))
    kube.denied.append("patch StatefulSet")
    world.edit(spares=2)
    await world.pause(3.0)
    kube.denied.clear()
    await world.until_done()
    assert "True" not in stalled


@simulated()
async def test_a_requested_move_that_is_rejected_holds_up_no_other_one(world: World) -> None:
    """The request of the first one stays, and that of the second is carried out meanwhile."""
    kube = await settled(world, spares=2)
    first, second = world.holding(0), world.holding(1)
    spare = next(machine.name[1] for machine in world.coreapps() if machine not in {first, second})
    kube.denied = [f"patch Pod {spare}"]
    world.annotate(switchover=f"0={spare},1")
    await world.until(lambda: world.holder(1) not in {None, second}, within=10, what="moved")
    assert world.holder(0) is first
    kube.denied = []
    await world.until(lambda: world.holding(0).name[1] == spare, within=30, what="moved")
    await world.until_done()
