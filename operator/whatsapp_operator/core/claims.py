"""Whether the labels of a pod are valid: a Service names them, may still name them later, or has moved past them."""

from __future__ import annotations

from . import manifests
from .health import Health
from .names import Epoch
from .snapshot import Coreapp, Route


class Claims(Health):
    """Adds what pods claim to hold, judged by the Services."""

    def claim(self, pod: Coreapp) -> str:
        """Return the state of the labels of a pod (laws#2).

        ``none``: it has no epoch. ``committed``: its Service names it. ``damaged``: the same, but its other labels do not say so.
        ``dead``: its Service has moved past it. ``pending``: it may still be committed. ``invalid``: it is above every version that its
        Service has had, so no leader can have prepared it. ``orphan``: its Service does not exist.
        ``retiring``: a write that ends it may be on its way; once the StatefulSet has moved past its mark, that is ``dead`` (laws#7).
        """
        epoch = Epoch.parse(pod.epoch_label)
        if epoch is None:
            return "none" if pod.epoch_label is None else "dead"
        return self._claim(pod, epoch) if self.retires_by(pod) is None else self._retirement(epoch)

    def _claim(self, pod: Coreapp, epoch: Epoch) -> str:
        named = next((one for one in self.snapshot.routes if one.holder_uid == pod.uid and one.epoch == pod.epoch_label), None)
        if named is not None and not named.foreign:
            whole = pod.shard_label == named.shard and pod.labels.get(manifests.ROLE_LABEL) == "active"
            return "committed" if whole else "damaged"
        if pod.shard_label is None:
            return "pending" if self.awaiting(pod) else "dead"
        route = next((route for route in self.snapshot.routes if route.shard == pod.shard_label), None)
        if route is None:
            return "orphan"
        if route.epoch == pod.epoch_label:
            return "committed"
        # A touch tests the version: when the label was read, the Service's version was lower than the label's.
        return "dead" if route.version > epoch.n else "invalid" if route.touched == pod.epoch_label else "pending"

    @staticmethod
    def retires_by(pod: Coreapp) -> int | None:
        """Return the version of the StatefulSet with which a pod is marked to go; None: it is not marked."""
        mark = Epoch.parse(pod.epoch_label)
        return mark.n if mark is not None and pod.labels.get(manifests.ROLE_LABEL) == manifests.RETIRING else None

    def _retirement(self, mark: Epoch) -> str:
        workload = self.snapshot.statefulset
        if workload is None or int(workload.resource_version) > mark.n:
            return "dead"
        bumped = Epoch.parse(workload.bumped_for)
        # As with a touch: that bump tested a version, which was below the mark.
        return "invalid" if bumped is not None and bumped.n >= mark.n else "retiring"

    def awaiting(self, pod: Coreapp) -> tuple[Route, ...]:
        """Return the routes that may still be committed to the pod's epoch; any, when a label that named the shard is gone."""
        epoch, shard = Epoch.parse(pod.epoch_label), pod.shard_label
        ours = (route for route in self.snapshot.routes if not route.foreign and shard in {route.shard, None})
        return tuple(route for route in ours if epoch is not None and route.version <= epoch.n and route.touched != pod.epoch_label)
