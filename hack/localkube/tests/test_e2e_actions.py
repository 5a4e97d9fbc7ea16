"""The end of a leader on real nodes: what a user asks for afterwards can only be done by a new process."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

from localkube.scenarios.cluster import Holder
from localkube.scenarios.faults import kind_actions as actions
from localkube.scenarios.kind.environment import KindEnvironment
from localkube.scenarios.runner.case import Case


class FakeEnvironment:
    """A cluster whose leader is killed; the commit comes with the switchover that is asked for."""

    def __init__(self, *, leads: str) -> None:
        self.did: list[str] = []
        self._leads = leads
        self._commits = [SimpleNamespace(holder_uid="uid-9", monotonic=time.monotonic())]

    async def leader_pod(self) -> dict[str, Any]:
        return {"metadata": {"name": "operator-a"}}

    async def leader(self) -> str:
        return self._leads

    async def aim(self, pod: dict[str, Any]) -> Callable[[str], Awaitable[str]]:
        async def send(name: str) -> str:
            self.did.append(f"{name} {pod['metadata']['name']}")
            return ""

        return send

    def holder(self, _: str, shard: int) -> Holder:
        return Holder(shard, "acme-coreapp-0", "uid-0")

    def commit(self, *_: object, not_to: str, after: float) -> Any:
        return next((one for one in self._commits if one.holder_uid != not_to and one.monotonic > after), None)

    async def switch_over(self, _: str, shard: int) -> None:
        self.did.append(f"switchover of {shard}")
        self._commits.append(SimpleNamespace(holder_uid="uid-1", monotonic=time.monotonic()))

    async def delete_pod(self, pod: str, *, namespace: str) -> None:
        self.did.append(f"delete {namespace}/{pod}")

    async def seen(self, read: Any, _: float, what: str) -> Any:
        found = read()
        assert found, what
        return found


async def kill_leader(environment: FakeEnvironment) -> Case[Any]:
    case = Case(cast("Any", environment), ("acme",))
    await actions.kill_leader(case)
    return case


async def test_a_user_asks_only_when_the_process_has_ended_and_the_pod_is_replaced_at_the_end() -> None:
    environment = FakeEnvironment(leads="operator-b")
    case = await kill_leader(environment)
    assert environment.did == ["KILL operator-a", "switchover of 0"]
    assert len(case.measured) == 1
    assert case.measured[0] > 0, "a handover before the end is none of the new leader's"
    assert case.notes == []
    assert case.asked == {("acme", 0)}
    await case.exits.aclose()
    assert environment.did[2:] == ["delete whatsapp-operator-system/operator-a"]


async def test_that_the_same_pod_led_again_is_said() -> None:
    assert (await kill_leader(FakeEnvironment(leads="operator-a"))).notes == ["operator-a led again itself, its container restarted"]


async def test_a_signal_that_kills_returns_when_the_process_has_ended_and_another_at_once() -> None:
    commands: list[str] = []

    class Nodes:
        async def process_of(self, _: object) -> tuple[Any, int]:
            return self, 7

        async def run(self, command: str) -> str:
            commands.append(command)
            return ""

    environment: Any = SimpleNamespace(nodes=Nodes())
    send = await KindEnvironment.aim(environment, {})
    await send("STOP")
    await send("KILL")
    assert commands == ["kill -STOP 7", "kill -KILL 7; while kill -0 7 2>/dev/null; do sleep 0.01; done"]
