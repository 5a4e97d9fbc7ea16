"""Which Coreapps could serve, and why the others cannot: by their own answers, their kubelets and their nodes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cached_property

from . import self_check
from .restart import Restart
from .self_check import LEASE_STALE, is_lost
from .snapshot import Answer, Coreapp, Evidence, Node

OUT_OF_REACH = timedelta(seconds=60)
"""A pod that has been unreachable on a lost node for this long is compensated by one more replica."""


def node_of(f: Restart, pod: Coreapp) -> Node | None:
    """Return a pod's node, if it is known."""
    return (f.snapshot.nodes or {}).get(pod.node or "")


def is_node_gone(f: Restart, pod: Coreapp) -> bool:
    """Whether the node object was deleted, or declared dead by the taint out-of-service. An unknown node may be a new one.

    False while nodes cannot be read: the node may be back. If it is not, its Coreapps do not answer.
    """
    node = node_of(f, pod)
    return node is not None and (node.gone or node.out_of_service) and "Node" not in f.snapshot.unread


def is_node_lost(f: Restart, pod: Coreapp) -> bool:
    """Whether the node of an unresponsive pod is unreachable: gone, not renewing its Lease, or out of service."""
    node = node_of(f, pod)
    if node is None:
        return f.snapshot.nodes is not None and pod.node is not None
    return is_lost(node, f.newest_renewal, f.snapshot.now)


def is_node_alive(f: Restart, pod: Coreapp) -> bool:
    """Whether the node of an unresponsive pod is known to be alive: it renewed its Lease after the first probe without an answer.

    A silence counts from up to half a round before that probe. A node that renewed its Lease in between may have been lost right after.
    """
    node = node_of(f, pod)
    if node is None or node.renewed_at is None:
        # Without the right to read nodes there is no Lease to compare with; a long silence must be enough.
        return f.snapshot.nodes is None and pod.unresponsive_since is not None and f.snapshot.now - pod.unresponsive_since >= LEASE_STALE
    if pod.unresponsive_since is None or node.presumed or is_node_lost(f, pod):
        return False
    return node.renewed_at > pod.unresponsive_since + f.desired.probe.period / 2


def is_leaving(f: Restart, pod: Coreapp) -> bool:
    """Whether a pod's node is being drained, so that its shard is moved before the pod goes."""
    node = node_of(f, pod)
    return node is not None and node.leaving is not None


def is_unconfirmed(f: Restart, pod: Coreapp) -> bool:
    """Whether a silence of a pod proves nothing: this process never reached it, and its kubelet reports it as ready.

    The kubelet probes the same port. So the network between this process and the pod is more likely broken (a NetworkPolicy, a route), for
    example for a leader that starts where it reaches no Coreapp. The last report of a lost node's kubelet is out of date.
    """
    node = node_of(f, pod)
    return pod.never_responded and pod.ready and (node is None or not is_lost(node, f.newest_renewal, f.snapshot.now))


def is_unresponsive(f: Restart, pod: Coreapp, span: timedelta | None = None) -> bool:
    """Whether a Coreapp has left its probes unanswered for this long; by default, for as long as the spec allows."""
    span = f.desired.unhealthy_after if span is None else span
    return pod.unresponsive_since is not None and not is_unconfirmed(f, pod) and f.snapshot.now - pod.unresponsive_since >= span


def is_unready(pod: Coreapp) -> bool:
    """Whether the kubelet reports a running Coreapp as not ready, and its own answer does not contradict.

    A Coreapp that answers the HTTP probe serves, even if its kubelet cannot reach the API server.
    """
    is_running = pod.phase == "Running" and not pod.ready and not pod.terminated
    return is_running and (pod.report is None or pod.unresponsive_since is not None)


def _has_been_unready(f: Restart, pod: Coreapp) -> bool:
    """Whether that has lasted too long. One that has not been ready since its container started may still be starting."""
    patience = f.desired.unhealthy_after if pod.lost_readiness else f.desired.restart_timeout
    return is_unready(pod) and f.has_held_for(unready_fact(pod), patience)


def unready_fact(pod: Coreapp) -> str:
    """Return the name of the fact that a pod is not ready; its age is needed."""
    return f"NotReady/{pod.uid}"


def is_hung(f: Health, pod: Coreapp) -> bool:
    """Whether there is probable evidence against a running Coreapp that no restart explains, while the self-check is passed."""
    return not f.is_explained_by_restart(pod) and f.self_check is None and any(holds(f, pod) for _, holds in PROBABLE)


PROBABLE: tuple[tuple[Evidence, Callable[[Restart, Coreapp], bool]], ...] = (
    (Evidence.PROBE_TIMEOUT, is_unresponsive),
    (Evidence.NOT_READY, _has_been_unready),
)
"""Probable evidence against a Coreapp that runs but may not serve."""


class Health(Restart):
    """Adds which Coreapps are ready, out of reach, or hung."""

    def is_responding(self, pod: Coreapp) -> bool:
        """Return whether a Coreapp answers its probes."""
        return pod.report is not None and pod.unresponsive_since is None and not pod.deleting

    @cached_property
    def ready(self) -> tuple[Coreapp, ...]:
        """Coreapps that could serve now."""
        return tuple(pod for pod in self.snapshot.coreapps if self.is_healthy(pod))

    def is_healthy(self, pod: Coreapp) -> bool:
        """Return whether a Coreapp could serve now: healthy by its own report, on an existing node, and not hung."""
        return pod.is_ready and not is_node_gone(self, pod) and not is_hung(self, pod)

    def is_healthy_holder(self, pod: Coreapp) -> bool:
        """Return the same of a holder. Messages reach it ready or not, so its own answer counts more than what its kubelet says.

        The kubelet may not reach it, or another container of its pod may not be ready.
        """
        return self.is_healthy(pod) or (pod.is_running and self.is_responding(pod))

    @cached_property
    def self_check(self) -> str | None:
        """Why this process may be the cause of a silence; None: the self-check is passed."""
        return self_check.self_check(self.snapshot.silence, self.snapshot.nodes, self.snapshot.now)

    @cached_property
    def out_of_reach(self) -> tuple[Coreapp, ...]:
        """Pods on lost nodes that do not answer: a StatefulSet does not replace them, even if they stay Terminating."""
        return tuple(pod for pod in self.snapshot.coreapps if is_node_lost(self, pod) and not self.is_responding(pod))

    @property
    def enough_are_back(self) -> bool:
        """Whether as many Coreapps are back as there are shards."""
        return self.shards is not None and sum(self.has_restarted(pod) for pod in self.ready) >= self.shards

    @property
    def back_fact(self) -> str | None:
        """The name of the fact that enough are back from the accepted Set Shards call; its age is needed. None: they are not back now."""
        operation = self.operation
        if operation is None or operation.answer is not Answer.ACCEPTED or not self.enough_are_back:
            return None
        return f"EnoughAreBack/{operation.id}"

    def zone(self, pod: Coreapp) -> str | None:
        """Return the zone that a pod runs in, if that is known."""
        node = node_of(self, pod)
        return node.zone if node is not None else None
