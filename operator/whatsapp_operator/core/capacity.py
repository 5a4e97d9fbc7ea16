"""Facts that need only counting and lookup: the numbers R, S, D and X of the laws, and which route names which pod."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from . import self_check
from .desired import Desired
from .snapshot import Coreapp, Operation, Record, Route, Snapshot


@dataclass(frozen=True)
class Counts:
    """One snapshot with the desired state, and the record after the newest answer.

    The lowest of the layers `Counts`, `Restart`, `Health`, `Claims`, `Holders`, `Facts`: each one adds what follows from those below it.
    """

    desired: Desired
    snapshot: Snapshot
    record: Record

    @property
    def operation(self) -> Operation | None:
        """The noted Set Shards call as it stands after the newest answer."""
        return self.record.operation

    @property
    def settled_shards(self) -> int | None:
        """The number of shards that was last verified as reached; None: none was yet."""
        return self.record.settled_shards

    @property
    def wall(self) -> datetime:
        """The wall time of the observation: for what people read, and for dates from outside."""
        return self.snapshot.wall or self.snapshot.now

    @property
    def latest(self) -> datetime:
        """The time for what must not be sent after a date: the later of this machine's clock and the API server's."""
        return max(self.wall, self.snapshot.server_time or self.wall)

    @cached_property
    def newest_renewal(self) -> datetime | None:
        """When a Lease of any node was last renewed; None: unknown."""
        return self_check.newest_renewal(self.snapshot.nodes)

    @property
    def shards(self) -> int | None:
        """S: the shards that the client reports; None while unknown."""
        return self.snapshot.client.shards

    @property
    def replicas(self) -> int:
        """R: the replicas of the StatefulSet; 0 while there is none."""
        return self.snapshot.statefulset.replicas if self.snapshot.statefulset else 0

    @property
    def spec_replicas(self) -> int:
        """D + X."""
        return self.desired.shards + self.desired.spares

    @property
    def min_replicas(self) -> int:
        """The minimum of R for any spec: every shard that exists or may come to exist (laws#4)."""
        return max(self.shards or self.settled_shards or 0, self.operation.to if self.operation else 0)

    def has_held_for(self, fact: str, span: timedelta) -> bool:
        """Return whether a fact of the last plans has held for this long. It need not hold any more."""
        since = self.snapshot.since.get(fact)
        return since is not None and self.snapshot.now - since >= span

    @cached_property
    def by_uid(self) -> dict[str | None, Coreapp]:
        """Pods by uid; none has None, which is the uid of a holder that never existed."""
        return {pod.uid: pod for pod in self.snapshot.coreapps}

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """The routes that count: the cluster's own, of shards that exist as far as is known."""
        return tuple(route for route in self.snapshot.routes if not route.foreign and self._may_exist(route))

    def _may_exist(self, route: Route) -> bool:
        """Whether the client may have the shard of a route. Services precede their shards, so one without a holder proves nothing."""
        if self.shards is not None:
            return route.shard < self.shards
        return route.holder_uid is not None or route.shard < (self.settled_shards or 0)

    def holder(self, route: Route) -> Coreapp | None:
        """Return the pod that the route names, if it exists."""
        return self.by_uid.get(route.holder_uid)

    @cached_property
    def holder_uids(self) -> frozenset[str]:
        """Uids of the pods that any own route names, even a route that will be removed."""
        return frozenset(route.holder_uid for route in self.snapshot.routes if route.holder_uid and not route.foreign)

    @cached_property
    def unassigned(self) -> tuple[Route, ...]:
        """Routes that never had a holder, lowest shard first."""
        return tuple(route for route in self.routes if route.holder_uid is None)

    def shards_without_service(self, shards: int | None) -> Iterator[int]:
        """Yield those of this many shards that have no Service yet; none while one of the Services cannot be read."""
        if "Service" in self.snapshot.unread:
            return
        there = {route.shard for route in self.snapshot.routes}
        yield from (shard for shard in range(shards or 0) if shard not in there)

    @property
    def webapp_ready(self) -> bool:
        """Whether a Webapp is ready."""
        return self.webapps_ready > 0

    @property
    def webapps_ready(self) -> int:
        """How many Webapps are ready."""
        return self.snapshot.webapp.ready if self.snapshot.webapp is not None else 0

    @property
    def desired_webapps(self) -> int:
        """How many Webapps there should be, by the spec, or else by the Deployment."""
        if self.desired.webapps is not None:
            return self.desired.webapps
        return self.snapshot.webapp.replicas if self.snapshot.webapp is not None else 0

    @property
    def lacks_webapps(self) -> bool:
        """Whether fewer Webapps are ready than desired."""
        return self.snapshot.webapp is not None and self.webapps_ready < self.desired_webapps
