"""Whether this process, and not the Coreapps, is the likely cause of a silence; the nodes' Leases are the second source."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from .snapshot import Node, Silence

LEASE_STALE = timedelta(seconds=15)
"""If a node's Lease is not renewed for this long, its kubelet is out of reach; kubelets renew every 10 s."""
LATE = timedelta(seconds=1)
"""With this much lag, the event loop has missed answers."""
DOUBTED_NODES = 3
"""Silence on fewer nodes counts: otherwise small clusters would have no failover."""


def newest_renewal(nodes: Mapping[str, Node] | None) -> datetime | None:
    """Return when a Lease of any node was last renewed. It reads all nodes, so it is called once for each snapshot."""
    return max((one.renewed_at for one in (nodes or {}).values() if one.renewed_at is not None), default=None)


def is_lease_stale(node: Node, newest: datetime | None, now: datetime) -> bool:
    """Whether a node stopped renewing its Lease while others continued. If all stopped, the watch of this process is dead."""
    if node.renewed_at is None or newest is None:
        return False
    return newest - node.renewed_at >= LEASE_STALE and now - newest < LEASE_STALE


def is_lost(node: Node, newest: datetime | None, now: datetime) -> bool:
    """Whether a known node is out of reach: gone, declared dead, or with a silent kubelet. Earlier reports of its kubelet do not count."""
    return node.gone or node.out_of_service or node.ready is None or is_lease_stale(node, newest, now)


def self_check(silence: Silence, nodes: Mapping[str, Node] | None, now: datetime) -> str | None:
    """Return why this process may be the cause of a silence, or None. Pure; over all clusters of a process.

    The check fails if the event loop was late; if more than half of all targets, on at least three nodes that renew their Leases, are
    unresponsive at the same time; or if most of them never answered this process although their kubelets, which are not out of reach, call
    them ready, and no other Coreapp on their nodes answers. A single Coreapp that has answered before and then hangs does not fail it. If
    nodes are not known, a kubelet that calls an unresponsive Coreapp ready counts as a renewed Lease.
    """
    if silence.lag >= LATE:
        return f"the operator itself was {silence.lag.total_seconds():.1f} s late"
    asked = silence.targets - silence.not_asked
    if 2 * silence.unresponsive > asked and len(alive := _alive(silence, nodes, now)) >= DOUBTED_NODES:
        return f"{silence.unresponsive} of {asked} Coreapps on {len(alive)} live nodes are unresponsive at the same time"
    if 2 * (unconfirmed := _unconfirmed(silence, nodes, now)) > silence.unresponsive:
        count = f"{unconfirmed} of {silence.unresponsive}"
        return f"{count} unresponsive Coreapps never answered this operator, but their kubelets report them ready"
    return None


def _alive(silence: Silence, nodes: Mapping[str, Node] | None, now: datetime) -> frozenset[str]:
    """Return the nodes with unresponsive Coreapps that are alive as far as is known."""
    if nodes is None:
        return silence.ready_nodes
    newest = newest_renewal(nodes)
    known = ((name, nodes.get(name)) for name in silence.nodes)
    return frozenset(name for name, node in known if node is not None and node.renewed_at and not is_lease_stale(node, newest, now))


def _unconfirmed(silence: Silence, nodes: Mapping[str, Node] | None, now: datetime) -> int:
    """Return how many unresponsive Coreapps never answered although reachable kubelets report them as ready.

    If another Coreapp on the node answers, this process reaches the node. Then the obstacle is the pod's own, such as a service mesh or a
    policy of its namespace, and must not hold up other clusters.
    """
    known, never = nodes or {}, silence.never_responded
    newest = newest_renewal(known)
    lost = {name for name in known.keys() & {*never} if is_lost(known[name], newest, now)}
    return sum(name not in lost | silence.answering for name in never)
