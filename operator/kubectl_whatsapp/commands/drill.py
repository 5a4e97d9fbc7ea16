"""A guarded drill: game-day."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from kubectl_whatsapp import Obj, changes
from kubectl_whatsapp.cli import MISUSED, NOT_IN_TIME, UNKNOWN, Question, command, fail, note, seconds
from kubectl_whatsapp.errors import RequestError

if TYPE_CHECKING:
    from kubectl_whatsapp.model import Shard

TEST_LABEL = "multiconnect.dev/test"
"""A namespace with this label and the value ``true`` allows drills."""


@command("game-day")
def game_day(
    question: Question,
    shard: Annotated[str, typer.Option("--shard", help="The shard whose holder is deleted (default: the lowest).", metavar="SHARD")] = "",
    yes: Annotated[
        bool, typer.Option("--yes-in-production", help="Run even in a namespace without the label multiconnect.dev/test=true.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds to wait until the shard is served again.", parser=seconds(), metavar="SECONDS")
    ] = 60.0,
) -> int:
    """Delete a holder, and say how long the failover took.

    That is the time until the shard was served again. Does nothing unless all shards are served, a spare could take over, and an operator
    leads and fails over automatically. Needs a namespace with the label multiconnect.dev/test=true, or --yes-in-production.
    """
    number = changes.shard_number(shard) if shard else 0
    if number is None:
        fail(f"nothing was deleted: {shard} is not a shard; give its number, such as 0 or shard-0.", MISUSED)
    if not yes:
        _must_be_test_namespace(question)
    found = question.read()
    for what, cause in found.unread_titles().items():
        note(f"could not read {what} ({cause})")
    from kubectl_whatsapp.model import Level  # noqa: PLC0415  # loaded while it was read
    from kubectl_whatsapp.view import view  # noqa: PLC0415

    seen = view(found)
    if why := _unmoved(found.found.get("cluster") or {}):
        fail(f"nothing was deleted: {why}, so no shard would be moved.")
    held = next((one for one in seen.shards if one.number == number), None)
    if not seen.shards:
        fail(f"nothing was deleted: {seen.verdict.sentence}")
    if held is None or held.holder is None:
        fail(f"{question.target.name} has no shard {number} with a holder.")
    if seen.verdict.level is not Level.OK or not any(one.eligible for one in seen.standbys):
        fail(f"nothing was deleted, because this would not be a drill: {seen.verdict.sentence}")
    if seen.leader is None or not seen.leader.alive:
        fail("nothing was deleted: it is not known that an operator leads.")
    uid = next(pod["metadata"]["uid"] for pod in found.items("pods") or () if pod["metadata"]["name"] == held.holder)
    note(f"deleting {held.holder}, which holds shard {held.number}")
    begun = time.monotonic()
    try:
        question.client.delete(f"/api/v1/namespaces/{question.target.namespace}/pods/{held.holder}", uid=uid, timeout=changes.TIMEOUT)
    except RequestError as error:
        if changes.is_unknown(error):
            more = f"See `kubectl whatsapp status {question.target.name}`."
            fail(f"it is not known whether {held.holder} was deleted ({error}). {more}", UNKNOWN)
        fail(f"nothing was deleted: {error}")
    return _watch(question, held, begun=begun, timeout=timeout)


def _unmoved(cluster: Obj) -> str:
    """Why no failover would follow in this cluster, however healthy it is; empty if one would."""
    metadata, spec = cluster.get("metadata") or {}, cluster.get("spec") or {}
    if metadata.get("deletionTimestamp"):
        return f"{metadata.get('name')} is being deleted"
    return "spec.failover.mode is Manual" if (spec.get("failover") or {}).get("mode") == "Manual" else ""


def _watch(question: Question, held: Shard, *, begun: float, timeout: float) -> int:
    """Wait until the shard is served under another epoch, and print how long that took."""

    def until(cluster: Obj) -> Obj | None:
        entry = changes.entry(cluster, held.number)
        is_moved = entry.get("epoch") not in {None, held.epoch} and entry.get("state") == "Serving"
        return (changes.handover(cluster, entry.get("epoch")) or None) if is_moved else None

    handover = changes.wait(question.client, question.target, until, seconds=timeout)
    took = time.monotonic() - begun
    if handover is None:
        more = f"see `kubectl whatsapp why {question.target.name} {held.number}`."
        fail(f"shard {held.number} is still not served after {took:.0f} s; {more}", NOT_IN_TIME)
    to, evidence = handover.get("to"), handover.get("evidence")
    result = {
        "shard": held.number,
        "from": held.holder,
        "to": to,
        "evidence": evidence,
        "seconds": round(took, 3),
        **changes.phases(handover),
    }
    commit = f", committed {handover['commitMilliseconds']} ms after its detection" if "commitMilliseconds" in handover else ""
    sentence = f"shard {held.number} moved from {held.holder} to {to} ({evidence}) and was served {took:.2f} s after the deletion{commit}."
    question.show("GameDay", result, sentence)
    return 0


def _must_be_test_namespace(question: Question) -> None:
    namespace = question.target.namespace
    try:
        labels = (question.client.get(f"/api/v1/namespaces/{namespace}", timeout=changes.TIMEOUT).get("metadata") or {}).get("labels") or {}
    except RequestError as error:
        fail(f"nothing was deleted: could not read whether namespace {namespace} is for tests ({error}).")
    if labels.get(TEST_LABEL) != "true":
        fail(
            f"nothing was deleted: namespace {namespace} has no label {TEST_LABEL}=true. "
            "Set it if drills are allowed there, or pass --yes-in-production."
        )
