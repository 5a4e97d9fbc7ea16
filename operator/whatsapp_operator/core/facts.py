"""What follows from one look: predicates and picks that rules and status share. Nothing here decides what is done."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from zlib import crc32

from . import evidence, manifests, windows
from .model import Answer, Coreapp, Desired, Epoch, Evidence, Login, Obj, Observed, Operation, Ref, Route
from .upkeep import covers

REFUSED_AGAIN = timedelta(seconds=5)
"""Time between two tries of what the API server refused: somebody may have made room in a quota. An edit of the spec is tried at once."""
SURGE = 1
"""Coreapps beyond those wanted while a new pod template is rolled out, so that no spare is missed meanwhile."""


@dataclass(frozen=True)
class Facts:
    """One look beside what is wanted, with the operation as it stands after the newest answer."""

    want: Desired
    see: Observed
    operation: Operation | None

    # --- numbers: R, S, D, X of the laws ---------------------------------------------------------------------------

    @property
    def shards(self) -> int | None:
        """S: the shards that the client reports; None while unknown."""
        return self.see.client.shards

    @property
    def replicas(self) -> int:
        """R: the replicas of the StatefulSet; 0 while there is none."""
        return self.see.statefulset.replicas if self.see.statefulset else 0

    @property
    def wanted_pods(self) -> int:
        """D + X."""
        return self.want.shards + self.want.spares

    @property
    def floor(self) -> int:
        """What R may not fall below whatever the user wishes: every shard that exists or may come to exist (DESIGN law 4)."""
        return max(self.shards or self.see.settled_shards or 0, self.operation.to if self.operation else 0)

    @property
    def needed_pods(self) -> int:
        """R' of DESIGN law 4: max(S, D, target of the unsettled intent) + X, and what a lost node or a roll-out adds."""
        return self._lasting_pods + len(self.made_good) + self._surge

    @property
    def _lasting_pods(self) -> int:
        return max(self.floor, self.want.shards) + self.want.spares

    @property
    def _surge(self) -> int:
        """How many Coreapps a roll-out has beside those wanted."""
        if self.is_template_settling:
            # Whether pods are outdated is not known now; what a roll-out added stays until it is.
            return min(SURGE, max(0, self.replicas - self._lasting_pods - len(self.made_good)))
        return SURGE if self.outdated else 0

    # --- roll-out ---------------------------------------------------------------------------------------------------

    @property
    def is_template_settling(self) -> bool:
        """Whether the StatefulSet's template is about to change, or its controller has not looked at the newest one."""
        workload, ref = self.see.statefulset, manifests.coreapp_statefulset(self.want.key.name)
        return workload is not None and (
            workload.revision is None or any(Ref(obj["kind"], obj["metadata"]["name"]) == ref for obj in self.changed)
        )

    @cached_property
    def outdated(self) -> tuple[Coreapp, ...]:
        """Pods of another template than new ones get, lowest ordinal first; those out of reach, which nobody can end, left out."""
        workload = self.see.statefulset
        if workload is None or self.is_template_settling:
            return ()
        away = {pod.uid for pod in self.out_of_reach}
        return tuple(pod for pod in self.see.coreapps if pod.revision not in {None, workload.revision} and pod.uid not in away)

    @cached_property
    def updated_by_uid(self) -> dict[str, Coreapp]:
        """Pods of the template that new ones get, by uid; none while that is not known."""
        revision = self.see.statefulset.revision if self.see.statefulset else None
        return {pod.uid: pod for pod in self.see.coreapps if revision is not None and pod.revision == revision}

    @cached_property
    def out_of_reach(self) -> tuple[Coreapp, ...]:
        """Pods on lost nodes that do not answer: a StatefulSet does not replace them, be they Terminating for ever."""
        return tuple(pod for pod in self.see.coreapps if evidence.is_node_lost(self, pod) and not self.is_heard(pod))

    @cached_property
    def made_good(self) -> tuple[Coreapp, ...]:
        """Pods out of reach for so long that another stands in for each; no more of them than there are spares."""
        held = [pod for pod in self.out_of_reach if self.has_held_for(f"OutOfReach/{pod.uid}", evidence.OUT_OF_REACH)]
        # A leader that has just begun does not know for how long; but what stands in already is not taken away meanwhile.
        already = max(0, self.replicas - self._lasting_pods - (SURGE if self.outdated else 0) - len(held))
        unheld = [pod for pod in self.out_of_reach if pod not in held][:already]
        return tuple([*held, *unheld][: max(1, self.want.spares)])

    @cached_property
    def ending(self) -> frozenset[str]:
        """Names of pods that are on their way out, or that this process ended and that are not back yet.

        Whoever deleted it, a pod that is Terminating counts: a new leader does not know which ones the former leader ended. Not counted is
        what nobody can end, on lost nodes.
        """
        away = {pod.uid for pod in self.out_of_reach}
        return self.see.ended | {pod.name for pod in self.see.coreapps if pod.deleting and pod.uid not in away}

    def is_heard(self, pod: Coreapp) -> bool:
        """Return whether a Coreapp answers its probes."""
        return pod.report is not None and pod.silent_since is None and not pod.deleting

    @cached_property
    def ready(self) -> tuple[Coreapp, ...]:
        """Coreapps that could serve now."""
        return tuple(pod for pod in self.see.coreapps if self.is_well(pod))

    def is_well(self, pod: Coreapp) -> bool:
        """Return whether a Coreapp could serve now: fit as far as it tells itself, on a node that is there, and not hung."""
        return pod.is_fit and not evidence.is_node_gone(self, pod) and not evidence.is_hung(self, pod)

    @cached_property
    def doubt(self) -> str | None:
        """Why silence may be ours and not that of the Coreapps; None: we trust ourselves."""
        return evidence.doubt(self.see.silence, self.see.nodes, self.see.now)

    @cached_property
    def by_uid(self) -> dict[str, Coreapp]:
        """Pods by uid."""
        return {pod.uid: pod for pod in self.see.coreapps}

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """The routes that count: ours, and of a shard that exists as far as is known."""
        return tuple(route for route in self.see.routes if not route.foreign and (self.shards is None or route.shard < self.shards))

    # --- the client --------------------------------------------------------------------------------------------------

    @property
    def webapp_ready(self) -> bool:
        """Whether a Webapp is ready."""
        return self.webapps_ready > 0

    @property
    def webapps_ready(self) -> int:
        """How many Webapps are ready."""
        return self.see.webapp.ready if self.see.webapp is not None else 0

    @property
    def lacks_webapps(self) -> bool:
        """Whether fewer Webapps are ready than are wanted."""
        return self.see.webapp is not None and self.webapps_ready < self.want.webapps

    @property
    def shards_are_fresh(self) -> bool:
        """Whether the number of shards was asked for just now, in this leadership (DESIGN law 5)."""
        asked = self.see.client.asked_at
        return self.shards is not None and asked is not None and self.see.now - asked <= self.want.tuning.ask_fresh

    @property
    def has_asked(self) -> bool:
        """Whether this process knows something of the client, be it that it is silent; or cannot ask it."""
        client = self.see.client
        if "Secret" in self.see.unread:
            return True
        known = client.asked_at is not None or client.silent_since is not None or client.login is Login.REFUSED
        return known or not self.webapp_ready or self.see.settled_shards is None

    @property
    def is_settled(self) -> bool:
        """Whether the shards are those wanted, the client is not logged off, and no call is under way."""
        return self.operation is None and self.shards == self.want.shards and not self.is_logged_off

    @property
    def is_logged_off(self) -> bool:
        """Whether a refused certificate logged the client off; only a Set Shards that is accepted logs it on again."""
        return self.see.logged_off_at is not None

    def _gateways(self) -> set[str]:
        """Return what the holders say of their connections to WhatsApp, as far as they say that they hold their shard."""
        reports = [pod.report for route in self.routes if (pod := self.holder(route)) is not None]
        return {report.gateway for report in reports if report is not None and report.shard is not None}

    @property
    def is_connected(self) -> bool:
        """Whether every shard has a holder that says that it is connected to WhatsApp."""
        return self._gateways() == {"connected"} and all(self.is_served(route) for route in self.routes)

    @property
    def is_cut_off(self) -> bool:
        """Whether no holder has a connection to WhatsApp, nor is getting one."""
        return self._gateways() == {"disconnected"}

    @property
    def is_unsettled(self) -> bool:
        """Whether something is under way that the next answer of the client moves on."""
        return (
            not self.is_settled
            or self.replicas != self.wanted_pods
            or self.see.settled_shards != self.shards
            or any(route.shard >= self.want.shards for route in self.see.routes)
            or any(pod.report is not None and pod.report.shards not in {None, self.shards} for pod in self.see.coreapps)
        )

    @property
    def resize_is_wanted(self) -> bool:
        """Whether Set Shards is to be called: the client reports another number or is logged off, and nothing is under way."""
        is_due = self.shards is not None and (self.shards != self.want.shards or self.is_logged_off)
        return is_due and (self.operation is None or self.may_try_again)

    @property
    def may_try_again(self) -> bool:
        """Whether an earlier call is out of the way: answered with "busy" and waited for, or long accepted but not all back."""
        operation = self.operation
        if operation is None:
            return True
        if operation.answer is Answer.BUSY:
            return self.see.now >= operation.started_at + self.backoff
        return self.restart_is_overdue

    @property
    def backoff(self) -> timedelta:
        """Pause after a 403: doubles with each attempt, up to a minute, give or take a fifth (clusters must not come in step)."""
        operation = self.operation
        if operation is None:
            return timedelta(0)
        pause = min(self.want.tuning.busy_backoff * (1 << max(0, min(operation.attempts - 1, 10))), timedelta(minutes=1))
        # Chance comes from the attempt's id, so that the same look gives the same answer.
        return pause * (0.8 + 0.4 * (crc32(operation.id.encode()) % 1000) / 1000)

    @property
    def has_drifted(self) -> bool:
        """Whether somebody else changed the number of shards: it differs from what was settled, which is what is wanted."""
        settled = self.see.settled_shards
        return self.resize_is_wanted and settled is not None and settled == self.want.shards != self.shards

    @property
    def window_is_shut(self) -> bool:
        """Whether Set Shards waits for a window.

        Not before the first count is settled, nor for the very count that may go now, nor while the client is logged off: nothing is
        served then that the call could interrupt.
        """
        want = self.want
        if self.see.settled_shards is None or want.reshard_now == want.shards or self.is_logged_off:
            return False
        return not windows.is_open(want.windows, self.see.now)

    # --- the restart after Set Shards --------------------------------------------------------------------------------

    @property
    def restart_is_expected(self) -> bool:
        """Whether a Set Shards restart explains a Coreapp that is away (DESIGN law 9)."""
        operation = self.operation
        return operation is not None and operation.answer is not Answer.BUSY and self.see.now < operation.deadline

    @property
    def restart_is_overdue(self) -> bool:
        """Whether the shards are set but the deadline for the restart has passed."""
        operation = self.operation
        return (
            operation is not None
            and operation.answer is Answer.ACCEPTED
            and self.shards == operation.to
            and self.see.now >= operation.deadline
        )

    @property
    def is_verified(self) -> bool:
        """Whether the number that GET reports is the last word: no call under way, one that was turned away, or one that GET confirms."""
        operation = self.operation
        if operation is None or operation.answer is Answer.BUSY:
            return True
        return operation.answer is Answer.ACCEPTED and self.shards == operation.to

    def is_back(self, pod: Coreapp) -> bool:
        """Return whether a Coreapp reports the number of shards that the client reports.

        A call that logs the client on changes no number: there, a holder is back when it is connected.
        """
        report, operation = pod.report, self.operation
        if report is None or report.shards != (operation.to if operation else self.shards):
            return False
        return operation is None or not operation.logs_on or report.shard is None or report.gateway == "connected"

    def is_excused(self, pod: Coreapp) -> bool:
        """Return whether the restart explains this pod's absence; its window ends when it reports the new number."""
        return self.restart_is_expected and not self.is_back(pod)

    @cached_property
    def missing(self) -> tuple[Coreapp, ...]:
        """Coreapps that were started, are to stay, and have not come back with the number of shards."""
        return tuple(pod for pod in self.see.coreapps if pod.phase == "Running" and not pod.deleting and not self.is_back(pod))

    @property
    def enough_are_back(self) -> bool:
        """Whether as many Coreapps are back as there are shards."""
        return self.shards is not None and sum(self.is_back(pod) for pod in self.ready) >= self.shards

    def has_held_for(self, fact: str, span: timedelta) -> bool:
        """Return whether a fact that the last plans named has held for so long."""
        since = self.see.since.get(fact)
        return since is not None and self.see.now - since >= span

    # --- holders -----------------------------------------------------------------------------------------------------

    def holder(self, route: Route) -> Coreapp | None:
        """Return the pod that the route names, if it is there."""
        return self.by_uid.get(route.holder_uid) if route.holder_uid else None

    @cached_property
    def holder_uids(self) -> frozenset[str]:
        """Uids of the pods that some route of ours names, also a route that is about to go."""
        return frozenset(route.holder_uid for route in self.see.routes if route.holder_uid and not route.foreign)

    def is_served(self, route: Route) -> bool:
        """Return whether the holder that the route names could serve, and does not say that it serves something else.

        A holder that was not asked yet, because the operator has just come up, counts as serving: unknown is no failure.
        """
        pod = self.holder(route)
        return (
            pod is not None
            and self.is_well(pod)
            and self.failure(route) is None
            and (pod.report is None or (pod.report.shard, pod.report.epoch) == (route.shard, route.epoch))
        )

    def failure(self, route: Route) -> Evidence | None:
        """Return why the holder of a route must be replaced, or None (DESIGN section 5, "Failure evidence")."""
        return evidence.failure(self, route)

    @cached_property
    def failed(self) -> tuple[tuple[Route, Evidence], ...]:
        """Routes whose holder must be replaced, lowest shard first."""
        return tuple((route, why) for route in self.routes if (why := self.failure(route)) is not None)

    @cached_property
    def unassigned(self) -> tuple[Route, ...]:
        """Routes that never had a holder, lowest shard first."""
        return tuple(route for route in self.routes if route.holder_uid is None)

    def claim(self, pod: Coreapp) -> str:
        """Return what the labels on a pod are worth (DESIGN law 2).

        ``none``: it has no epoch. ``committed``: its Service names it. ``damaged``: the same, but its other labels do not say so.
        ``dead``: its Service has moved past it. ``pending``: somebody may still commit it. ``orphan``: its Service is
        not there.
        """
        epoch = Epoch.parse(pod.epoch_label)
        if epoch is None:
            return "none" if pod.epoch_label is None else "dead"
        named = next((one for one in self.see.routes if one.holder_uid == pod.uid and one.epoch == pod.epoch_label), None)
        if named is not None and not named.foreign:
            whole = pod.shard_label == named.shard and pod.labels.get(manifests.ROLE_LABEL) == "active"
            return "committed" if whole else "damaged"
        if pod.shard_label is None:
            return "pending" if self.awaiting(pod) else "dead"
        route = next((route for route in self.see.routes if route.shard == pod.shard_label), None)
        if route is None:
            return "orphan"
        if route.epoch == pod.epoch_label:
            return "committed"
        return "dead" if route.version > epoch.n else "pending"

    def awaiting(self, pod: Coreapp) -> tuple[Route, ...]:
        """Return the routes that may still be committed to the pod's epoch; any, when a label that named the shard is gone."""
        epoch, shard = Epoch.parse(pod.epoch_label), pod.shard_label
        ours = (route for route in self.see.routes if not route.foreign and shard in {route.shard, None})
        return tuple(route for route in ours if epoch is not None and route.version <= epoch.n)

    def standbys(self, route: Route | None = None, taken: Collection[str] = ()) -> list[Coreapp]:
        """Return the pods that could take a shard, best first.

        Ready, not leaving, answering, on another node than the failed holder and if possible in another zone, up to date, lowest ordinal
        (DESIGN section 5). A pod whose label may still be committed by somebody is left out until its Service was touched.
        """
        failed = self.by_uid.get(route.holder_uid) if route and route.holder_uid else None
        zone = self.zone(failed) if failed is not None else None
        revision = self.see.statefulset.revision if self.see.statefulset else None
        fit = [
            pod
            for pod in self.ready
            if pod.uid not in self.holder_uids
            and pod.uid not in taken
            and self.claim(pod) in {"none", "dead"}
            and not (self.is_excused(pod) and pod.report is None)
            and (pod.report is None or self.shards is None or pod.report.shards in {None, self.shards})
        ]
        return sorted(
            fit,
            key=lambda pod: (
                pod.report is None or pod.silent_since is not None,
                evidence.is_leaving(self, pod) or evidence.is_node_lost(self, pod),
                pod.ordinal >= self.wanted_pods,
                failed is not None and pod.node == failed.node,
                zone is not None and self.zone(pod) == zone,
                revision is not None and pod.revision != revision,
                pod.ordinal,
            ),
        )

    def zone(self, pod: Coreapp) -> str | None:
        """Return the zone that a pod runs in, if that is known."""
        node = evidence.node_of(self, pod)
        return node.zone if node is not None else None

    @cached_property
    def draining(self) -> tuple[Route, ...]:
        """Routes whose holder lives, on a node that is being drained, while a standby elsewhere could take the shard."""
        if self.restart_is_expected:
            return ()
        leaving = (route for route in self.routes if (pod := self.holder(route)) is not None and evidence.is_leaving(self, pod))
        return tuple(route for route in leaving if self.failure(route) is None and self.standbys_that_stay(route))

    def standbys_that_stay(self, route: Route) -> list[Coreapp]:
        """Return the pods that could take a shard and are on nodes that are not being drained, best first."""
        return [pod for pod in self.standbys(route) if not evidence.is_leaving(self, pod) and not evidence.is_node_lost(self, pod)]

    @cached_property
    def too_high(self) -> tuple[Route, ...]:
        """Routes whose holder has an ordinal that goes when the StatefulSet shrinks to what is wanted."""
        if self.replicas <= self.needed_pods or self.shards is None or self.shards > self.want.shards:
            return ()
        return tuple(route for route in self.routes if (pod := self.holder(route)) is not None and pod.ordinal >= self.needed_pods)

    # --- objects -----------------------------------------------------------------------------------------------------

    @cached_property
    def objects(self) -> tuple[Obj, ...]:
        """The objects that are kept in shape, as they should be."""
        started = self.see.settled_shards is not None or self.shards is not None
        # Several Webapps race on CREATE DATABASE at the very first start (whatsapp-client.md section 11, #15).
        replicas = self.want.webapps if started else 1
        return manifests.upkeep(self.want, webapp_replicas=replicas, resharding=self.restart_is_expected)

    def is_there(self, obj: Obj) -> bool:
        """Return whether an object of this kind and name exists, ours or not."""
        ref = Ref(obj["kind"], obj["metadata"]["name"])
        return ref in self.see.objects or ref in self.see.taken

    @cached_property
    def must_wait_for_names(self) -> bool:
        """Whether the first pods might start with another's password or store, mostly those of a cluster just deleted under this name.

        Kubernetes takes such objects away one by one: a pod that is made before they are gone keeps a password that is no longer true.
        """
        in_doubt = {ref.kind for ref in self.see.taken} | self.see.unread.keys()
        return self.see.settled_shards is None and not in_doubt.isdisjoint({"Secret", "PersistentVolumeClaim"})

    @cached_property
    def absent(self) -> tuple[Obj, ...]:
        """Objects that are to be made now, Secrets included; none of a kind that could not be read."""
        wanted = (*manifests.secrets(self.want), *self.objects)
        later = {*self.see.unread, *({"StatefulSet", "Deployment"} if self.must_wait_for_names else ())}
        return tuple(obj for obj in wanted if not self.is_there(obj) and obj["kind"] not in later)

    @cached_property
    def changed(self) -> tuple[Obj, ...]:
        """Objects that are there but not as they should be."""
        live = ((obj, self.see.objects.get(Ref(obj["kind"], obj["metadata"]["name"]))) for obj in self.objects)
        return tuple(obj for obj, seen in live if seen is not None and not covers(seen, obj))

    @property
    def may_write_objects(self) -> bool:
        """Whether objects may be made or mended now: what the API server refused is not tried again at every look."""
        at = self.see.refused_at
        return at is None or self.see.now - at >= REFUSED_AGAIN

    def shards_without_service(self) -> Iterator[int]:
        """Yield the shards that the client has and that have no Service yet."""
        there = {route.shard for route in self.see.routes}
        yield from (shard for shard in range(self.shards or 0) if shard not in there)
