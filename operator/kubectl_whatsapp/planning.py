"""What a change of shards or spares would do: its steps, what each interrupts, and what it needs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from kubectl_whatsapp import Obj
from kubectl_whatsapp.marks import RESHARD_NOW_ANNOTATION
from kubectl_whatsapp.view import leader_of
from kubectl_whatsapp.world import World, condition, counted
from whatsapp_operator.core import windows

VENDOR_RESTART: Final = "45 to 60 s"
"""How long all Coreapps of the real client are away after Set Shards, according to the vendor."""
MACHINES: Final[Mapping[int, int]] = {2: 3, 4: 4, 8: 5, 16: 8, 32: 15}
"""Number of machines by number of active Coreapps (client#size)."""
CONNECTIONS: Final = "about 700 connections for 8 shards at 100 messages a second (1200 with TLS), 1700 for 32 at 250"
"""Of the database (client#size)."""
DEFAULT_REQUESTS: Final = {"cpu": "50m", "memory": "64Mi"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """One step: what is done, what it interrupts and how long it takes."""

    what: str
    interrupts: str
    takes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a change would do."""

    namespace: str
    name: str
    sentence: str
    accepted: bool
    """Whether the API server would accept it; False also if it could not be asked."""
    steps: tuple[PlannedStep, ...] = ()
    rejected: tuple[str, ...] = ()
    """Why the API server would reject it, in its own words."""
    held: tuple[str, ...] = ()
    """What would delay it now."""
    needs: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)


def planned(world: World, *, shards: int, spares: int, rejected: tuple[str, ...] = (), unjudged: str = "") -> Planned:
    """Return what a change to these numbers of shards and spares would do.

    ``rejected``: why the API server would reject it; ``unjudged``: why the API server could not be asked, or did not answer.
    """
    before, spares_before = world.spec.get("shards"), world.spec.get("spares", 1)
    current = world.status.get("shards") or before or shards
    base = Planned(
        namespace=world.read.target.namespace,
        name=world.read.target.name,
        sentence=f"{_change(before, shards, 'shard')}, {_change(spares_before, spares, 'spare')}.",
        accepted=not rejected and not unjudged,
        rejected=rejected,
        unread={**world.read.unread_titles(), **({"whether the API server would accept it": unjudged} if unjudged else {})},
    )
    if rejected:
        return base
    return replace(
        base,
        steps=tuple(_steps(world, current, shards, spares)),
        held=tuple(_held(world, resizes=current != shards)),
        needs=tuple(_needs(world, current, shards, spares)),
    )


def _change(before: int | None, after: int, what: str) -> str:
    return counted(after, what) if before == after else f"{before} -> {counted(after, what)}"


def _steps(world: World, current: int, shards: int, spares: int) -> Iterator[PlannedStep]:
    now = sum(1 for _ in world.component("coreapp"))
    most, after = max(current, shards) + spares, shards + spares
    if most > now:
        yield PlannedStep(what=f"Coreapps {now} -> {most}", interrupts="nothing", takes="until they are ready")
    if current != shards:
        if takes := _waits(world, shards):
            yield PlannedStep(what="wait for a maintenance window", interrupts="nothing", takes=takes)
        yield PlannedStep(
            what=f"Set Shards {current} -> {shards}: all Coreapps restart", interrupts="all messages in and out", takes=_restart(world)
        )
        what = "the new shards get holders" if shards > current else "shards move to the lowest Coreapps"
        yield PlannedStep(what=what, interrupts="each shard that moves, for well under a second", takes="seconds")
    if after < max(most, now):
        if current == shards and _holders_above(world, after):
            moves = "each shard that moves, for well under a second"
            yield PlannedStep(what="shards move to the lowest Coreapps", interrupts=moves, takes="seconds")
        yield PlannedStep(what=f"Coreapps {max(most, now)} -> {after}", interrupts="nothing", takes="seconds")


def _waits(world: World, shards: int) -> str:
    """How long Set Shards waits for a window; empty if there are none, the first number is not settled yet, or nothing is served anyway."""
    found = [_window(one) for one in (world.spec.get("reshard") or {}).get("windows") or ()]
    is_logged_off = bool((world.status.get("certificate") or {}).get("loggedOffAt"))
    if not found or world.status.get("settledShards") is None or is_logged_off:
        return ""
    if world.annotations.get(RESHARD_NOW_ANNOTATION, "").strip().zfill(2) == f"{shards:02}":
        return f"no time: annotation {RESHARD_NOW_ANNOTATION} allows {counted(shards, 'shard')} at once"
    if problem := windows.problem(found):  # perhaps only of this machine, which may lack time zones
        return f"not known: {problem[:1].lower()}{problem[1:].removesuffix('.')}"
    if windows.is_open(found, world.read.at):
        return "no time now: a window is open"
    opens = windows.next_opening(found, world.read.at)
    return f"until {opens:%Y-%m-%dT%H:%M:%SZ}" if opens else "until one opens"


def _window(given: Obj) -> windows.Window:
    return windows.Window(
        name=str(given.get("name") or ""),
        schedule=str(given.get("schedule") or ""),
        duration=timedelta(minutes=given.get("durationMinutes") or 0),
        time_zone=str(given.get("timeZone") or "Etc/UTC"),
    )


def _holders_above(world: World, count: int) -> bool:
    ordinals = (str(one.get("holder") or "").rpartition("-")[2] for one in world.status.get("shardMap") or ())
    return any(ordinal.isdecimal() and int(ordinal) >= count for ordinal in ordinals)


def _restart(world: World) -> str:
    simulator: Obj = (world.spec.get("client") or {}).get("simulator") or {}
    if "restartSeconds" in simulator:
        return f"{simulator['restartSeconds']} s (client.simulator.restartSeconds)"
    return VENDOR_RESTART


def _held(world: World, *, resizes: bool) -> Iterator[str]:
    leader = leader_of(world)
    if (world.cluster.get("metadata") or {}).get("deletionTimestamp"):
        yield "the cluster is being deleted: none of this will be done."
    if leader is not None and not leader.alive:
        yield "no operator leads: none of this is done until one does."
    if world.spec.get("paused"):
        yield "the cluster is paused: spec.paused is true in the resource itself."
    elif world.is_paused:
        yield "the cluster is paused; kubectl whatsapp resume ends the pause."
    if world.status.get("operation"):
        operation: Obj = world.status["operation"]
        yield f"Set Shards {operation.get('from', '?')} -> {operation.get('to')} is in progress and must finish first."
    stalled, valid = condition(world.cluster, "Stalled"), condition(world.cluster, "CertificateValid")
    if resizes and valid.get("status") == "False":
        yield f"Set Shards would not be sent ({valid.get('reason')}): {valid.get('message')}"
    elif stalled.get("status") == "True":
        yield f"a person must act first ({stalled.get('reason')}): {stalled.get('message')}"


def _needs(world: World, current: int, shards: int, spares: int) -> Iterator[str]:
    most, now = max(current, shards) + spares, sum(1 for _ in world.component("coreapp"))
    pod: Obj = (world.spec.get("coreapp") or {}).get("pod") or {}
    requests = {**DEFAULT_REQUESTS, **((pod.get("resources") or {}).get("requests") or {})}
    asked = " and ".join(f"{amount} of {kind}" for kind, amount in sorted(requests.items()))
    yield f"Pods: {most} Coreapps at most, {max(0, most - now)} more than now; each requests {asked}. Nodes: {_nodes(world, most)}"
    if shards in MACHINES:
        yield f"Machines: the vendor recommends {MACHINES[shards]} for {shards} active Coreapps."
    if world.spec.get("database"):
        yield (
            f"Database: each Coreapp and Webapp opens connections, {CONNECTIONS}. Raise max_connections first: a Webapp that gets none "
            "stays Running but answers nothing (WhatsApp/WhatsApp-Business-API-Setup-Scripts, issue 29)."
        )


def _nodes(world: World, most: int) -> str:
    if world.read.items("nodes") is None:
        return "not known."
    usable = [
        node for name, node in world.nodes.items() if not world.node_trouble(name) and not (node.get("spec") or {}).get("unschedulable")
    ]
    more = "" if len(usable) >= most else ", so some would share a node and fail together"
    return f"{len(usable)} can take pods{more}."
