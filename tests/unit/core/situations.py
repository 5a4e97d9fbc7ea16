"""Looks for tests, built by sentences: ``situation().settled(shards=2).holder_deleted(0)``. Every step gives a new value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from whatsapp_operator.core import manifests, report, rules
from whatsapp_operator.core.actions import Plan
from whatsapp_operator.core.certificate import CertificateFacts
from whatsapp_operator.core.desired import Account, Desired
from whatsapp_operator.core.facts import Facts
from whatsapp_operator.core.names import Key, Obj, Ref
from whatsapp_operator.core.snapshot import (
    AccountSecret,
    Answer,
    Call,
    Client,
    Coreapp,
    Login,
    Node,
    Operation,
    Record,
    RejectedWrite,
    Report,
    Route,
    Snapshot,
    Workload,
)

NOW = datetime(2027, 1, 4, 12, 0, 0, tzinfo=UTC)
NONCE = "n0nce"
FINGERPRINT = "ab" * 32
REVISION = "rev-1"
RECORD = {field.name for field in fields(Record)}
"""What is remembered in status."""
UNSCHEDULABLE: dict[str, Any] = {"node": None, "phase": "Pending", "ready": False, "pending_because": "0/3 nodes are available."}
"""Of a pod that no node takes."""


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def labels_for(shard: int, epoch: str) -> dict[str, str]:
    """The labels that a prepare puts on a pod."""
    return {manifests.ROLE_LABEL: "active", manifests.SHARD_LABEL: str(shard), manifests.EPOCH_LABEL: epoch}


def pod(ordinal: int, *, shards: int | None = 2, **changes: Any) -> Coreapp:
    """A ready standby that answers and has ``shards`` shards."""
    made = Coreapp(
        name=f"acme-coreapp-{ordinal}",
        uid=f"uid-{ordinal}",
        ordinal=ordinal,
        resource_version=str(500 + ordinal),
        node=f"node-{ordinal}",
        ip=f"10.0.0.{ordinal + 1}",
        phase="Running",
        ready=True,
        revision=REVISION,
        labels={manifests.ROLE_LABEL: "standby"},
        report=Report(shards=shards, version="v2.53.4"),
    )
    return replace(made, **changes)


def route(shard: int, holder: Coreapp | None = None, **changes: Any) -> Route:
    """The Service of a shard: at version 100 + shard, committed at epoch 10 + shard when there is a holder."""
    made = Route(shard=shard, name=f"acme-shard-{shard}", uid=f"service-{shard}", version=100 + shard)
    if holder is not None:
        made = replace(
            made, epoch=epoch_of(shard), holder=holder.name, holder_uid=holder.uid, committed_at=NOW - timedelta(hours=1, seconds=shard)
        )
    return replace(made, **changes)


def epoch_of(shard: int) -> str:
    """The epoch under which ``settled`` gives a shard its first holder."""
    return f"{10 + shard}-first"


def serving(holder: Coreapp, shard: int, *, epoch: str | None = None, shards: int | None = None) -> Coreapp:
    """The pod as a holder that was labelled and assigned."""
    text = epoch or epoch_of(shard)
    known = shards if shards is not None else holder.report.shards if holder.report else None
    return replace(
        holder,
        labels=labels_for(shard, text),
        report=Report(shard=shard, epoch=text, shards=known, gateway="connected", version="v2.53.4"),
    )


def kept_objects(desired: Desired, *, operation: Operation | None, webapps: int | None = None) -> dict[Ref, Obj]:
    """Every object of a cluster as the API server holds it when nothing is to be corrected."""
    wanted = (
        *manifests.secrets(desired),
        *manifests.upkeep(
            desired,
            webapp_replicas=desired.webapps if webapps is None else webapps,
            resharding=operation is not None,
            is_first_boot=False,
            is_unused=False,
        ),
    )
    live: dict[Ref, Obj] = {}
    for obj in wanted:
        ref = Ref(obj["kind"], obj["metadata"]["name"])
        live[ref] = {**obj, "metadata": {**obj["metadata"], "uid": f"{ref.kind}-{ref.name}".lower(), "resourceVersion": "7"}}
    return live


@dataclass(frozen=True)
class Situation:
    """One observation next to the desired state."""

    desired: Desired
    snapshot: Snapshot

    # --- what follows from it ---

    def plan(self) -> Plan:
        return rules.plan(self.desired, self.snapshot)

    def facts(self) -> Facts:
        return rules.facts(self.desired, self.snapshot)

    def row(self) -> str:
        return self.plan().decision.rule

    def report(self) -> dict[str, Any]:
        return report.report(self.facts(), self.plan())

    def condition(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.report()["conditions"] if one["type"] == kind)
        return found

    # --- states of a whole cluster ---

    def settled(self, shards: int = 2, spares: int = 1) -> Situation:
        """A converged cluster: every object exists, pod k holds shard k, the rest are spares, GET was just answered."""
        desired = replace(self.desired, shards=shards, spares=spares)
        webapps = manifests.FIRST_WEBAPPS if desired.webapps is None else desired.webapps
        pods = [pod(ordinal, shards=shards) for ordinal in range(shards + spares)]
        pods = [serving(one, one.ordinal) if one.ordinal < shards else one for one in pods]
        snapshot = replace(
            self.snapshot,
            objects=kept_objects(desired, operation=None),
            statefulset=Workload(uid="sts", resource_version="9", replicas=len(pods), ready=len(pods), revision=REVISION),
            webapp=Workload(uid="deploy", resource_version="8", replicas=webapps, ready=webapps),
            coreapps=tuple(pods),
            routes=tuple(route(shard, pods[shard]) for shard in range(shards)),
            record=replace(self.snapshot.record, settled_shards=shards),
            client=Client(shards=shards, asked_at=self.snapshot.now - seconds(0.1), login=Login.DONE, version="v2.53.4"),
        )
        return Situation(desired, snapshot)

    # --- small steps ---

    def wanting(self, **changes: Any) -> Situation:
        """Change the spec; objects are kept in shape for it, and what comes before a call for it is done."""
        desired = replace(self.desired, **changes)
        return replace(self, desired=desired).seeing(anchored_for=desired.shards).kept().with_services(desired.shards)

    def seeing(self, **changes: Any) -> Situation:
        """Change the observation, or its record."""
        remembered = {name: changes.pop(name) for name in RECORD & changes.keys()}
        return replace(self, snapshot=replace(self.snapshot, **{"record": replace(self.snapshot.record, **remembered), **changes}))

    def client(self, **changes: Any) -> Situation:
        return self.seeing(client=replace(self.snapshot.client, **changes))

    def reporting(self, shards: int | None) -> Situation:
        """GET has just answered this number of shards."""
        return self.client(shards=shards, asked_at=self.snapshot.now)

    def kept(self) -> Situation:
        """Objects that exist are as they should be."""
        if not self.snapshot.objects:
            return self
        fresh = kept_objects(self.desired, operation=self.snapshot.record.operation)
        return self.seeing(objects={ref: obj for ref, obj in fresh.items() if ref in self.snapshot.objects})

    def rejecting(self, kind: str, name: str, text: str = "exceeded quota", ago: float = 5) -> Situation:
        """The API server rejected a write of an object so many seconds ago."""
        answer = RejectedWrite(text, self.snapshot.now - seconds(ago))
        return self.seeing(rejected={**self.snapshot.rejected, Ref(kind, name): answer})

    def later(self, span: float) -> Situation:
        """Time passes, and GET is asked again meanwhile if it was before."""
        now = self.snapshot.now + seconds(span)
        asked = self.snapshot.client.asked_at
        return self.seeing(now=now).client(asked_at=now if asked is not None else None)

    def without_object(self, kind: str, name: str) -> Situation:
        return self.seeing(objects={ref: obj for ref, obj in self.snapshot.objects.items() if ref != Ref(kind, name)})

    def replicas(self, number: int) -> Situation:
        assert self.snapshot.statefulset is not None
        return self.seeing(statefulset=replace(self.snapshot.statefulset, replicas=number))

    # --- pods ---

    def with_pods(self, ordinals: Iterable[int], **changes: Any) -> Situation:
        """Add standbys, and as many replicas."""
        found = self
        for ordinal in ordinals:
            found = found.with_pod(ordinal, **changes)
        return found.replicas(max(one.ordinal for one in found.snapshot.coreapps) + 1)

    def with_pod(self, ordinal: int, **changes: Any) -> Situation:
        """Change the pod with this ordinal, or add a standby."""
        there = next((one for one in self.snapshot.coreapps if one.ordinal == ordinal), None)
        made = replace(there or pod(ordinal, shards=self.snapshot.client.shards), **changes)
        others = [one for one in self.snapshot.coreapps if one.ordinal != ordinal]
        return self.seeing(coreapps=tuple(sorted([*others, made], key=lambda one: one.ordinal)))

    def retiring(self, *ordinals: int, n: int = 9) -> Situation:
        """These standbys are marked as those that go when the StatefulSet shrinks by its version ``n``."""
        found = self
        for ordinal in ordinals:
            labels = {manifests.ROLE_LABEL: "retiring", manifests.EPOCH_LABEL: f"{n}-{NONCE}-{ordinal}"}
            found = found.with_pod(ordinal, labels=labels)
        return found

    def all_pods(self, **changes: Any) -> Situation:
        return self.seeing(coreapps=tuple(replace(one, **changes) for one in self.snapshot.coreapps))

    def without_pod(self, ordinal: int) -> Situation:
        return self.seeing(coreapps=tuple(one for one in self.snapshot.coreapps if one.ordinal != ordinal))

    def restarted(self, shards: int, ordinals: Iterable[int] | None = None) -> Situation:
        """These Coreapps, or all, came back as standbys with the new number of shards."""
        chosen = {one.ordinal for one in self.snapshot.coreapps} if ordinals is None else set(ordinals)
        fresh = Report(shards=shards, version="v2.53.4")
        return self.seeing(coreapps=tuple(replace(one, report=fresh) if one.ordinal in chosen else one for one in self.snapshot.coreapps))

    # --- nodes ---

    def with_nodes(self) -> Situation:
        """The nodes of all pods are known and well, each in a zone of its own; their Leases were renewed a second ago."""
        names = {one.node for one in self.snapshot.coreapps if one.node}
        nodes = {name: Node(name=name, zone=f"zone-{name}", ready=True, renewed_at=self.snapshot.now - seconds(1)) for name in names}
        return self.seeing(nodes=nodes)

    def with_node(self, ordinal: int, **changes: Any) -> Situation:
        """Change the node of the pod with this ordinal."""
        name = f"node-{ordinal}"
        assert self.snapshot.nodes is not None
        return self.seeing(nodes={**self.snapshot.nodes, name: replace(self.snapshot.nodes[name], **changes)})

    # --- holders ---

    def holder_of(self, shard: int) -> Coreapp:
        named = self.route(shard)
        return next(one for one in self.snapshot.coreapps if one.uid == named.holder_uid)

    def with_holder(self, shard: int, **changes: Any) -> Situation:
        return self.with_pod(self.holder_of(shard).ordinal, **changes)

    def holder_deleted(self, shard: int) -> Situation:
        return self.without_pod(self.holder_of(shard).ordinal)

    def held_by(self, shard: int, ordinal: int) -> Situation:
        """The shard was committed to the pod with this ordinal; the pod that held it is a standby again."""
        old = next((one for one in self.snapshot.coreapps if one.uid == self.route(shard).holder_uid), None)
        found = self
        if old is not None:
            found = found.with_pod(old.ordinal, labels=pod(0).labels, report=Report(shards=self.snapshot.client.shards))
        epoch = f"{self.route(shard).version}-moved"
        new = serving(next(one for one in found.snapshot.coreapps if one.ordinal == ordinal), shard, epoch=epoch)
        return found.with_pod(ordinal, labels=new.labels, report=new.report).with_route(
            shard,
            version=self.route(shard).version + 50,
            epoch=epoch,
            holder=new.name,
            holder_uid=new.uid,
            previous=self.route(shard).holder,
        )

    # --- routes ---

    def route(self, shard: int) -> Route:
        return next(one for one in self.snapshot.routes if one.shard == shard)

    def with_route(self, shard: int, **changes: Any) -> Situation:
        """Change the Service of a shard, or add one that leads nowhere."""
        there = next((one for one in self.snapshot.routes if one.shard == shard), None)
        others = [one for one in self.snapshot.routes if one.shard != shard]
        made = replace(there or route(shard), **changes)
        return self.seeing(routes=tuple(sorted([*others, made], key=lambda one: one.shard)))

    def with_services(self, shards: int) -> Situation:
        """If the cluster has Services, then for so many shards; new ones lead nowhere."""
        found, there = self, {one.shard for one in self.snapshot.routes}
        for shard in sorted({*range(shards)} - there) if there else ():
            found = found.with_route(shard)
        return found

    def without_route(self, shard: int) -> Situation:
        return self.seeing(routes=tuple(one for one in self.snapshot.routes if one.shard != shard))

    # --- Set Shards ---

    def noted(self, to: int, answer: Answer = Answer.NONE, **changes: Any) -> Situation:
        """A call was noted one second ago; nothing of this process knows more about it."""
        tuning = self.desired.tuning
        start = self.snapshot.now - seconds(1)
        operation = Operation(
            id=f"{to}-noted",
            origin=self.snapshot.client.shards,
            to=to,
            leader_epoch=self.snapshot.leader_epoch,
            started_at=start,
            deadline=start + self.desired.restart_timeout,
            settle_by=start + tuning.call_timeout + self.desired.restart_timeout + tuning.settle_grace,
            answer=answer,
            uid=self.desired.uid,
        )
        return self.seeing(operation=replace(operation, **changes)).kept()

    def calling(self, to: int, answer: Answer | None = None, **changes: Any) -> Situation:
        """A call of this process: under way, or answered just now."""
        return self.noted(to).client(call=Call(id=f"{to}-noted", answer=answer, **changes))

    # --- account ---

    def with_account(self, *, secret: AccountSecret | None = None, registered_at: datetime | None = None, **changes: Any) -> Situation:
        """A real account, with a Secret that is fit unless ``changes`` say otherwise."""
        fit = AccountSecret(
            version="70",
            has_certificate=True,
            certificate=CertificateFacts(fingerprint=FINGERPRINT),
            expires_at=self.snapshot.now + timedelta(days=300),
            pin_digest="pin-1",
        )
        account = Account(country_code="1", phone_number="6315550000", secret_name="acme-account", registered_at=registered_at)
        return self.wanting(account=account).seeing(account=replace(secret or fit, **changes))

    # --- status ---

    def reported(self) -> Situation:
        """The status of this observation was written."""
        return self.seeing(status=self.report())


def situation() -> Situation:
    """A cluster of two shards and one spare that was just applied: nothing exists yet."""
    desired = Desired(key=Key("default", "acme"), uid="cluster-uid", generation=3, client="Simulator", shards=2, spares=1, webapps=2)
    return Situation(
        desired, Snapshot(now=NOW, nonce=NONCE, leader_epoch=5, generation=3, resource_version="77", record=Record(uid=desired.uid))
    )


def merged(before: Any, body: dict[str, Any]) -> dict[str, Any]:
    """RFC 7396, as the API server does it."""
    result = dict(before) if isinstance(before, dict) else {}
    for key, value in body.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value) if isinstance(value, dict) else value
    return result
