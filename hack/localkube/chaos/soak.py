"""The soak: nothing fails but a hundredth of the probes, for as long as is wanted, and no shard may be moved."""

from __future__ import annotations

from localkube.chaos.measure import Outcome, Player
from localkube.chaos.scene import Fault, Scene
from localkube.chaos.stage import ChaosStage
from localkube.demo.cluster import NAMESPACE
from localkube.progress import Report

SHARE = 0.01


async def lose_some(scene: Scene[ChaosStage]) -> None:
    """From now on every Coreapp loses a hundredth of its probes."""
    for cluster in scene.clusters:
        for pod in scene.stage.coreapps(cluster):
            meta = pod["metadata"]
            await scene.stage.control.disturb(NAMESPACE, meta["name"], uid=meta["uid"], swallow=SHARE)
            scene.struck.add(meta["uid"])
        scene.strike(cluster, 0)


def soak_fault(seconds: float) -> Fault[ChaosStage]:
    """The soak as a row like those of the table."""
    return Fault(
        name="soak",
        effects=("probes lost",),
        what=f"1 % of all probes lost for {seconds:g} s",
        strike=lose_some,
        everybody=True,
        failover=False,
        watch=seconds,
    )


async def soak(stage: ChaosStage, seconds: float, *, report: Report) -> Outcome:
    """Let it soak and return what came of it."""
    return await Player(stage, n=1, report=report).play(soak_fault(seconds))
