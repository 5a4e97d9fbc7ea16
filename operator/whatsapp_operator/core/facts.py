"""What should exist: the number of Coreapps, their template, and the objects; the top layer of facts about one snapshot.

Predicates and selections that rules and status share. Nothing here decides what is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeAlias

from . import checksums, health, manifests
from .desired import Desired
from .holders import Holders
from .names import Obj, Ref
from .snapshot import Coreapp, Route
from .upkeep import Difference, covers, differences, is_settled

Pairs: TypeAlias = tuple[tuple[Obj, Obj | None], ...]
"""Objects as they should be, each with the one that is there."""
Differing: TypeAlias = tuple[tuple[Obj, tuple[tuple[str, Difference], ...]], ...]

RETRY_REJECTED_AFTER = timedelta(seconds=5)
"""Pause before a rejected object is tried again: a quota may have room by then. After an edit of the spec it is tried at once."""
SURGE = 1
"""How many extra Coreapps there are while a new pod template is rolled out, so that no spare is missing meanwhile."""


def _uncovered(_: Desired, pairs: Pairs) -> Differing:
    """Return the objects that are not as they should be, with the fields in which they differ."""
    return tuple((obj, tuple(differences(live, obj))) for obj, live in pairs if live is not None and not covers(live, obj))


class Facts(Holders):
    """All facts about one snapshot."""

    @property
    def wanted_replicas(self) -> int:
        """R' of laws#4: max(S, D, target of the unsettled intent) + X, and what a lost node or a roll-out adds."""
        return self.baseline_replicas + len(self.compensated) + self._surge

    @cached_property
    def desired_replicas(self) -> int:
        """How many replicas there should be now: the wanted ones, and surplus ones as long as they replace some that will be ready.

        Otherwise spares would be missing. A pod that no node takes, or that the API server rejects, is not waited for: it may need the room
        of the surplus ones.
        """
        wanted = self.wanted_replicas
        if self.is_unused:
            return wanted
        kept = [pod for pod in self.snapshot.coreapps if pod.ordinal < wanted]
        stuck = sum(pod.node is None and pod.pending_because is not None for pod in kept)
        rejected = wanted - len(kept) if self.snapshot.rejected_coreapp is not None else 0
        needed = self.baseline_replicas - stuck - rejected
        enough = self.replicas if needed > len(self.ready) else self.ready[needed - 1].ordinal + 1 if needed > 0 else wanted
        return max(wanted, min(self.replicas, enough))

    @property
    def is_unused(self) -> bool:
        """Whether no shard has had a holder yet and no number of shards was requested: nothing is served, so any Coreapp may go."""
        # As it was read: an intent that this observation has just dropped was noted by a leader that may have known more.
        is_new = self.settled_shards is None and self.snapshot.record.operation is None
        return is_new and not self.holder_uids and "Service" not in self.snapshot.unread

    @property
    def baseline_replicas(self) -> int:
        """max(S, D, target of the unsettled intent) + X: what stays when lost nodes are back and a roll-out is over."""
        return max(self.min_replicas, self.desired.shards) + self.desired.spares

    @property
    def _surge(self) -> int:
        """How many extra Coreapps a roll-out has."""
        if self.is_template_settling:
            # It is not known now whether pods are outdated. Until it is, what a roll-out added stays.
            return min(SURGE, max(0, self.replicas - self.baseline_replicas - len(self.compensated)))
        return SURGE if self.outdated else 0

    @cached_property
    def is_template_settling(self) -> bool:
        """Whether the StatefulSet's template is about to change, or its controller has not observed the newest one."""
        workload, ref = self.snapshot.statefulset, manifests.coreapp_statefulset(self.desired.key.name)
        return workload is not None and (
            workload.revision is None or any(Ref(obj["kind"], obj["metadata"]["name"]) == ref for obj in self.changed)
        )

    @cached_property
    def outdated(self) -> tuple[Coreapp, ...]:
        """Pods with another template than new ones get, lowest ordinal first; without unreachable pods, which cannot be ended."""
        workload = self.snapshot.statefulset
        if workload is None or self.is_template_settling:
            return ()
        away = {pod.uid for pod in self.out_of_reach}
        return tuple(pod for pod in self.snapshot.coreapps if pod.revision not in {None, workload.revision} and pod.uid not in away)

    @cached_property
    def updated_by_uid(self) -> dict[str, Coreapp]:
        """Pods of the template that new ones get, by uid; none while that is not known."""
        revision = self.snapshot.statefulset.revision if self.snapshot.statefulset else None
        return {pod.uid: pod for pod in self.snapshot.coreapps if revision is not None and pod.revision == revision}

    @cached_property
    def missing(self) -> tuple[Coreapp, ...]:
        """Coreapps that were started, should stay, and are not back with the number of shards.

        A holder counts as started even if its pod is pending again. A Coreapp that holds no shard and goes with the next shrink is waited
        for only as long as a restart may take: it may never come back.
        """
        return tuple(pod for pod in self.snapshot.coreapps if not self.has_restarted(pod) and self._is_waited_for(pod))

    def _is_waited_for(self, pod: Coreapp) -> bool:
        """Return whether a Coreapp should come back from a restart."""
        if pod.deleting:
            return False
        if pod.uid in self.holder_uids:
            return pod.phase in {"Running", "Pending"}
        return pod.phase == "Running" and (self.restart_is_expected or pod.ordinal < self.desired_replicas)

    @property
    def ready_to_stay(self) -> tuple[Coreapp, ...]:
        """Coreapps that could serve now, without those that go because the StatefulSet has become smaller."""
        return tuple(pod for pod in self.ready if pod.ordinal < self.replicas)

    @cached_property
    def compensated(self) -> tuple[Coreapp, ...]:
        """Pods that have been unreachable so long that each gets a replacement; at most as many as there are spares."""
        held = [pod for pod in self.out_of_reach if self.has_held_for(f"NodesUnreachable/{pod.uid}", health.OUT_OF_REACH)]
        # A new leader does not know for how long; but existing replacements are not removed meanwhile.
        already = max(0, self.replicas - self.baseline_replicas - (SURGE if self.outdated else 0) - len(held))
        unheld = [pod for pod in self.out_of_reach if pod not in held][:already]
        return tuple([*held, *unheld][: max(1, self.desired.spares)])

    @cached_property
    def ending(self) -> frozenset[str]:
        """Names of pods that are terminating, or that this process ended and that are not back yet.

        Every pod that is Terminating counts: a new leader does not know which ones the former leader ended. Pods on lost nodes do not
        count: they cannot be ended.
        """
        away = {pod.uid for pod in self.out_of_reach}
        return self.snapshot.ended | {pod.name for pod in self.snapshot.coreapps if pod.deleting and pod.uid not in away}

    @cached_property
    def too_high(self) -> tuple[Route, ...]:
        """Routes whose holder has an ordinal that goes in the end, even if it stays for now: otherwise the shard would move twice."""
        wanted = self.wanted_replicas
        if self.replicas <= wanted or self.shards is None or self.shards > self.desired.shards:
            return ()
        return tuple(route for route in self.routes if (pod := self.holder(route)) is not None and pod.ordinal >= wanted)

    @property
    def is_unsettled(self) -> bool:
        """Whether something is in progress that waits for the next answer of the client."""
        return (
            not self.is_settled
            or self.replicas != self.spec_replicas
            or self.settled_shards != self.shards
            or any(route.shard >= self.desired.shards for route in self.snapshot.routes)
            or any(pod.report is not None and pod.report.shards not in {None, self.shards} for pod in self.snapshot.coreapps)
        )

    @cached_property
    def objects(self) -> tuple[Obj, ...]:
        """The objects that are maintained, as desired."""
        replicas, is_first_boot = self._webapp_replicas
        objects = self.desired.derive(
            manifests.upkeep,
            webapp_replicas=replicas,
            resharding=self.restart_is_expected,
            is_first_boot=is_first_boot,
            is_unused=self.is_unused,
        )
        return tuple(map(self._stamped, objects))

    @property
    def _webapp_replicas(self) -> tuple[int | None, bool]:
        """How many Webapps to write, None to leave the number as it is; and whether it is noted that the first one starts alone.

        Several Webapps race on CREATE DATABASE at the very first start. If the spec has no number, the note on the Deployment distinguishes
        the initial number from one that an autoscaler or a person chose.
        """
        started = self.settled_shards is not None or self.shards is not None
        live = self.snapshot.objects.get(manifests.webapp_deployment(self.desired.key.name))
        if self.desired.webapps is not None:
            # A new leader does not know yet whether the client has started: it ends no Webapp.
            return self.desired.webapps if started else 1 if live is None else None, False
        if live is None:
            return (manifests.FIRST_WEBAPPS if started else 1), not started
        if manifests.FIRST_BOOT_ANNOTATION not in (live["metadata"].get("annotations") or {}):
            return None, False
        number = int((live.get("spec") or {}).get("replicas", 1))
        return (max(number, manifests.FIRST_WEBAPPS) if started else None), not started

    def _stamped(self, obj: dict[str, Any]) -> Obj:
        """Return a desired object; if it is a workload with pods that use Secrets, with the checksum of these."""
        ref = Ref(obj["kind"], obj["metadata"]["name"])
        checksum = self.snapshot.checksums.get(ref)
        if checksum is None:
            return obj
        # Not while Set Shards is under way: Coreapps that restart then must not restart twice, and the call must not be cut off.
        replaces = (
            not self.set_shards_is_open
            and self.has_held_for(checksums.fact(ref, checksum), checksums.SETTLED_AFTER)
            and not checksums.written_lately(self.snapshot.written.get(ref, {}), self.snapshot.now)
        )
        return checksums.stamped(obj, self.snapshot.objects.get(ref), checksum, replaces=replaces)

    @cached_property
    def stale_workloads(self) -> tuple[tuple[Ref, str], ...]:
        """Workloads whose pods use other contents of Secrets than the present ones, with the checksum of the present ones."""
        found = sorted(self.snapshot.checksums.items())
        return tuple((ref, checksum) for ref, checksum in found if checksums.is_stale(self.snapshot.objects.get(ref), checksum))

    def is_there(self, obj: Obj) -> bool:
        """Return whether an object of this kind and name exists, own or foreign."""
        ref = Ref(obj["kind"], obj["metadata"]["name"])
        return ref in self.snapshot.objects or ref in self.snapshot.name_conflicts

    @cached_property
    def must_wait_for_names(self) -> bool:
        """Whether the first pods might start with a foreign password or volume, usually of a cluster of this name that was just deleted.

        Kubernetes removes such objects one by one: a pod that is created before they are gone keeps a password that is no longer valid.
        """
        uncertain = {ref.kind for ref in self.snapshot.name_conflicts} | self.snapshot.unread.keys()
        return self.settled_shards is None and not uncertain.isdisjoint({"Secret", "PersistentVolumeClaim"})

    @cached_property
    def absent(self) -> tuple[Obj, ...]:
        """Objects to create now, including Secrets; none of a kind that could not be read."""
        wanted = (*self.desired.derive(manifests.secrets), *self.objects)
        later = {*self.snapshot.unread, *({"StatefulSet", "Deployment"} if self.must_wait_for_names else ())}
        return tuple(obj for obj in wanted if not self.is_there(obj) and obj["kind"] not in later)

    @property
    def _shard_services(self) -> Iterator[Obj]:
        """The Services of shards that name an epoch, as they should be under just that one (laws#2)."""
        for route in self.snapshot.routes:
            if route.epoch is not None and not route.foreign:
                yield manifests.shard_service(self.desired, route.shard, route.epoch)

    @cached_property
    def _differing(self) -> tuple[tuple[Obj, Mapping[str, bool]], ...]:
        """Objects that exist but differ from the desired ones, with the fields that differ and whether each is settled nevertheless."""
        kept = (*self.objects, *self._shard_services)
        pairs = tuple((obj, self.snapshot.objects.get(Ref(obj["kind"], obj["metadata"]["name"]))) for obj in kept)
        found = []
        for obj, fields in self.desired.derive(_uncovered, pairs):
            attempts = self.snapshot.written.get(Ref(obj["kind"], obj["metadata"]["name"]), {})
            found.append((obj, {path: is_settled(one, attempts.get(path), self.snapshot.now) for path, one in fields}))
        return tuple(found)

    @cached_property
    def changed(self) -> tuple[Obj, ...]:
        """Objects that exist but differ from the desired ones, and that a write may bring closer to them."""
        return tuple(obj for obj, fields in self._differing if not fields or not all(fields.values()))

    @cached_property
    def altered(self) -> tuple[tuple[Ref, tuple[str, ...]], ...]:
        """Objects with fields that differ from what was written, because admission or another writer changed them; and those fields."""
        settled = (
            (Ref(obj["kind"], obj["metadata"]["name"]), tuple(path for path, is_left in fields.items() if is_left))
            for obj, fields in self._differing
        )
        return tuple((ref, paths) for ref, paths in settled if paths)

    def rejection(self, objects: Iterable[Obj]) -> str | None:
        """Return why the API server rejected the first of these objects that it rejected; None: it rejected none."""
        rejected = (self.snapshot.rejected.get(Ref(obj["kind"], obj["metadata"]["name"])) for obj in objects)
        return next((one.text for one in rejected if one is not None), None)

    def may_write(self, ref: Ref) -> bool:
        """Return whether an object may be written now: one that was rejected is not tried again at every observation."""
        rejected = self.snapshot.rejected.get(ref)
        return rejected is None or self.snapshot.now - rejected.at >= RETRY_REJECTED_AFTER
