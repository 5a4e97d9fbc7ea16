"""The loop's order and rests, with an observation that does nothing: who is observed first, and what happens while nothing does."""

import asyncio
import gc
import weakref
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from whatsapp_operator.core import pace, rules
from whatsapp_operator.core.actions import EmitEvent
from whatsapp_operator.core.names import Key, Obj
from whatsapp_operator.core.reasons import Reason
from whatsapp_operator.shell.kube.errors import Rejected, Unavailable
from whatsapp_operator.shell.kube.lease import Leadership
from whatsapp_operator.shell.loop import cluster_loop, reconcile
from whatsapp_operator.shell.loop.acting import Acting
from whatsapp_operator.shell.loop.cluster import Cluster, Memory
from whatsapp_operator.shell.loop.cluster_loop import ClusterLoop
from whatsapp_operator.shell.loop.observe import Observation
from whatsapp_operator.shell.loop.outcome import Outcome
from whatsapp_operator.shell.loop.reconcile import Reconciler
from whatsapp_operator.shell.loop.schedule import PriorityLimiter
from whatsapp_operator.shell.whatsapp.access import Access, Credentials

from .core.witnesses import WITNESSES

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

    def has_lost_holders(self, *_: object) -> bool:
        return False

    async def observe(self, key: Key, *_: object, **__: object) -> None:
        self.looked.append(key.name)
        await asyncio.sleep(0)

    def ask_again(self, key: Key, _: Access) -> None:
        self.asked.append(key.name)


def reconciler(fakes: Fakes) -> Reconciler:
    fake: Any = fakes
    return Reconciler(kube=fake, observer=fake, executor=fake, clock=fake, forget=lambda _: None)


def loop_of(cluster: Cluster, fakes: Fakes, **parts: Any) -> ClusterLoop:
    """The loop of a cluster; ``parts`` take the place of those of a reconciler."""
    return ClusterLoop(cluster, LEADS, replace(reconciler(fakes)._parts, **parts), leads=lambda: True)


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


async def test_all_listed_clusters_are_known_before_one_of_them_is_observed() -> None:
    """One of them may keep the phone number of another."""
    fakes, known = Fakes(["c0", "c1"]), list[tuple[str, int]]()
    fake: Any = fakes

    def listed(obj: Obj) -> None:
        known.append((obj["metadata"]["name"], len(fakes.looked)))

    loop = Reconciler(kube=fake, observer=fake, executor=fake, clock=fake, forget=lambda _: None, listed=listed)
    await lead_until_observed(loop, fakes, 2)
    assert known == [("c0", 0), ("c1", 0)]


class LosingHolders(Fakes):
    """Each cluster has lost so many holders, one after the other."""

    def __init__(self, **lost: int) -> None:
        super().__init__([*lost])
        self.lost = lost

    def has_lost_holders(self, *args: object) -> bool:
        name = cast("Key", args[0]).name
        self.lost[name] -= 1
        return self.lost[name] >= 0


async def test_a_holder_that_is_lost_during_a_handover_is_not_left_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, begun = loop_of(Cluster(Key("default", "two")), LosingHolders(two=2)), list[float]()

    async def hand_over() -> None:
        begun.append(asyncio.get_running_loop().time())

    monkeypatch.setattr(loop, "_hand_over_by_old_lists", hand_over)
    await loop._hand_over_at_once()
    assert len(begun) == 2


async def test_a_cluster_whose_holders_come_and_go_is_not_observed_more_often_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not take the time of others (laws#15)."""
    loop, begun = loop_of(Cluster(Key("default", "flaps")), LosingHolders(flaps=10_000)), list[float]()

    async def hand_over() -> None:
        begun.append(asyncio.get_running_loop().time())

    monkeypatch.setattr(loop, "_hand_over_by_old_lists", hand_over)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await loop._hand_over_at_once()
    assert 0 < len(begun) <= 40


@pytest.mark.parametrize("lost", [frozenset[str](), frozenset({"uid-0"})])
async def test_no_call_is_made_by_an_observation_that_is_older_than_a_loss(monkeypatch: pytest.MonkeyPatch, lost: frozenset[str]) -> None:
    """Other writes of the plan may take a while, and a holder be gone and replaced meanwhile (laws#5)."""
    calls, one = list[str](), WITNESSES["SettingShards"]
    cluster, plan = Cluster(Key("default", "acme")), WITNESSES["SettingShards"].plan()
    cluster.memory.slow = cast("Any", SimpleNamespace(again=False))

    async def perform(*_: object, **__: object) -> Outcome:
        cluster.memory.lost = lost
        return Outcome()

    async def note(*args: Any) -> bool:
        cluster.memory.unsent.append(args[-1].operation.id)
        return True

    def call(*_: object) -> None:
        calls.append("Set Shards")

    fake: Any = Fakes([])
    acting = Acting(cluster, executor=cast("Any", SimpleNamespace(perform=perform, set_shards=call)), status=fake, clock=fake, metrics=fake)
    monkeypatch.setattr(acting, "_note", note)
    monkeypatch.setattr(acting, "_emit", lambda *_: None)
    observation = Observation(one.desired, one.snapshot, ACCESS, Credentials(country_code="1", phone_number="2"))
    outcome = await acting.act(observation, plan, await_all=cast("Any", None))
    assert (len(calls), outcome.is_outdated) == ((0, True) if lost else (1, False))


@pytest.mark.parametrize(("before", "after"), [(None, "observed"), ("observed", "observed"), ("former", "former")])
async def test_the_cluster_of_the_first_handovers_of_a_new_leader_is_noted(
    monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    """Otherwise what is remembered of them would count for a cluster that is made again under the same name (laws#14)."""
    judged, cluster = list[object](), Cluster(Key("default", "acme"), uid=before)
    observation = SimpleNamespace(desired=SimpleNamespace(uid="observed"), snapshot=None)

    async def observe(*_: object, **__: object) -> object:
        return observation

    def plan_of(facts: object) -> object:
        judged.append(facts)
        return SimpleNamespace(decision=SimpleNamespace(rule="any"), actions=())

    monkeypatch.setattr(rules, "facts", lambda *_: "facts")
    monkeypatch.setattr(rules, "plan_of", plan_of)
    await loop_of(cluster, Fakes([]), observer=SimpleNamespace(observe=observe))._hand_over_by_old_lists()
    assert (cluster.uid, judged) == (after, [] if before == "former" else ["facts"])


async def test_what_pressed_long_ago_does_not_come_first() -> None:
    fakes = Fakes([f"c{number:02}" for number in range(40)])
    loop = reconciler(fakes)
    loop.wake(Key("default", "c37"))
    fakes.time += reconcile.MISSED_FOR + 1
    await lead_until_observed(loop, fakes, 40)
    assert fakes.looked[0] == "c00"


async def test_of_very_many_clusters_a_quiet_one_is_asked_without_an_observation(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes([])
    monkeypatch.setattr(pace, "ASK_AGAIN", timedelta(seconds=0.01))
    await loop_of(Cluster(Key("default", "c0"), quiet=ACCESS), fakes, count=lambda: 2)._rest(0.1)
    assert len(fakes.asked) in range(3, 12)


@pytest.mark.parametrize("few_or_busy", ["few", "busy"])
async def test_few_clusters_and_busy_ones_rest_no_longer_than_planned(few_or_busy: str) -> None:
    fakes = Fakes([])
    cluster = Cluster(Key("default", "c0"), quiet=ACCESS if few_or_busy == "few" else None)
    count = 1 if few_or_busy == "few" else 1000
    async with asyncio.timeout(10):
        await loop_of(cluster, fakes, count=lambda: count)._rest(0.1)
    assert fakes.asked == []


async def test_what_was_read_and_derived_is_dropped_in_a_long_rest_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be too old, and very many clusters may rest."""
    monkeypatch.setattr(pace, "SLOW_FOR", timedelta(seconds=0.05))
    held = cast("Any", object())
    cluster = Cluster(Key("default", "c0"), memory=Memory(slow=held, desired=held))
    loop = loop_of(cluster, Fakes([]))
    await loop._rest(0.05)
    assert (cluster.memory.slow, cluster.memory.desired) == (held, held)
    await loop._rest(0.06)
    assert (cluster.memory.slow, cluster.memory.desired) == (None, None)


async def until_dropped(cluster: Cluster) -> None:
    async with asyncio.timeout(60):
        while cluster.memory.slow is not None:
            await asyncio.sleep(0.001)


async def test_what_was_read_and_derived_is_dropped_in_a_long_wait_for_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new leader has all of its clusters wait."""
    monkeypatch.setattr(pace, "SLOW_FOR", timedelta(seconds=0.01))
    fakes, limiter, held = Fakes([]), PriorityLimiter(at_a_time=1, background=1), cast("Any", object())
    cluster = Cluster(Key("default", "c0"), memory=Memory(slow=held, desired=held))
    async with limiter.turn(is_urgent=False):
        waiting = asyncio.create_task(loop_of(cluster, fakes, limiter=limiter)._observe(is_urgent=False))
        await until_dropped(cluster)
        assert cluster.memory.desired is None
        assert fakes.looked == []
    await waiting
    assert fakes.looked == ["c0"]


async def test_an_observation_keeps_what_it_began_with_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SLOW_FOR", timedelta(seconds=0.01))
    fakes, held, passed = Fakes([]), cast("Any", object()), asyncio.Event()
    cluster = Cluster(Key("default", "c0"), memory=Memory(slow=held, desired=held))

    async def observe(*_: object, **__: object) -> None:
        asyncio.get_running_loop().call_later(0.02, passed.set)
        await passed.wait()
        assert (cluster.memory.slow, cluster.memory.desired) == (held, held)

    monkeypatch.setattr(fakes, "observe", observe)
    await loop_of(cluster, fakes)._observe(is_urgent=False)
    assert passed.is_set()


class Held:
    """As large as everything that an observation reads."""


async def test_a_loop_that_rests_holds_nothing_of_an_observation_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes(["c0"])
    loop = reconciler(fakes)
    held: list[weakref.ref[Held]] = []

    async def observe(*_: object, **__: object) -> None:
        read = Held()
        held.append(weakref.ref(read))
        fakes.looked.append("c0")
        msg = f"list Pod default: 500, after {read}"
        raise Unavailable(msg)

    monkeypatch.setattr(fakes, "observe", observe)
    monkeypatch.setattr(cluster_loop.log, "disabled", True)  # pytest keeps what is logged, and with it the error
    monkeypatch.setattr(pace, "retry_after", lambda *_, **__: timedelta(seconds=60))
    work = asyncio.create_task(loop.run(LEADS))
    async with asyncio.timeout(60):
        while not fakes.looked or loop._clusters[Key("default", "c0")].failures < 1:
            await asyncio.sleep(0.001)
        # The loop has come to its rest once this task has its turn again.
        await asyncio.sleep(0)
    gc.collect()
    assert [one() for one in held] == [None]
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_no_Event_is_written_any_more_when_the_leadership_is_over() -> None:  # noqa: N802
    """Only then is the Lease released, and another process may lead."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def write(*_: object) -> bool:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0.01)  # to be cancelled may take a while, as on a connection that is closed
            ended.set()
        return True

    class Emitting(Fakes):
        async def observe(self, key: Key, *_: object, **__: object) -> None:
            cluster = loop._clusters[key]
            cluster.events.write([EmitEvent(reason=Reason.FAILING_OVER, message="Shard 0")], self.wall(), write)
            await begun.wait()
            await super().observe(key)
            await asyncio.get_running_loop().create_future()

    fakes = Emitting(["c0"])
    loop = reconciler(fakes)
    await lead_until_observed(loop, fakes, 1)
    assert ended.is_set()
