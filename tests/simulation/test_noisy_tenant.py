"""What the user of one cluster does costs that cluster's own time, and no writes without an end."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from whatsapp_operator.shell.kube.errors import KubeError, Rejected, Unavailable
from whatsapp_operator.shell.kube.kinds import EVENT, POD, WAC, Kind, Obj, kind_of

from .kube import SimKube
from .operators import Operator
from .world import NAME, NAMESPACE, World, simulated


class CountingKube(SimKube):
    """A way to the API server that counts calls by verb and kind, and on which some of them fail."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.calls: Counter[tuple[str, str]] = Counter()
        self.rejected: dict[tuple[str, Kind], KubeError] = {}
        """What is answered to a verb on a kind."""

    def _call(self, verb: str, kind: Kind) -> None:
        self.calls[verb, kind.kind] += 1
        if (verb, kind) in self.rejected:
            raise self.rejected[verb, kind]

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        self._call("get", kind)
        return await super().get(kind, namespace, name)

    async def list(self, kind: Kind, *args: Any, **options: Any) -> list[Obj]:
        self._call("list", kind)
        return await super().list(kind, *args, **options)

    async def create(self, obj: Obj) -> Obj:
        self._call("create", kind_of(obj))
        return await super().create(obj)

    async def patch_merge(self, kind: Kind, *args: Any) -> Obj:
        self._call("patch", kind)
        return await super().patch_merge(kind, *args)


async def settled(world: World, **spec: Any) -> tuple[Operator, CountingKube]:
    world.create(shards=2, spares=1, **spec)
    operator, kube = world.operator_by(CountingKube)
    operator.campaign()
    await world.until_done(within=120)
    await world.pause(3)
    return operator, kube


def annotations_of(world: World) -> dict[str, str]:
    return (world.server.get(WAC, (NAMESPACE, NAME)) or {})["metadata"].get("annotations") or {}


async def fails_over(world: World, *, within: float = 1.0) -> None:
    old = world.holding(0)
    world.delete_pod(old, force=True)
    await world.until(lambda: world.holder(0) not in {None, old}, within=within, what="handed over")


@simulated()
async def test_an_annotation_of_ten_kilobytes_costs_a_handful_of_writes(world: World) -> None:
    operator, kube = await settled(world)
    before, leads = kube.calls.copy(), operator.election
    world.annotate(switchover="99," * 3400)
    await world.until(lambda: "multiconnect.dev/switchover" not in annotations_of(world), within=5, what="the annotation is answered")
    await fails_over(world)
    await world.pause(10)
    assert (kube.calls - before)["create", "Event"] <= 10
    assert operator.leads
    assert operator.election is leads


@simulated()
async def test_a_switchover_request_that_cannot_be_taken_off_is_rejected_once(world: World) -> None:
    _, kube = await settled(world)
    before = kube.calls.copy()
    kube.rejected["patch", WAC] = Rejected("HTTP 403, Forbidden", code=403, reason="Forbidden")
    world.annotate(switchover="99,98,97")
    await world.pause(60)
    assert (kube.calls - before)["create", "Event"] <= 3
    assert (kube.calls - before)["patch", "WhatsAppCluster"] <= 30
    await fails_over(world)


@pytest.mark.parametrize("text", ["9" * 4301, "4" * 40, "²", "four"], ids=["4301 digits", "40 digits", "superscript", "word"])
@simulated()
async def test_a_number_that_is_none_stops_no_failover_and_is_named(world: World, text: str) -> None:
    await settled(world)
    world.annotate(reshard_now=text)
    await world.until(lambda: world.condition("Stalled")[:2] == ("True", "FieldInvalid"), within=5, what="said")
    await fails_over(world)
    world.annotate(reshard_now=None)
    await world.until_done(within=120)


@simulated()
async def test_a_time_that_no_clock_shows_stops_no_failover(world: World) -> None:
    world.put_account_secret(certificate="Y2VydGlmaWNhdGU=", expiresAt="2027-12-31T00:00:00Z", pin="482913")
    account = {"countryCode": "1", "phoneNumber": "6315550000", "secretRef": {"name": "account"}}
    await settled(world, account=account)
    for at in ("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"):
        world.edit(account={**account, "registeredAt": at})
        world.put_account_secret(certificate="Y2VydGlmaWNhdGU=", expiresAt=at, pin="482913")
        await world.pause(10)
        await fails_over(world)
        await world.pause(30)


@pytest.mark.parametrize("code", [403, 422])
@simulated()
async def test_events_that_are_refused_for_good_are_few(world: World, code: int) -> None:
    _, kube = await settled(world)
    kube.rejected["create", EVENT] = Rejected(f"HTTP {code}", code=code, reason="Forbidden" if code == 403 else "Invalid")
    world.edit(shards=4)
    await world.pause(120)
    before = kube.calls.copy()
    await world.pause(120)
    later = kube.calls - before
    assert later["create", "Event"] <= 6
    assert later["list", "Pod"] <= 60, "they bring about no observations"
    await fails_over(world)
    kube.rejected.clear()
    await world.until_done(within=120)
    await world.pause(400)
    before = kube.calls.copy()
    await world.pause(60)
    assert (kube.calls - before)["create", "Event"] == 0


@simulated()
async def test_a_resource_that_is_written_all_the_time_has_a_status_and_is_resized(world: World) -> None:
    await settled(world)
    busy = True

    async def write() -> None:
        for number in range(100_000):
            if not busy:
                return
            world.annotate(note=str(number))
            await asyncio.sleep(1 / 100)

    writer = asyncio.create_task(write())
    world.edit(shards=4)
    await world.until_done(within=90)
    busy = False
    await writer
    await world.stays_silent(30)


@simulated()
async def test_an_observation_that_fails_is_tried_again_soon_and_keeps_what_woke_it(world: World) -> None:
    operator, kube = await settled(world)
    await world.pause(40)
    assert operator._reconciler is not None
    clusters = operator._reconciler._clusters
    (cluster,) = clusters.values()
    # As if there were a thousand, to none of which anything happens.
    for number in range(1000):
        clusters[f"other-{number}"] = cluster  # type: ignore[index]
    await world.pause(61)
    kube.rejected["list", POD] = Unavailable("HTTP 500", code=500)
    old = world.holding(0)
    world.delete_pod(old, force=True)
    await world.pause(0.25)
    assert cluster.is_urgent, "what woke it is not spent"
    kube.rejected.clear()
    await world.until(lambda: world.holder(0) not in {None, old}, within=1.0, what="handed over")
    for number in range(1000):
        del clusters[f"other-{number}"]  # type: ignore[arg-type]
