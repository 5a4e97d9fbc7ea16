"""Which Coreapp serves which shard: holders that serve, holders that failed, and standbys that could take over."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property

from . import evidence, health
from .claims import Claims
from .names import Ref
from .reasons import Reason
from .snapshot import Coreapp, Evidence, Route


class Holders(Claims):
    """Adds the holders of the shards, judged by the table of evidence."""

    def _gateways(self) -> set[str]:
        """Return the gateway states of the holders that report their shard."""
        reports = [pod.report for route in self.routes if (pod := self.holder(route)) is not None]
        return {report.gateway for report in reports if report is not None and report.shard is not None}

    @property
    def is_connected(self) -> bool:
        """Whether every shard has a holder that reports a connection to WhatsApp."""
        return self._gateways() == {"connected"} and all(self.is_served(route) for route in self.routes)

    @property
    def is_cut_off(self) -> bool:
        """Whether no holder has a connection to WhatsApp or is about to get one."""
        return self._gateways() == {"disconnected"}

    @property
    def has_stayed_connected(self) -> bool:
        """Whether it is connected, and has been for long enough to tell."""
        return self.has_held_for("Connected", self.desired.tuning.connection) and self.is_connected

    @property
    def has_stayed_cut_off(self) -> bool:
        """Whether it is cut off, and has been for long enough to tell."""
        return self.has_held_for("CutOff", self.desired.tuning.connection) and self.is_cut_off

    def is_served(self, route: Route) -> bool:
        """Return whether the holder that the route names could serve, and does not report another role.

        A holder that was not probed yet, because the operator has just started, counts as serving: unknown does not mean failed.
        """
        if route not in self._served:
            self._served[route] = self._could_serve(route, self.holder(route))
        return self._served[route]

    def _could_serve(self, route: Route, pod: Coreapp | None) -> bool:
        return (
            pod is not None
            and self.is_healthy_holder(pod)
            and self.failure(route) is None
            and route.copied_by is None
            and (pod.report is None or evidence.is_claimed(route, pod))
        )

    def failure(self, route: Route) -> Evidence | None:
        """Return why the holder of a route must be replaced, or None."""
        if route not in self._failures:
            self._failures[route] = evidence.failure(self, route)
        return self._failures[route]

    @cached_property
    def _failures(self) -> dict[Route, Evidence | None]:
        """The results of ``failure`` for this snapshot: rules and conditions ask several times for each route."""
        return {}

    @cached_property
    def _served(self) -> dict[Route, bool]:
        """The results of ``is_served`` for this snapshot, for the same reason."""
        return {}

    @cached_property
    def failed(self) -> tuple[tuple[Route, Evidence], ...]:
        """Routes whose holder must be replaced, lowest shard first."""
        return tuple((route, why) for route in self.routes if (why := self.failure(route)) is not None)

    def standbys(self, route: Route | None = None, used: Collection[str] = ()) -> list[Coreapp]:
        """Return the pods that could take a shard, best first.

        Only ready pods qualify. In this order, those are preferred that answer with a number of shards, that this process does not delete,
        that had no labels rejected just now, that are not leaving, that stay when the cluster shrinks, that are on another node than the
        failed holder, in another zone, that a request names for this shard and not for another one, that are up to date, with the lowest
        ordinal.
        A pod whose label may still be committed is left out until its Service was touched.
        """
        return self._free(self.ready, route, used)

    def successors(self, route: Route, used: Collection[str] = ()) -> list[Coreapp]:
        """Return the pods that could take the shard of a failed holder, best first: the standbys, or if there is none, those that answer.

        Messages reach a holder ready or not. So if another container keeps all pods from being ready, the shard is served nevertheless.
        A shard that never had a holder waits for a standby: its cluster may only be starting.
        """
        found = self.standbys(route, used)
        if found or route.holder_uid is None:
            return found
        answering = (pod for pod in self.snapshot.coreapps if pod.report is not None and pod.report.shards is not None)
        return self._free(filter(self.is_healthy_holder, answering), route, used)

    def _free(self, pods: Iterable[Coreapp], route: Route | None, used: Collection[str]) -> list[Coreapp]:
        failed = self.holder(route) if route is not None else None
        zone = self.zone(failed) if failed is not None else None
        revision = self.snapshot.statefulset.revision if self.snapshot.statefulset else None
        requested = {request.to: request.shard for request in self.desired.switchovers}
        asked_for = None if route is None else route.shard
        candidates = [
            pod
            for pod in pods
            if pod.uid not in self.holder_uids
            and pod.uid not in used
            and self.claim(pod) in {"none", "dead"}
            and not (self.is_explained_by_restart(pod) and pod.report is None)
            and (pod.report is None or self.shards is None or pod.report.shards in {None, self.shards})
        ]
        return sorted(
            candidates,
            key=lambda pod: (
                pod.report is None or pod.report.shards is None or pod.unresponsive_since is not None,
                # A list from the API server's cache may be older than a deletion that this process has begun.
                pod.name in self.snapshot.ended,
                Ref("Pod", pod.name) in self.snapshot.rejected,
                health.is_leaving(self, pod) or health.is_node_lost(self, pod),
                pod.ordinal >= self.spec_replicas,
                failed is not None and pod.node == failed.node,
                zone is not None and self.zone(pod) == zone,
                0 if pod.name not in requested else -1 if requested[pod.name] == asked_for else 1,
                revision is not None and pod.revision != revision,
                pod.ordinal,
            ),
        )

    def is_fenced_off(self, route: Route) -> bool:
        """Return whether the holder answers that the servers reject the epoch that the route names."""
        pod = self.holder(route)
        report = pod.report if pod is not None and pod.unresponsive_since is None else None
        return report is not None and report.fenced and (report.shard, report.epoch) == (route.shard, route.epoch)

    @cached_property
    def rejected(self) -> tuple[Route, ...]:
        """Routes whose epochs the servers keep rejecting: a new epoch did not help, or there is no standby to try one.

        The next holder needs a moment to find out. Until then, the last holder's finding stands.
        """
        return tuple(route for route in self.routes if self._is_rejected(route))

    def _is_rejected(self, route: Route) -> bool:
        is_second = route.evidence == Evidence.HOLDER_DISAGREES
        if self.is_fenced_off(route):
            return is_second or not self.successors(route)
        return is_second and rejection_fact(route) in self.snapshot.since and not self.is_served(route)

    @cached_property
    def draining(self) -> tuple[Route, ...]:
        """Routes whose holder is alive on a node that is being drained, while a standby elsewhere could take the shard.

        There are none while nodes cannot be read: the drain may have been cancelled, or the standby's node may be drained instead. If the
        drain continues, the pod is evicted, which is separate evidence.
        """
        if self.restart_is_expected or "Node" in self.snapshot.unread:
            return ()
        leaving = (route for route in self.routes if (pod := self.holder(route)) is not None and health.is_leaving(self, pod))
        return tuple(route for route in leaving if self.failure(route) is None and self.standbys_that_stay(route))

    def standbys_that_stay(self, route: Route) -> list[Coreapp]:
        """Return the pods that could take a shard at once, that the StatefulSet keeps and whose nodes are not being drained; best first."""
        kept = (pod for pod in self.standbys(route) if pod.ordinal < self.replicas and knows_shards(pod))
        return [pod for pod in kept if not health.is_leaving(self, pod) and not health.is_node_lost(self, pod)]


def rejection_fact(route: Route) -> str:
    """Return the name of the fact that the servers keep rejecting the epochs of a shard."""
    return f"{Reason.EPOCH_REJECTED}/{route.shard}"


def knows_shards(pod: Coreapp) -> bool:
    """Return whether a pod can take a shard at once.

    One that answers without a number of shards has just started and rejects each role: a planned move waits for it.
    """
    return pod.report is None or pod.report.shards is not None
