"""The verdict: one table, worst first. The first entry that returns a sentence is the answer. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kubectl_whatsapp.marks import moment
from kubectl_whatsapp.model import Leader, Level, Shard, Standby, Verdict
from kubectl_whatsapp.world import World, condition, counted, stamp

PASSING: Final = frozenset({"Bootstrapping", "Restarting", "FailingOver", "NotReconciled"})
"""Reasons of ``Ready`` for a state that the operator will soon end."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a verdict is based on."""

    world: World
    shards: tuple[Shard, ...]
    standbys: tuple[Standby, ...]
    leader: Leader | None

    @property
    def is_leaderless(self) -> bool:
        """Whether it is known that no operator leads."""
        return self.leader is not None and not self.leader.alive

    @property
    def lost(self) -> list[Shard]:
        """Shards that are known not to be served."""
        return [one for one in self.shards if one.served is False]

    @property
    def spares(self) -> int:
        """Standbys that could take a shard."""
        return sum(one.eligible for one in self.standbys)

    @property
    def served(self) -> str:
        """A sentence for shards that are all served, without its full stop."""
        return "The one shard is served" if len(self.shards) == 1 else f"All {len(self.shards)} shards are served"


def _absent(f: Facts) -> str | None:
    target = f.world.read.target
    is_absent = "cluster" in f.world.read.absent
    return f"There is no WhatsAppCluster {target.name} in namespace {target.namespace}." if is_absent else None


def _unread(f: Facts) -> str | None:
    why = f.world.read.unread.get("cluster", "no answer")
    return None if f.world.cluster else f"Nothing is known: the WhatsAppCluster could not be read ({why})."


def _unserved(f: Facts) -> str | None:
    lost = f.lost
    if not lost:
        return None
    few = "; ".join(f"shard {one.number}: {one.why}" for one in lost[:3]) + (f"; and {len(lost) - 3} more" if len(lost) > 3 else "")
    tail = " No operator leads, so no shard is moved." if f.is_leaderless else _restart(f)
    return f"{len(lost)} of {len(f.shards)} shards {'is' if len(lost) == 1 else 'are'} not served: {few}.{tail}"


def _restart(f: Facts) -> str:
    """A sentence that explains why Coreapps are away; empty if no restart does."""
    operation = f.world.status.get("operation") or {}
    deadline = moment(operation.get("deadline"))
    if deadline is None or deadline < f.world.read.at or operation.get("answer") == "Busy":
        return ""
    return f" Set Shards is restarting all Coreapps, until {stamp(deadline)} at the latest."


def _leaderless(f: Facts) -> str | None:
    text = f.served if f.shards and all(one.served for one in f.shards) else "Not every shard is known to be served"
    target = f.world.read.target
    absent = f" (there is no Lease {target.operator_namespace}/{target.lease})" if "lease" in f.world.read.absent else ""
    return f"{text}, and no operator leads{absent}: the next failure would move no shard." if f.is_leaderless else None


def _not_reported(f: Facts) -> str | None:
    return None if f.shards else f"No shard is known yet: {f.world.status.get('message') or 'the operator has not reported.'}"


def _uncertain(f: Facts) -> str | None:
    unknown = [one for one in f.shards if one.served is None]
    return f"Whether {len(unknown)} of {len(f.shards)} shards are served is not known: {unknown[0].why}." if unknown else None


def _no_webapp(f: Facts) -> str | None:
    is_ready = any(not f.world.pod_trouble(pod) for pod in f.world.component("webapp"))
    return None if is_ready else f"{f.served}, but no Webapp is ready: no message can be sent."


def _is_reported_down(f: Facts, *, passing: bool) -> str | None:
    ready = condition(f.world.cluster, "Ready")
    if ready.get("status") != "False" or (ready.get("reason") in PASSING) is not passing:
        return None
    return f"The pods are ready, but the operator reports ({ready.get('reason')}): {ready.get('message')}"


def _down(f: Facts) -> str | None:
    return _is_reported_down(f, passing=False)


def _down_for_now(f: Facts) -> str | None:
    return _is_reported_down(f, passing=True)


def _unsure(f: Facts) -> str | None:
    ready = condition(f.world.cluster, "Ready")
    if not ready:
        return "The pods are ready, but the operator has not reported."
    if ready.get("status") != "Unknown":
        return None
    return f"The pods are ready, but the operator is not sure ({ready.get('reason')}): {ready.get('message')}"


def _stalled(f: Facts) -> str | None:
    stalled = condition(f.world.cluster, "Stalled")
    return f"{f.served}. A person must act: {stalled.get('message')}" if stalled.get("status") == "True" else None


def _few_spares(f: Facts) -> str | None:
    wanted = f.world.spec.get("spares", 1)
    if f.spares >= wanted or f.world.status.get("operation"):
        return None
    if f.spares:
        return f"{f.served}, but only {f.spares} of {wanted} spares could take one over."
    return f"{f.served}, but no spare is left: the next failure leaves a shard unserved."


def _certificate(f: Facts) -> str | None:
    valid = condition(f.world.cluster, "CertificateValid")
    if valid.get("status") == "False" or valid.get("reason") == "CertificateExpiresSoon":
        return f"{f.served}. The certificate needs attention: {valid.get('message')}"
    return None


def _under_way(f: Facts) -> str | None:
    working = condition(f.world.cluster, "Reconciling")
    return f"{f.served}. In progress: {working.get('message')}" if working.get("status") == "True" else None


def _well(f: Facts) -> str | None:
    return f"{f.served}; {counted(f.spares, 'spare')} could take over."


VERDICTS: Final[tuple[tuple[Level, Callable[[Facts], str | None]], ...]] = (
    (Level.UNKNOWN, _absent),
    (Level.UNKNOWN, _unread),
    (Level.CRITICAL, _unserved),
    (Level.CRITICAL, _leaderless),
    (Level.UNKNOWN, _not_reported),
    (Level.UNKNOWN, _uncertain),
    (Level.CRITICAL, _no_webapp),
    (Level.CRITICAL, _down),
    (Level.WARNING, _down_for_now),
    (Level.UNKNOWN, _unsure),
    (Level.WARNING, _stalled),
    (Level.WARNING, _few_spares),
    (Level.WARNING, _certificate),
    (Level.OK, _under_way),
    (Level.OK, _well),
)


def verdict(f: Facts) -> Verdict:
    """Return the first entry that returns a sentence; the last one always does."""
    level, sentence = next((level, found) for level, judge in VERDICTS if (found := judge(f)) is not None)
    return Verdict(level, sentence)
