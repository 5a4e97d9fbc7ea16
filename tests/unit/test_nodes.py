"""What is known of nodes, from lists and streams that break, stay silent or are rejected; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from whatsapp_operator.shell.kube.client import LightKube
from whatsapp_operator.shell.kube.errors import Expired, Rejected, Unavailable
from whatsapp_operator.shell.kube.kinds import LEASE, NODE, Kind, Obj
from whatsapp_operator.shell.kube.node import LEAVING_TAINTS, node_of
from whatsapp_operator.shell.kube.nodes import GONE_FOR, Nodes

if TYPE_CHECKING:
    from whatsapp_operator.shell.kube.nodes import NodeReads

pytestmark = pytest.mark.looptime(noop_cycles=0)
START = datetime(2030, 1, 1, tzinfo=UTC)


def typed(kube: LightKube) -> None:
    """Let mypy say that the parts fit."""
    reads: NodeReads = kube
    del reads


class Clock:
    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic())

    def wall(self) -> datetime:
        return self.now()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def a_node(name: str, *, ready: str = "True", taints: tuple[str, ...] = (), effect: str = "NoSchedule", **spec: Any) -> Obj:
    return {
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "z1"}},
        "spec": {"taints": [{"key": key, "effect": effect} for key in taints], **spec},
        "status": {"conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}]},
    }


class Server:
    """The API server, as far as nodes and their Leases go."""

    def __init__(self) -> None:
        self.objects: dict[Kind, dict[str, Obj]] = {NODE: {}, LEASE: {}}
        self.version = 1
        self.log: list[tuple[int, Kind, str, Obj]] = []
        self.asked: list[tuple[str, str, str | None]] = []
        self.refused: set[Kind] = set()
        self.down = self.deaf = False
        self.expired = False
        self.news = asyncio.Event()

    def put(self, kind: Kind, obj: Obj) -> None:
        name = obj["metadata"]["name"]
        self._tell(kind, "MODIFIED" if name in self.objects[kind] else "ADDED", obj)
        self.objects[kind][name] = obj

    def delete(self, kind: Kind, name: str) -> None:
        self._tell(kind, "DELETED", self.objects[kind].pop(name))

    def _tell(self, kind: Kind, what: str, obj: Obj) -> None:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.log.append((self.version, kind, what, obj))
        self._wake()

    def go_down(self) -> None:
        """Break every watch, and answer nothing until ``down`` is False again."""
        self.down = True
        self._wake()

    def _wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def renew(self, name: str, at: str) -> None:
        self.put(LEASE, {"metadata": {"name": name}, "spec": {"renewTime": at}})

    def _answer(self, verb: str, kind: Kind, namespace: str | None) -> None:
        self.asked.append((verb, kind.plural, namespace))
        if self.down:
            raise Unavailable("connection refused")
        if kind in self.refused:
            raise Rejected(f"{verb} {kind.kind}: 403 Forbidden", code=403, reason="Forbidden")

    async def list_to_watch(self, kind: Kind, namespace: str | None) -> tuple[list[Obj], str]:
        self._answer("list", kind, namespace)
        return list(self.objects[kind].values()), str(self.version)

    async def watch(
        self, kind: Kind, namespace: str | None, *, resource_version: str | None, server_timeout: int
    ) -> AsyncGenerator[tuple[str, Obj]]:
        self._answer("watch", kind, namespace)
        assert resource_version is not None
        if self.expired:
            self.expired = False
            raise Expired("too old resource version", code=410)
        sent = int(resource_version)
        ends = asyncio.get_running_loop().time() + server_timeout
        dead = False
        while True:
            dead |= self.deaf  # for good: such a stream says nothing ever again
            for version, of, what, obj in list(self.log):
                if of is kind and version > sent and not dead:
                    sent = version
                    yield what, obj
            if self.down:
                raise Unavailable("connection reset")
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, ends - asyncio.get_running_loop().time())):
                    await self.news.wait()
                    continue
            if not dead:
                return
            ends += 1000


class Kubelets:
    """Renew Leases each 10 s, each node at its own time, by clocks that are an hour apart."""

    def __init__(self, server: Server, *names: str) -> None:
        self._server = server
        self.lost: set[str] = set()
        self.tasks = [asyncio.create_task(self._renew(name, number)) for number, name in enumerate(names)]

    async def _renew(self, name: str, number: int) -> None:
        await asyncio.sleep(number * 3)
        while True:
            if name not in self.lost and not self._server.down:
                self._server.renew(name, (Clock().now() - timedelta(hours=number)).isoformat())
            await asyncio.sleep(10)


@asynccontextmanager
async def watching(server: Server) -> AsyncIterator[tuple[Nodes, list[str]]]:
    changed: list[str] = []
    nodes = Nodes(server, clock=Clock(), changed=changed.append)
    task = asyncio.create_task(nodes.run())
    try:
        yield nodes, changed
        assert not task.done()
    finally:
        for one in (task, *(t for t in asyncio.all_tasks() if (t.get_coro().__qualname__).startswith("Kubelets"))):  # type: ignore[union-attr]
            one.cancel()
        with suppress(asyncio.CancelledError):
            await task


def ages(nodes: Nodes) -> dict[str, float]:
    found = nodes.snapshot()
    assert found is not None
    renewed = {name: node.renewed_at for name, node in found.items()}
    return {name: (Clock().now() - at).total_seconds() for name, at in renewed.items() if at is not None}


# --- one node ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("obj", "leaving"),
    [
        (a_node("n"), None),
        (a_node("n", unschedulable=True), "cordoned"),
        (a_node("n", taints=("ToBeDeletedByClusterAutoscaler",)), "ToBeDeletedByClusterAutoscaler"),
        (a_node("n", taints=("karpenter.sh/disrupted",), unschedulable=True), "karpenter.sh/disrupted"),
        (a_node("n", taints=("karpenter.sh/disruption",)), "karpenter.sh/disruption"),
        (a_node("n", taints=("aws-node-termination-handler/spot-itn",)), "aws-node-termination-handler/spot-itn"),
        (a_node("n", taints=("cloud.google.com/impending-node-termination",)), "cloud.google.com/impending-node-termination"),
        (a_node("n", taints=("node.cloudprovider.kubernetes.io/shutdown",)), "node.cloudprovider.kubernetes.io/shutdown"),
        (a_node("n", taints=("karpenter.sh/disrupted",), effect="PreferNoSchedule"), None),
        (a_node("n", taints=("kubernetes.azure.com/scalesetpriority",)), None),
        (a_node("n", taints=("DeletionCandidateOfClusterAutoscaler",), effect="PreferNoSchedule"), None),
        (a_node("n", taints=("node.kubernetes.io/unreachable",), effect="NoExecute"), None),
        (a_node("n", taints=("karpenter.sh/disrupted-not",)), None),
    ],
)
def test_what_says_that_a_node_is_leaving(obj: Obj, leaving: str | None) -> None:
    assert node_of(obj).leaving == leaving


def test_every_taint_names_its_source() -> None:
    assert all(source for source in LEAVING_TAINTS.values())


def test_what_else_a_node_tells() -> None:
    assert [node_of(a_node("n", ready=ready)).ready for ready in ("True", "False", "Unknown")] == [True, False, None]
    assert node_of({"metadata": {"name": "bare"}}).ready is None
    assert node_of(a_node("n")).zone == "z1"
    assert node_of({"metadata": {"name": "n", "labels": {"failure-domain.beta.kubernetes.io/zone": "old"}}}).zone == "old"
    assert not node_of(a_node("n")).out_of_service
    gone = a_node("n", taints=("node.kubernetes.io/out-of-service",), effect="NoExecute")
    assert node_of(gone).out_of_service
    assert node_of(gone).leaving is None


# --- all nodes --------------------------------------------------------------------------------------------------------


async def test_nothing_is_known_until_both_lists_were_read() -> None:
    server = Server()
    server.put(NODE, a_node("n0"))
    server.refused = {LEASE}
    async with watching(server) as (nodes, _):
        assert nodes.snapshot() is None
        await asyncio.sleep(10)
        assert nodes.snapshot() is None
        server.refused = set()
        await asyncio.sleep(5.1)
        found = nodes.snapshot()
        assert found is not None
        assert found["n0"].renewed_at is None
        assert {namespace for _, plural, namespace in server.asked if plural == "leases"} == {"kube-node-lease"}
        with pytest.raises(TypeError):
            found["n0"] = found["n0"]  # type: ignore[index]


async def test_the_api_server_has_answered_when_both_were_read_or_rejected() -> None:
    server = Server()
    server.put(NODE, a_node("n0"))
    server.down = True
    async with watching(server) as (nodes, _):
        await asyncio.sleep(10)
        assert not nodes.has_asked()
        server.down, server.refused = False, {LEASE}
        await asyncio.sleep(5.1)
        assert nodes.has_asked()
        assert nodes.snapshot() is None
    server.refused = set()
    async with watching(server) as (nodes, _):
        await asyncio.sleep(0.1)
        assert nodes.has_asked()
        server.go_down()
        await asyncio.sleep(10)
        assert nodes.has_asked(), "what was read is known"


async def test_renewals_count_by_our_clock_and_wake_nobody() -> None:
    server = Server()
    for name in ("n0", "n1", "n2"):
        server.put(NODE, a_node(name))
    kubelets = Kubelets(server, "n0", "n1", "n2")
    async with watching(server) as (nodes, changed):
        await asyncio.sleep(120)
        assert sorted(ages(nodes)) == ["n0", "n1", "n2"]
        assert max(ages(nodes).values()) <= 10.1
        assert changed == []
        kubelets.lost.add("n1")
        await asyncio.sleep(16)
        assert 15 < ages(nodes)["n1"] < 27
        assert max(ages(nodes)[name] for name in ("n0", "n2")) <= 10.1
        before = nodes.snapshot()
        assert before is not None
        kept = dict(before)
        await asyncio.sleep(10)
        assert dict(before) == kept, "a snapshot does not change afterwards"


async def test_what_decisions_go_by_wakes() -> None:
    server = Server()
    server.put(NODE, a_node("n0"))
    server.put(NODE, a_node("n1", unschedulable=True))
    async with watching(server) as (_, changed):
        await asyncio.sleep(1)
        assert changed == ["n1"], "a sound node is no news, a cordoned one is"
        changed.clear()
        for obj in (
            a_node("n0", unschedulable=True),
            a_node("n0"),
            a_node("n0", ready="Unknown"),
            a_node("n0", ready="Unknown", taints=("node.kubernetes.io/out-of-service",)),
            None,
        ):
            if obj is not None:
                server.put(NODE, obj)
            else:
                server.delete(NODE, "n0")
            await asyncio.sleep(0.1)
            assert changed == ["n0"]
            changed.clear()
        server.put(NODE, a_node("n1", unschedulable=True, podCIDR="10.0.0.0/24"))
        await asyncio.sleep(0.1)
        assert changed == []


@pytest.mark.parametrize("outage", [0.5, 10.4, 60])
async def test_an_outage_of_the_api_server_makes_no_node_seem_lost(outage: float) -> None:
    server = Server()
    names = [f"n{number}" for number in range(4)]
    for name in names:
        server.put(NODE, a_node(name))
    kubelets = Kubelets(server, *names)
    async with watching(server) as (nodes, changed):
        await asyncio.sleep(39.5)
        server.go_down()
        await asyncio.sleep(outage)
        assert nodes.snapshot() is not None, "what was known is known still"
        server.down = False
        worst = 0.0
        for _ in range(400):
            await asyncio.sleep(0.1)
            found = ages(nodes)
            if (newest := min(found.values())) < 5:
                worst = max(worst, *(age - newest for age in found.values()))
        assert worst <= 12, f"a node appeared {worst:.1f} s older than the newest"
        assert changed == []
        kubelets.lost.add("n2")
        await asyncio.sleep(27)
        assert ages(nodes)["n2"] > 16, "and a lost one is still distinguished from the others"


@pytest.mark.parametrize("how", ["leaving", "declared dead", "deleted"])
async def test_a_node_that_leaves_or_is_gone_is_reported_again_once_nodes_can_be_read(how: str) -> None:
    """A move off it waits until then, and no other event says that they can."""
    server = Server()
    taints = ("node.kubernetes.io/out-of-service",) if how == "declared dead" else ()
    server.put(NODE, a_node("n0", unschedulable=how == "leaving", taints=taints, effect="NoExecute"))
    server.put(NODE, a_node("n1"))
    async with watching(server) as (nodes, changed):
        await asyncio.sleep(1)
        if how == "deleted":
            server.delete(NODE, "n0")
            await asyncio.sleep(1)
        changed.clear()
        server.go_down()
        await asyncio.sleep(20)
        assert nodes.unread().keys() == {"Node", "Lease"}
        assert changed == []
        server.down = False
        await asyncio.sleep(10)
        assert (nodes.unread(), changed) == ({}, ["n0"])


async def test_the_first_that_is_heard_after_a_silence_does_not_make_the_others_seem_lost() -> None:
    server = Server()
    names = [f"n{number}" for number in range(3)]
    for name in names:
        server.put(NODE, a_node(name))
        server.renew(name, "first")
    async with watching(server) as (nodes, _):
        await asyncio.sleep(20)
        server.renew("n1", "second")
        await asyncio.sleep(0.1)
        assert max(ages(nodes).values()) < 1
        await asyncio.sleep(9)
        server.renew("n1", "third")
        await asyncio.sleep(0.1)
        assert ages(nodes)["n0"] > 9, "while one is heard the operator is not deaf"


async def test_a_watch_that_is_silently_dead_is_opened_again() -> None:
    server = Server()
    for name in ("n0", "n1"):
        server.put(NODE, a_node(name))
    Kubelets(server, "n0", "n1")
    async with watching(server) as (nodes, changed):
        await asyncio.sleep(31)
        server.deaf = True
        await asyncio.sleep(5)
        server.put(NODE, a_node("n0", ready="Unknown"))
        asked = len(server.asked)
        await asyncio.sleep(26)
        assert ("list", "leases", "kube-node-lease") in server.asked[asked:]
        server.deaf = False
        await asyncio.sleep(51)
        assert changed == ["n0"]
        found = ages(nodes)
        assert max(found.values()) - min(found.values()) <= 10.1


async def test_what_went_while_we_were_deaf_is_gone() -> None:
    server = Server()
    for name in ("n0", "n1"):
        server.put(NODE, a_node(name))
        server.renew(name, "once")
    async with watching(server) as (nodes, changed):
        await asyncio.sleep(1)
        server.go_down()
        await asyncio.sleep(1)
        server.delete(NODE, "n1")
        server.delete(LEASE, "n0")
        server.log.clear()
        server.down = False
        await asyncio.sleep(10)
        found = nodes.snapshot()
        assert found is not None
        assert (found["n0"].renewed_at, found["n0"].gone, found["n1"].gone) == (None, False, True)
        assert changed == ["n1"]


async def test_a_node_that_comes_back_is_not_gone_and_a_gone_one_is_forgotten_at_last() -> None:
    server = Server()
    for name in ("n0", "n1"):
        server.put(NODE, a_node(name))
        server.renew(name, "once")
    async with watching(server) as (nodes, _):
        await asyncio.sleep(1)
        server.delete(NODE, "n0")
        await asyncio.sleep(1)
        server.put(NODE, a_node("n0"))
        server.delete(NODE, "n1")
        await asyncio.sleep(1)
        found = nodes.snapshot()
        assert found is not None
        assert (found["n0"].gone, found["n1"].gone) == (False, True)
        await asyncio.sleep(GONE_FOR)
        server.delete(NODE, "n0")
        await asyncio.sleep(1)
        found = nodes.snapshot()
        assert found is not None
        assert {name: node.gone for name, node in found.items()} == {"n0": True}


async def test_an_old_version_is_listed_again_at_once() -> None:
    server = Server()
    server.put(NODE, a_node("n0"))
    async with watching(server) as (_, changed):
        await asyncio.sleep(1)
        server.expired = True
        server.log.clear()
        await asyncio.sleep(9.5)
        server.put(NODE, a_node("n0", unschedulable=True))
        server.log.clear()
        await asyncio.sleep(2)
        assert changed == ["n0"]


async def test_a_refusal_is_said_once_and_tried_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.refused = {NODE, LEASE}
    async with watching(server) as (nodes, _):
        await asyncio.sleep(1000)
        assert nodes.snapshot() is None
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(said) == 1
        assert "grant list and watch of nodes, and of leases in namespace kube-node-lease" in said[0]
        # Of each kind: some seconds apart in the first minute, then each 30 s.
        assert 60 <= len(server.asked) <= 100
        assert nodes.unread().keys() == {"Node", "Lease"}
        assert "403" in nodes.unread()["Node"]


async def test_rights_that_are_taken_away_leave_nothing_known() -> None:
    server = Server()
    server.put(NODE, a_node("n0"))
    async with watching(server) as (nodes, _):
        await asyncio.sleep(1)
        assert nodes.snapshot() is not None
        server.refused = {NODE}
        await asyncio.sleep(100)  # its stream ends after 25 s, and what was known is kept for a minute
        assert nodes.snapshot() is None
        assert nodes.unread().keys() == {"Node"}


async def test_a_refusal_after_a_long_absence_is_the_first_one() -> None:
    """An API server that has just started rejects everything for a moment, until its authorizer has read the roles."""
    server = Server()
    server.put(NODE, a_node("n0"))
    async with watching(server) as (nodes, _):
        await asyncio.sleep(1)
        server.go_down()
        await asyncio.sleep(180)
        server.down, server.refused = False, {NODE, LEASE}
        await asyncio.sleep(6)
        assert nodes.snapshot() is not None
        server.refused = set()
        await asyncio.sleep(6)
        assert nodes.unread() == {}


@pytest.mark.parametrize("kind", [NODE, LEASE], ids=lambda kind: str(kind.kind))
async def test_one_refusal_costs_nothing(kind: Kind) -> None:
    """A passing fault of the authorizer: what is known stays known, and some seconds later all is as before."""
    server = Server()
    for name in ("n0", "n1"):
        server.put(NODE, a_node(name))
    kubelets = Kubelets(server, "n0", "n1")
    async with watching(server) as (nodes, changed):
        await asyncio.sleep(30)
        before = len([one for one in server.asked if one[0] == "list"])
        server.refused = {kind}
        server.go_down()
        await asyncio.sleep(0.1)
        server.down = False
        while len([one for one in server.asked if one[0] == "list"]) == before:
            await asyncio.sleep(0.1)
        assert nodes.snapshot() is not None
        server.refused = set()
        asked = len(server.asked)
        await asyncio.sleep(5.1)
        assert nodes.snapshot() is not None
        assert nodes.unread() == {}
        assert len(server.asked) >= asked + 2, "listed and watched again"
        kubelets.lost.add("n1")
        await asyncio.sleep(20)
        assert ages(nodes)["n1"] > 15 > ages(nodes)["n0"]
        assert changed == []


async def test_what_cannot_be_read_for_a_while_is_reported_and_its_end_too() -> None:
    server = Server()
    server.put(NODE, a_node("n0"))
    async with watching(server) as (nodes, _):
        await asyncio.sleep(1)
        server.go_down()
        await asyncio.sleep(4)
        assert nodes.unread() == {}
        await asyncio.sleep(10)
        assert nodes.unread().keys() == {"Node", "Lease"}
        assert nodes.snapshot() is not None, "an outage takes nothing away"
        server.down = False
        await asyncio.sleep(5.1)
        assert nodes.unread() == {}


async def test_a_server_that_ends_every_stream_is_not_asked_in_a_loop() -> None:
    class Hasty(Server):
        async def watch(self, kind: Kind, namespace: str | None, **_: Any) -> AsyncGenerator[tuple[str, Obj]]:
            self._answer("watch", kind, namespace)
            return
            yield

    server = Hasty()
    async with watching(server) as (nodes, _):
        await asyncio.sleep(60)
        assert nodes.snapshot() is not None
        assert len(server.asked) <= 2 * 60 / 0.5 + 4


async def test_only_a_renewal_that_was_seen_shows_that_a_node_lives() -> None:
    server = Server()
    server.put(NODE, a_node("n0"))
    server.renew("n0", "2027-01-01T00:00:00Z")
    async with watching(server) as (nodes, _):
        await asyncio.sleep(1)
        assert [node.presumed for node in (nodes.snapshot() or {}).values()] == [True]
        server.renew("n0", "2027-01-01T00:00:10Z")
        await asyncio.sleep(1)
        assert [node.presumed for node in (nodes.snapshot() or {}).values()] == [False]


async def test_a_node_that_is_back_is_reported_at_once() -> None:
    server = Server()
    server.put(NODE, a_node("n0"))
    async with watching(server) as (nodes, changed):
        await asyncio.sleep(1)
        server.delete(NODE, "n0")
        await asyncio.sleep(1)
        server.put(NODE, a_node("n0"))
        await asyncio.sleep(1)
        assert changed[-2:] == ["n0", "n0"]
        assert not (nodes.snapshot() or {})["n0"].gone
