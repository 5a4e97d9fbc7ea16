"""What `spec.spares` promises, judged at each write of an operator."""

from __future__ import annotations

from .apiserver import Change
from .kinds import POD, STATEFULSET, is_ready
from .world import World


def watch_the_promise(world: World, *, shards: int, spares: int) -> list[Change]:
    """From now on: whenever an operator deletes a ready Coreapp, or lowers their number, all promised ones are ready without it.

    Returns those deletions.
    """
    deleted: list[Change] = []

    def check_scale(change: Change) -> None:
        if change.kind is not STATEFULSET or change.before is None or change.after is None or not change.actor.startswith("operator-"):
            return
        before, after = (obj["spec"]["replicas"] for obj in (change.before, change.after))
        stay = [pod for pod in world.laws.pods() if int(pod["metadata"]["name"].rpartition("-")[2]) < after and is_ready(pod)]
        if after < before and len(stay) < shards + spares:
            world.laws.breaks("of spares", f"the Coreapps were lowered from {before} to {after} with {len(stay)} ready that stay")

    def check(change: Change) -> None:
        if change.kind is not POD or change.verb != "delete" or not change.actor.startswith("operator-"):
            return
        before = change.before or {}
        if "coreapp" not in before["metadata"]["name"] or not is_ready(before):
            return
        deleted.append(change)
        others = [pod for pod in world.laws.pods() if pod["metadata"]["uid"] != before["metadata"]["uid"] and is_ready(pod)]
        if len(others) < shards + spares:
            world.laws.breaks("of spares", f"{before['metadata']['name']} was ended with {len(others)} ready besides")

    world.server.checks.extend((check, check_scale))
    return deleted
