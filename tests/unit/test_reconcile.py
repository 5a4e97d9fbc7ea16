"""The loop's order and rests, with an observation that does nothing: who is observed first, and what happens while nothing does."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from whatsapp_operator.core import pace
from whatsapp_operator.core.names import Key
from whatsapp_operator.shell.kube.errors import Rejected
from whatsapp_operator.shell.kube.lease import Leadership
from whatsapp_operator.shell.loop import reconcile
from whatsapp_operator.shell.loop.cluster import Cluster
from whatsapp_operator.shell.loop.observe import Memory
from whatsapp_operator.shell.loop.reconcile import Reconciler
from whatsapp_operator.shell.whatsapp.access import Access

LEADS = cast("Leadership", SimpleNamespace(epoch=1))
ACCESS = Access(addresses=("10.0.0.1:8443",), server_name="webapp")


class Fakes:
    """Fakes every part of a reconciler; the clusters are gone as soon as they are observed."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.looked: list[str] = []
        self.asked: list[str] = []
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wall(self) -> datetime:
        return self.now()

    async def list(self, *_: object) -> list[dict[str, Any]]:
        return [{"metadata": {"namespace": "default", "name": name}} for name in self.names]

    async def observe(self, key: Key, *_: object, **__: object) -> None:
        self.looked.append(key.name)
        await asyncio.sleep(0)

    def ask_again(self, key: Key, _: Access) -> None:
        self.asked.append(key.name)


def reconciler(fakes: Fakes) -> Reconciler:
    fake: Any = fakes
    return Reconciler(kube=fake, observer=fake, executor=fake, clock=fake, forget=lambda _: None)


async def test_a_namespace_that_cannot_be_listed_hides_no_other_one() -> None:
    """It may be gone, with the rights in it."""

    class InNamespaces(Fakes):
        rejected = 3

        async def list(self, *args: object) -> list[dict[str, Any]]:
            namespace = str(args[1])
            if namespace == "gone" and self.rejected:
                self.rejected -= 1
                msg = "403 Forbidden"
                raise Rejected(msg)
            return [{"metadata": {"namespace": namespace, "name": f"in-{namespace}"}}]

    fakes = InNamespaces([])
    fake: Any = fakes
    loop = Reconciler(kube=fake, observer=fake, executor=fake, clock=fake, forget=lambda _: None, namespaces=("before", "gone", "after"))
    await lead_until_observed(loop, fakes, 3)
    assert fakes.looked == ["in-before", "in-after", "in-gone"], "each once"


async def lead_until_observed(loop: Reconciler, fakes: Fakes, count: int) -> None:
    work = asyncio.create_task(loop.run(LEADS))
    async with asyncio.timeout(60):
        while len(fakes.looked) < count:
            await asyncio.sleep(0.001)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_a_new_leader_observes_first_where_something_pressed_while_nobody_led() -> None:
    fakes = Fakes([f"c{number:02}" for number in range(40)])
    loop = reconciler(fakes)
    loop.wake(Key("default", "c37"), is_urgent=True)
    loop.wake(Key("default", "c38"), is_urgent=False)
    await lead_until_observed(loop, fakes, 40)
    assert fakes.looked[0] == "c37"
    assert sorted({*fakes.looked}) == fakes.names


async def test_what_pressed_long_ago_does_not_come_first() -> None:
    fakes = Fakes([f"c{number:02}" for number in range(40)])
    loop = reconciler(fakes)
    loop.wake(Key("default", "c37"))
    fakes.time += reconcile.MISSED_FOR + 1
    await lead_until_observed(loop, fakes, 40)
    assert fakes.looked[0] == "c00"


async def test_of_very_many_clusters_a_quiet_one_is_asked_without_an_observation(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes([])
    loop = reconciler(fakes)
    cluster = Cluster(Key("default", "c0"), quiet=ACCESS)
    monkeypatch.setattr(pace, "ASK_AGAIN", timedelta(seconds=0.01))
    monkeypatch.setattr(loop, "_clusters", {Key("default", f"c{number}"): cluster for number in range(2)})
    await loop._rest(cluster, 0.1)
    assert len(fakes.asked) in range(3, 12)


@pytest.mark.parametrize("few_or_busy", ["few", "busy"])
async def test_few_clusters_and_busy_ones_rest_no_longer_than_planned(monkeypatch: pytest.MonkeyPatch, few_or_busy: str) -> None:
    fakes = Fakes([])
    loop = reconciler(fakes)
    cluster = Cluster(Key("default", "c0"), quiet=ACCESS if few_or_busy == "few" else None)
    count = 1 if few_or_busy == "few" else 1000
    monkeypatch.setattr(loop, "_clusters", {Key("default", f"c{number}"): cluster for number in range(count)})
    async with asyncio.timeout(10):
        await loop._rest(cluster, 0.1)
    assert fakes.asked == []


async def test_what_was_read_and_derived_is_dropped_in_a_long_rest_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be too old, and very many clusters may rest."""
    monkeypatch.setattr(pace, "SLOW_FOR", timedelta(seconds=0.05))
    loop, held = reconciler(Fakes([])), cast("Any", object())
    cluster = Cluster(Key("default", "c0"), memory=Memory(slow=held, desired=held))
    await loop._rest(cluster, 0.05)
    assert (cluster.memory.slow, cluster.memory.desired) == (held, held)
    await loop._rest(cluster, 0.06)
    assert (cluster.memory.slow, cluster.memory.desired) == (None, None)
