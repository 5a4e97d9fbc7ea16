"""The end of a leader on real nodes: what a user wishes afterwards can only be a new process's deed."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

from localkube.chaos.scene import Scene
from localkube.demo.cluster import Holder
from localkube.e2e import deeds


class Stage:
    """A cluster whose leader is killed; the commit comes with the wish."""

    def __init__(self, *, leads: str) -> None:
        self.did: list[str] = []
        self._leads = leads
        early = SimpleNamespace(shard=0, holder_uid="uid-9", monotonic=time.monotonic())
        self.observer = SimpleNamespace(commits=[early])
        self.nodes = self

    async def leader_pod(self) -> dict[str, Any]:
        return {"metadata": {"name": "operator-a"}}

    async def leader(self) -> str:
        return self._leads

    async def process_of(self, _: dict[str, Any]) -> tuple[Any, int]:
        return self, 7

    async def run(self, command: str) -> str:
        self.did.append(command)
        return ""

    def holder(self, _: str, shard: int) -> Holder:
        return Holder(shard, "acme-coreapp-0", "uid-0")

    async def switch_over(self, shard: int) -> None:
        self.did.append(f"wish {shard}")
        self.observer.commits.append(SimpleNamespace(shard=shard, holder_uid="uid-1", monotonic=time.monotonic()))

    async def seen(self, look: Any, _: float, what: str) -> Any:
        found = look()
        assert found, what
        return found


async def kill_leader(stage: Stage) -> Scene[Any]:
    scene = Scene(cast("Any", stage), ("acme",))
    await deeds.kill_leader(scene)
    return scene


async def test_a_user_wishes_only_when_the_process_has_ended() -> None:
    stage = Stage(leads="operator-b")
    scene = await kill_leader(stage)
    killed, wished = stage.did
    assert killed.startswith("kill -KILL 7; while kill -0 7")
    assert wished == "wish 0"
    assert len(scene.told) == 1
    assert scene.told[0] > 0, "a handover before the end is none of the new leader's"
    assert scene.notes == []
    assert scene.asked == {("acme", 0)}


async def test_that_the_same_pod_led_again_is_said() -> None:
    assert (await kill_leader(Stage(leads="operator-a"))).notes == ["operator-a led again itself, its container restarted"]
