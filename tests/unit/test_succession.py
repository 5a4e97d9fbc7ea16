"""Whose deed a handover after the end of a leader is: the audit log says it, not the order in which two watches showed things."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from localkube.demo.attribution import authors

from localkube.demo import faults
from localkube.demo.cluster import Cluster, Holder
from localkube.demo.probe import NotHandedOverError
from localkube.errors import LocalKubeError
from localkube.plane.controlplane import Write

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
    """A cluster whose leader is ended: the commit is seen after 5 s, another Lease 15 ms later, the audit log says who made it."""

    writes: Callable[[float], list[Write]]
    handed_over: bool = True
    started: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    begun: float = 0.0
    stage: Any = None

    def __post_init__(self) -> None:
        process = SimpleNamespace(signal=self._signal, alive=lambda: False)
        self.stage = SimpleNamespace(
            operators=lambda: {"op-0": process, "op-1": process},
            credential={"op-0": OLD, "op-1": NEW}.__getitem__,
            plane=SimpleNamespace(writes=lambda: self.writes(self.begun)),
            forget_operator=self.forgotten.append,
            start_operator=lambda: self.started.append("op-2"),
            wait_for_operator=lambda _: None,
            processes=lambda: [SimpleNamespace(name="op-0", alive=lambda: False), SimpleNamespace(name="op-1", alive=lambda: True)],
        )

    def _signal(self, _: signal.Signals) -> None:
        self.begun = time.time()

    def leader(self) -> str:
        return "op-0"

    def holder(self, shard: int) -> Holder:
        return Holder(shard, "acme-coreapp-0", "uid-0")

    async def switch_over(self, _: int) -> None:
        """A user wishes it."""

    async def seen(self, look: Callable[[], Any], timeout: float, what: str) -> Any:
        if not (found := look()):
            msg = f"{what} did not come true within {timeout:g} s"
            raise LocalKubeError(msg)
        return found

    def commit_after(self, monotonic: float, shard: int, *, not_to: str) -> Any:
        assert (shard, not_to) == (0, "uid-0")
        return SimpleNamespace(monotonic=monotonic + 5.0) if self.handed_over else None

    def lease_after(self, monotonic: float, *, not_to: str) -> Any:
        assert not_to == "op-0"
        return SimpleNamespace(monotonic=monotonic + 5.015, holder="op-1")


async def ended(world: World) -> faults.Succession:
    return await faults.end_leader(cast("Cluster", world), signal.SIGTERM, 0)


async def test_a_handover_that_the_ended_leader_made_is_not_its_successors_however_close_the_lease() -> None:
    world = World(lambda now: [write(OLD, now)])
    with pytest.raises(faults.StillActedError, match="op-0 still handed shard 0 over after SIGTERM"):
        await ended(world)
    assert (world.forgotten, world.started) == (["op-0"], ["op-2"]), "it is replaced all the same"


async def test_a_handover_that_the_successor_made_counts_though_its_lease_was_seen_later() -> None:
    found = await ended(World(lambda now: [write(OLD, now - 60.0), write(NEW, now)]))
    assert (found.old, found.new) == ("op-0", "op-1")
    assert found.acts == pytest.approx(5.0)


@pytest.mark.parametrize("by", [(), ("",), ("JTI=a stranger",), (NEW, "JTI=a stranger")])
async def test_a_handover_that_the_audit_log_does_not_give_to_the_new_leader_is_not_its(by: tuple[str, ...]) -> None:
    with pytest.raises(LocalKubeError, match="the audit log does not say that op-1 handed shard 0 over"):
        await ended(World(lambda now: [write(one, now) for one in by]))


async def test_a_leader_whose_shard_nobody_hands_over_is_replaced_before_that_is_said() -> None:
    world = World(lambda _: [], handed_over=False)
    with pytest.raises(NotHandedOverError, match="a handover by a new leader"):
        await ended(world)
    assert (world.forgotten, world.started) == (["op-0"], ["op-2"])


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
    assert authors([*others, *mine], namespace="default", service="acme-shard-0", begun=T0, ended=T0 + 1.0) == [OLD, NEW]
