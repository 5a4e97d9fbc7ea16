"""Commands that change a cluster, or say what a change would do: plan, switchover, reshard-now, pause, resume."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from kubectl_whatsapp import Obj, changes
from kubectl_whatsapp.cli import MISUSED, NOT_IN_TIME, UNKNOWN, Question, command, fail, note, seconds
from kubectl_whatsapp.errors import RequestError
from kubectl_whatsapp.marks import SWITCHOVER_ANNOTATION

SETTLE = 2.0
"""Seconds after the request's annotation was removed in which the status may still report that it was carried out."""


@command("plan")
def plan(
    question: Question,
    shards: Annotated[int | None, typer.Option("--shards", help="Number of shards.")] = None,
    spares: Annotated[int | None, typer.Option("--spares", help="Number of spares.")] = None,
) -> int:
    """Say what a change of shards or spares would do.

    Changes nothing. Shows the steps, what each interrupts and for how long, the pods that it needs, and why the API server would reject it:
    that is checked with a server-side dry run. Exits with 0 if the change would be accepted, else with 1.
    """
    if shards is None and spares is None:
        fail("give --shards, --spares or both.", MISUSED)
    read = question.read_at_once(load="planning")
    from kubectl_whatsapp import planning, world  # noqa: PLC0415  # loaded while it was read

    if "cluster" not in read.found:
        fail(f"WhatsAppCluster {question.target.namespace}/{question.target.name}: {read.unread.get('cluster', 'it does not exist')}.")
    rejected: tuple[str, ...] = ()
    unjudged = ""
    try:
        changes.apply(question.client, question.target, changes.resize(shards, spares), dry_run=True)
    except RequestError as error:
        if error.status in {None, 401, 403}:
            unjudged = str(error)
        else:
            rejected = changes.causes(error)
    spec = read.found["cluster"].get("spec") or {}
    found = planning.planned(
        world.World(read),
        shards=spec.get("shards", 1) if shards is None else shards,
        spares=spec.get("spares", 1) if spares is None else spares,
        rejected=rejected,
        unjudged=unjudged,
    )
    question.show("Plan", found, lambda render: render.plan(found))
    return 0 if found.accepted else 1


@command("switchover")
def switchover(
    question: Question,
    shard: Annotated[str, typer.Argument(help="The shard, such as 0 or shard-0.", metavar="SHARD")],
    to: Annotated[str, typer.Option("--to", help="The standby that should take it (default: the best one).", metavar="POD")] = "",
    reason: Annotated[
        str, typer.Option("--reason", help="Why; kept in the annotation multiconnect.dev/switchover-reason.", metavar="TEXT")
    ] = "",
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds to wait until the shard is served.", parser=seconds(), metavar="SECONDS")
    ] = 60.0,
) -> int:
    """Move a shard to a standby, and say how long it took.

    Waits until the shard is served there. Exits with 0 if the shard has moved, 4 if the operator rejects the request, 5 if the shard has
    not moved in time.
    """
    number = changes.shard_number(shard)
    if number is None:
        fail(f"{shard} is not a shard; give its number, such as 0 or shard-0.", MISUSED)
    before = question.cluster()
    held = changes.entry(before, number)
    if not held:
        fail(changes.no_shard(before, number))
    if to and held.get("holder") == to:
        as_it_is = {"shard": number, "from": to, "to": to, "epoch": held.get("epoch"), "seconds": 0.0}
        question.show("Switchover", as_it_is, f"shard {number} is already held by {to}; nothing was changed.")
        return 0
    pending = ((before.get("metadata") or {}).get("annotations") or {}).get(SWITCHOVER_ANNOTATION)
    if pending:
        fail(f"another switchover is requested ({SWITCHOVER_ANNOTATION}: {pending}); wait until it is done, or remove the annotation.")
    change = changes.switchover(number, to, reason, version=before["metadata"]["resourceVersion"])
    _apply(question, change)
    try:
        found, took = _moved(question, number, held.get("epoch"), to, timeout)
    except (KeyboardInterrupt, RequestError) as error:
        if not (isinstance(error, RequestError) and error.is_absent):
            note(_stands(question))
        raise
    origin, result = held.get("holder"), {"shard": number, "from": held.get("holder"), "to": found["holder"], "epoch": found["epoch"]}
    phases = changes.phases(found)
    result |= {"seconds": round(took, 3), **phases}
    named = "".join(f", {name.removesuffix('Milliseconds')} {value} ms" for name, value in phases.items())
    question.show("Switchover", result, f"shard {number} moved from {origin} to {found['holder']} in {took:.2f} s{named}.")
    return 0


def _moved(question: Question, shard: int, epoch: str | None, to: str, timeout: float) -> tuple[Obj, float]:
    """Wait until the shard has moved; return its entry together with the handover that the status reports."""
    begun = time.monotonic()
    judge, settled, uid = changes.moved(shard, epoch, to), 0.0, None

    def until(cluster: Obj) -> Obj | None:
        nonlocal settled, uid
        uid = (cluster.get("metadata") or {}).get("uid")
        found = judge(cluster)
        if found == {}:
            settled = settled or time.monotonic()
            return found if time.monotonic() - settled > SETTLE else None
        return None if found is None else {**changes.handover(cluster, found["epoch"]), **found}

    found = changes.wait(question.client, question.target, until, seconds=timeout)
    took = time.monotonic() - begun
    if found == {}:
        fail(f"the operator rejected the switchover: {_rejection(question, uid)}")
    if found is None:
        fail(
            f"shard {shard} has not moved after {took:.0f} s; see `kubectl whatsapp status {question.target.name}`. {_stands(question)}",
            NOT_IN_TIME,
        )
    return found, took


def _stands(question: Question) -> str:
    """Say what happens to a request that was not carried out, and how to withdraw it."""
    target = question.target
    return (
        "The request remains, and the next operator that leads carries it out. To withdraw it: "
        f"kubectl annotate whatsappcluster {target.name} -n {target.namespace} {SWITCHOVER_ANNOTATION}-"
    )


def _rejection(question: Question, uid: str | None) -> str:
    """What the operator's newest Event says about a rejected switchover."""
    read = question.read(["events"])
    if why := read.unread.get("events"):
        return f"it removed the annotation and moved nothing; its Event could not be read ({why})."
    said = [one for one in read.items("events") or () if one.get("reason") == "SwitchoverRejected"]
    # A cluster that was deleted may have had the same name.
    said = [one for one in said if (one.get("involvedObject") or {}).get("uid") in {None, uid}]
    newest = max(said, key=_last_time, default={})
    return str(newest.get("message") or "it removed the annotation and moved nothing.")


def _last_time(event: Obj) -> str:
    """The last time of an Event as text, from its most precise field; such texts sort by time."""
    times = ((event.get("series") or {}).get("lastObservedTime"), event.get("eventTime"), event.get("lastTimestamp"))
    return str(next(filter(None, times), ""))


@command("reshard-now")
def reshard_now(question: Question) -> int:
    """Let Set Shards start outside the maintenance windows.

    While all Coreapps restart, no message is sent or received.
    """
    cluster = question.cluster()
    spec: Obj = cluster.get("spec") or {}
    shards, current = spec.get("shards"), (cluster.get("status") or {}).get("shards")
    if shards == current:
        fail(f"nothing waits for a window: the client has {current} shards, as the spec says.")
    if not (spec.get("reshard") or {}).get("windows"):  # the annotation would stay, and bypass a window that is added later
        fail("nothing waits for a window: spec.reshard.windows is empty.")
    return _apply(question, changes.reshard_now(int(shards or 0)), shown=True)


@command("pause")
def pause(question: Question) -> int:
    """Hold planned changes; failovers continue.

    Planned changes are scaling, Set Shards and roll-outs.
    """
    return _apply(question, changes.paused(yes=True), shown=True)


@command("resume")
def resume(question: Question) -> int:
    """Let planned changes continue again."""
    if (question.cluster().get("spec") or {}).get("paused"):
        fail("spec.paused is true in the resource itself; set it to false where the resource is kept.")
    return _apply(question, changes.paused(yes=False), shown=True)


def _apply(question: Question, change: changes.Change, *, shown: bool = False) -> int:
    try:
        changes.apply(question.client, question.target, change)
    except RequestError as error:
        why = "; ".join(changes.causes(error))
        if changes.is_unknown(error):
            name = question.target.name
            fail(f"it is not known whether {name} was changed ({why}). See its annotations before you try again.", UNKNOWN)
        fail(f"nothing was changed: {why}")
    if shown:
        question.show("Change", {"name": question.target.name, "change": change.sentence}, f"{question.target.name}: {change.sentence}.")
    return 0
