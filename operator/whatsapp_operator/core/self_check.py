"""The second witness of silence, the nodes' Leases, and when silence is more likely ours than that of the Coreapps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from .snapshot import Node, Silence

LEASE_STALE = timedelta(seconds=15)
"""A node's Lease not renewed for so long means that its kubelet is out of reach; kubelets renew every 10 s."""
LATE = timedelta(seconds=1)
"""An event loop as late as this has missed answers that were there."""
DOUBTED_NODES = 3
"""Silence on fewer nodes may well be theirs: small clusters are not disarmed."""


def newest_renewal(nodes: Mapping[str, Node] | None) -> datetime | None:
    """Return when a Lease of any node was renewed last; it takes a walk over all nodes, so a snapshot is asked once."""
    return max((one.renewed_at for one in (nodes or {}).values() if one.renewed_at is not None), default=None)


def is_lease_stale(node: Node, newest: datetime | None, now: datetime) -> bool:
    """Whether a node stopped renewing its Lease while others went on: with no news of any node it is our watch that is dead."""
    if node.renewed_at is None or newest is None:
        return False
    return newest - node.renewed_at >= LEASE_STALE and now - newest < LEASE_STALE


def self_check(silence: Silence, nodes: Mapping[str, Node] | None, now: datetime) -> str | None:
    """Return why silence may be ours and not that of the Coreapps, or None. Pure; over all clusters of a process.

    Our event loop was late; or more than half of all targets, on at least three nodes whose Leases are renewed, are silent at once; or most
    of the silent ones never answered this process although their kubelets call them ready. A single Coreapp that was heard and then hangs
    raises no doubt. Where nothing is known of nodes, a kubelet that calls a silent Coreapp ready stands for a Lease that is renewed.
    """
    if silence.lag >= LATE:
        return f"the operator itself was {silence.lag.total_seconds():.1f} s late"
    asked = silence.targets - silence.not_asked
    if 2 * silence.unresponsive > asked and len(alive := _alive(silence, nodes, now)) >= DOUBTED_NODES:
        return f"{silence.unresponsive} of {asked} Coreapps on {len(alive)} live nodes are unresponsive at the same time"
    if 2 * silence.never_responded > silence.unresponsive:
        count = f"{silence.never_responded} of {silence.unresponsive}"
        return f"{count} unresponsive Coreapps never answered this operator, but their kubelets report them ready"
    return None


def _alive(silence: Silence, nodes: Mapping[str, Node] | None, now: datetime) -> frozenset[str]:
    """Return which of the nodes with silent Coreapps live for all that is known."""
    if nodes is None:
        return silence.ready_nodes
    newest = newest_renewal(nodes)
    known = ((name, nodes.get(name)) for name in silence.nodes)
    return frozenset(name for name, node in known if node is not None and node.renewed_at and not is_lease_stale(node, newest, now))
