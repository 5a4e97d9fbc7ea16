"""Faults of the API server, of the way to it, and of the operators: they meet all clusters at once."""

from __future__ import annotations

import asyncio
import signal
import time

from localkube.chaos.deeds import close_ports, delete, restart
from localkube.chaos.proxy import Rule, through
from localkube.chaos.scene import Scene
from localkube.chaos.stage import ChaosStage, is_paused
from localkube.hollow.kube import KubeError

STORM_S = 10.0
CUT_S = 20.0
PAUSE_S = 60.0
UNANSWERED_S = 0.5
"""An API server that has not answered for so long is away."""
SIGNAL_S = 5.0
"""Within so long a signal has had its effect."""

# ------------------------------------------------------------ the API server


async def api_down_10(scene: Scene[ChaosStage]) -> None:
    """The API server is stopped for 10 s; meanwhile a holder of each cluster fails."""
    await _api_down(scene, 10.0)


async def api_down_60(scene: Scene[ChaosStage]) -> None:
    """The API server is stopped for 60 s; meanwhile a holder of each cluster fails."""
    await _api_down(scene, 60.0)


async def _api_down(scene: Scene[ChaosStage], seconds: float) -> None:
    plane = scene.stage.stage.plane
    plane.pause_apiserver()
    try:
        begun = time.monotonic()
        scene.effects["API calls unanswered"] += await _is_away(scene)
        await asyncio.sleep(begun + 1.0 - time.monotonic())
        await close_ports(scene)
        await asyncio.sleep(begun + seconds - time.monotonic())
    finally:
        plane.resume_apiserver()
    scene.make_possible()


async def _is_away(scene: Scene[ChaosStage]) -> bool:
    """Whether the API server leaves a call unanswered, by a caller that no fault meets."""
    try:
        async with asyncio.timeout(UNANSWERED_S):
            await scene.stage.api.get("/version")
    except (TimeoutError, KubeError):
        return True
    return False


async def watches_die(scene: Scene[ChaosStage]) -> None:
    """Every connection between operators and API server falls silent and never says so; then a holder of each cluster is deleted."""
    for wire in scene.stage.wires.values():
        scene.effects["watches cut"] += wire.black_hole()
        scene.effects["pieces swallowed"] -= wire.swallowed
    await delete(scene)


async def count_swallowed(scene: Scene[ChaosStage]) -> None:
    """Only now it is known what the dead watches should have delivered."""
    scene.effects["pieces swallowed"] += sum(wire.swallowed for wire in scene.stage.wires.values())


async def storm(scene: Scene[ChaosStage]) -> None:
    """For 10 s the operators' requests are all answered 429; meanwhile a holder of each cluster fails."""
    before = scene.stage.proxy.answered[429]
    async with through(scene.stage.proxy, list(scene.stage.wires.values()), Rule(429)):
        await asyncio.sleep(1.0)
        await close_ports(scene)
        await asyncio.sleep(STORM_S - 1.0)
    scene.effects["calls answered 429"] += scene.stage.proxy.answered[429] - before
    scene.make_possible()


async def restart_struck(scene: Scene[ChaosStage]) -> None:
    """The Coreapps whose ports were closed come back."""
    await restart(scene)


# ------------------------------------------------------------ operators


async def kill_leader(scene: Scene[ChaosStage], *, holders_too: bool = False) -> None:
    """kill -9; nobody else is struck, so nothing may be handed over. Measured is that messages go on."""
    scene.leader = await scene.stage.leader()
    scene.stage.stage.operators()[scene.leader].signal(signal.SIGKILL)
    if holders_too:
        await delete(scene)
    else:
        for cluster in scene.clusters:
            scene.strike(cluster, 0)
        scene.struck.clear()  # nothing was done to them


async def kill_leader_and_holders(scene: Scene[ChaosStage]) -> None:
    """kill -9 for the leader, and a holder of each cluster is deleted in the same instant."""
    await kill_leader(scene, holders_too=True)


async def replace_leader(scene: Scene[ChaosStage]) -> None:
    """A new replica, as the Deployment would start it."""
    if scene.leader:
        process = scene.stage.stage.operators()[scene.leader]
        await scene.stage.replace(scene.leader)
        scene.effects["operators ended"] += not process.alive()


async def pause_leader(scene: Scene[ChaosStage]) -> None:
    """SIGSTOP for the leader; a holder of each cluster is deleted in the same instant."""
    scene.leader = await scene.stage.leader()
    process = scene.stage.stage.operators()[scene.leader]
    process.signal(signal.SIGSTOP)
    await delete(scene)
    await scene.stage.seen(lambda: is_paused(process), SIGNAL_S, f"the stop of {scene.leader}")
    scene.effects["operators stopped"] += 1


async def wake_leader(scene: Scene[ChaosStage]) -> None:
    """SIGCONT, 60 s after the stop: it believes for a moment that it still leads."""
    if not scene.leader:
        return
    await asyncio.sleep(max(0.0, scene.begun + PAUSE_S - time.monotonic()))
    scene.stage.stage.operators()[scene.leader].signal(signal.SIGCONT)


async def cut_leader_off(scene: Scene[ChaosStage]) -> None:
    """The network between the leader and the API server parts; a holder of each cluster is deleted in the same instant."""
    scene.leader = await scene.stage.leader()
    wire = scene.stage.wires[scene.leader]
    scene.effects["pieces held"] -= wire.held
    wire.cut()
    await delete(scene)


async def heal_leader(scene: Scene[ChaosStage]) -> None:
    """20 s after the cut the network is whole again, and what was under way arrives."""
    if not scene.leader:
        return
    await asyncio.sleep(max(0.0, scene.begun + CUT_S - time.monotonic()))
    scene.effects["pieces held"] += scene.stage.wires[scene.leader].held
    scene.stage.wires[scene.leader].heal()
