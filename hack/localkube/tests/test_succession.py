"""Whose a handover after the end of a leader is: the audit log says it, not the order in which two watches showed things."""

from __future__ import annotations

import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from localkube.errors import LocalKubeError
from localkube.plane.controlplane import Write
from localkube.scenarios.cluster import Holder
from localkube.scenarios.faults import succession as faults
from localkube.scenarios.faults.succession import authors
from localkube.scenarios.runner.case import Case

T0 = 1_790_000_000.0
OLD, NEW = "JTI=old", "JTI=new"


def write(credential: str, at: float, **more: Any) -> Write:
    usual: dict[str, Any] = {
        "verb": "update",
        "resource": "services",
        "subresource": "",
        "namespace": "default",
        "name": "acme-shard-0",
        "code": 200,
    }
    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")
    return Write(user="system:serviceaccount:s:o", at=when, credential=credential, **(usual | more))


@dataclass
class World:
    """A cluster whose leader ends: the commit is seen after 5 s, the new leader has the Lease after 4, the audit log says who did it."""

    writes: Callable[[float], list[Write]]
    handed_over: bool = True
    asked: list[int] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    begun: float = 0.0

    def __post_init__(self) -> None:
        operators = SimpleNamespace(credential={"op-0": OLD, "op-1": NEW}.__getitem__)
        self.harness = SimpleNamespace(operators=operators, plane=SimpleNamespace(writes=lambda: self.writes(self.begun)))
        self.api = SimpleNamespace(get=self._lease)
        self.streams = {"acme": SimpleNamespace(burst=lambda *_: None)}

    async def leading(self) -> Any:
        return SimpleNamespace(name="op-0", signal=self._signal)

    def _signal(self, _: signal.Signals) -> None:
        # A little later than what is measured: the audit log has whole microseconds, which may be below the time itself.
        self.begun = time.time() + 0.001

    def holder(self, cluster: str, shard: int) -> Holder:
        return Holder(shard, f"{cluster}-coreapp-0", "uid-0")

    async def switch_over(self, _: str, shard: int) -> None:
        self.asked.append(shard)

    async def delete_pod(self, _: str) -> None:
        """It goes."""

    async def replace(self, name: str) -> None:
        self.replaced.append(name)

    async def seen(self, ask: Callable[[], Any], timeout: float, what: str) -> Any:
        if not (found := ask()):
            msg = f"{what} did not come true within {timeout:g} s"
            raise LocalKubeError(msg)
        return found

    async def until(self, ask: Callable[[], Awaitable[Any]], timeout: float, what: str) -> Any:
        found = await ask()
        return await self.seen(lambda: found, timeout, what)

    def commit(self, cluster: str, shard: int, *, not_to: str, after: float) -> Any:
        assert (cluster, shard, not_to) == ("acme", 0, "uid-0")
        return SimpleNamespace(monotonic=after + 5.0) if self.handed_over else None

    async def _lease(self, _: str) -> Any:
        at = datetime.fromtimestamp(self.begun + 4.0, UTC).isoformat(timespec="microseconds")
        return {"spec": {"holderIdentity": "op-1_abc", "acquireTime": at}}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No random pause before the signal."""
    monkeypatch.setattr("localkube.scenarios.faults.succession.random.random", lambda: 0.0)


async def ended(world: World, *, holder_too: bool = False) -> tuple[Case[Any], list[faults.Succession]]:
    """The case, and what was measured."""
    case: Case[Any] = Case(cast("Any", world), ("acme",))
    found: list[faults.Succession] = []
    try:
        await faults.end_leader(signal.SIGTERM, 0, found, holder_too=holder_too)(case)
    finally:
        await case.exits.aclose()
        assert world.replaced == ["op-0"], "the ended operator is replaced, no matter what came of it"
    return case, found


async def test_a_handover_that_the_ended_leader_made_is_not_its_successors() -> None:
    case, found = await ended(World(lambda now: [write(OLD, now)]), holder_too=True)
    assert case.notes == ["op-0 still handed shard 0 over after SIGTERM: this says nothing about its successor"]
    assert (found, case.measured, case.victims) == ([], [], []), "so nothing is measured by messages either"


async def test_a_handover_that_the_successor_made_counts() -> None:
    world = World(lambda now: [write(OLD, now - 60.0), write(NEW, now)])
    case, (found,) = await ended(world)
    assert (found.old, found.new, world.asked) == ("op-0", "op-1", [0])
    assert found.acts == pytest.approx(5.0)
    assert found.lease == pytest.approx(4.0, abs=0.2)
    assert case.measured == [found.acts]
    assert not case.struck, "it was asked for, and not struck"


@pytest.mark.parametrize("by", [("",), ("JTI=a stranger",), (NEW, "JTI=a stranger")])
async def test_a_handover_that_the_audit_log_does_not_give_to_the_new_leader_is_not_its(by: tuple[str, ...]) -> None:
    with pytest.raises(LocalKubeError, match="the audit log does not say that op-1 handed shard 0 over"):
        await ended(World(lambda now: [write(one, now) for one in by]))


async def test_a_handover_that_is_not_in_the_audit_log_says_nothing() -> None:
    with pytest.raises(LocalKubeError, match="a line in the audit log on who handed shard 0 over did not come true"):
        await ended(World(lambda _: []))


async def test_a_shard_that_is_not_handed_over_is_a_failure_where_its_holder_went_and_else_an_error() -> None:
    case, found = await ended(World(lambda _: [], handed_over=False), holder_too=True)
    assert ([victim.shard for victim in case.victims], found, case.measured) == ([0], [], [])
    with pytest.raises(LocalKubeError, match="a handover by a new leader"):
        await ended(World(lambda _: [], handed_over=False))


def test_only_changes_of_the_service_itself_within_the_time_say_who() -> None:
    others = [
        write("a", T0, name="acme-shard-1"),
        write("b", T0, namespace="other"),
        write("c", T0, resource="pods"),
        write("d", T0, verb="create"),
        write("e", T0, code=409),
        write("f", T0, subresource="status"),
        write("g", T0 - 0.1),
        write("h", T0 + 1.1),
    ]
    mine = [write(OLD, T0), write(NEW, T0 + 0.5, verb="patch")]
    assert authors([*others, *mine], service="acme-shard-0", begun=T0, ended=T0 + 1.0) == [OLD, NEW]
