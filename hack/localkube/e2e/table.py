"""THE table of end-to-end acts: what is done on real nodes, to whom, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from localkube.chaos.scene import Fault
from localkube.chaos.table import DELETED, DIED, NODE, SILENT
from localkube.e2e import changes, deeds
from localkube.e2e.changes import Changes
from localkube.e2e.stage import KindStage

KILLED_S, FORCED_S, FROZEN_S, NODE_S, SUCCESSION_S, LEADER_S = 0.5, 1.5, 4.5, 6.0, 8.0, 5.0
CUT_OFF = SILENT | DIED | NODE
"""A node that goes takes connections with it, with or without a word."""
WATCH_S = 5.0
AT_ONCE, LATER = 10.0, 2.0
"""By so many times a goal may be missed before it counts as broken: what is decided at once takes milliseconds, in which a busy machine
weighs much; what waits for probes and leases takes seconds, which a busy machine does not multiply."""


class Series(StrEnum):
    """How often an act is played: each series has a number of its own on the command line."""

    FAULT = "fault"
    NODE = "node"
    RELEASE = "release"


@dataclass(frozen=True, kw_only=True)
class Act:
    """One row: a fault or a change, and what is asked of it beyond what is asked of all: nothing lost, nothing doubled, no law broken."""

    fault: Fault[KindStage]
    series: Series = Series.FAULT
    silent: bool = False
    """No message may be refused, not even one of the shard that moves."""
    restarts: bool = False
    """All shards are restarted by the client itself, so refusals on all of them are its own."""
    after: str = ""
    """Played in turn with the act of this name, for one undoes the other."""
    at_once: bool = False
    """The operator decides without waiting for a probe or a lease."""

    @property
    def name(self) -> str:
        """The fault's name."""
        return self.fault.name

    @property
    def bound(self) -> float:
        """Seconds beyond which a time fails the run. What is decided at once and has no goal is held to that of a killed container."""
        if self.at_once:
            return AT_ONCE * (self.fault.goal or KILLED_S)
        return self.fault.allowed if self.fault.goal is None else LATER * self.fault.goal


def acts(made: Changes) -> tuple[Act, ...]:
    """All acts in the order in which they are played; ``made`` has those that need an installation."""
    return (
        Act(
            fault=Fault(name="create", what="kubectl apply -> Ready", strike=made.create, undo=made.remove, failover=False, allowed=240.0),
            silent=True,
        ),
        Act(
            fault=Fault(
                name="grow",
                what="2 -> 4 shards",
                moves=frozenset({"resize"}),
                prepare=changes.at(2),
                strike=changes.grow,
                failover=False,
                gap=True,
                allowed=60.0,
            ),
            restarts=True,
        ),
        Act(
            fault=Fault(
                name="shrink",
                what="4 -> 2 shards",
                moves=frozenset({"resize"}),
                prepare=changes.at(4),
                strike=changes.shrink,
                failover=False,
                gap=True,
                allowed=60.0,
            ),
            restarts=True,
            after="grow",
        ),
        # ---- one pod
        Act(
            fault=Fault(
                name="switchover",
                what="the annotation, as a user writes it",
                strike=deeds.switch_over,
                moves=frozenset({"switchover"}),
                evidence=frozenset({"Requested"}),
            ),
            silent=True,
            at_once=True,
        ),
        Act(
            fault=Fault(
                name="holder-deleted", what="kubectl delete pod", strike=deeds.delete, evidence=DELETED | DIED, effects=("pods ended",)
            ),
            silent=True,
            at_once=True,
        ),
        Act(
            fault=Fault(
                name="holder-force-deleted",
                what="kubectl delete pod --force",
                strike=deeds.force_delete,
                evidence=DELETED | DIED,
                effects=("pods ended",),
                goal=FORCED_S,
            ),
            at_once=True,
        ),
        Act(
            fault=Fault(
                name="container-killed",
                what="kill -9 from its node",
                strike=deeds.kill,
                undo=deeds.replace_killed,
                evidence=DIED,
                goal=KILLED_S,
            ),
            at_once=True,
        ),
        Act(fault=Fault(name="holder-frozen", what="SIGSTOP", strike=deeds.freeze, undo=deeds.thaw, evidence=SILENT, goal=FROZEN_S)),
        # ---- operators
        Act(
            fault=Fault(
                name="leader-killed",
                what="kill -9, until a new leader did what a user asked",
                moves=frozenset({"switchover"}),
                strike=deeds.kill_leader,
                undo=deeds.replace_leader,
                failover=False,
                goal=LEADER_S,
            ),
            silent=True,
        ),
        Act(
            fault=Fault(
                name="drain",
                what="kubectl drain",
                prepare=deeds.spread,
                strike=deeds.drain,
                effects=("pods ended",),
                undo=deeds.uncordon,
                evidence=DELETED,
            ),
            silent=True,
            at_once=True,
        ),
        # ---- nodes
        Act(fault=_node("node-stopped", "docker stop", deeds.stop_node), series=Series.NODE),
        Act(fault=_node("node-killed", "docker kill", deeds.kill_node), series=Series.NODE),
        Act(fault=_node("node-paused", "docker pause", deeds.pause_node), series=Series.NODE),
        Act(fault=_node("node-parted", "iptables drop all", deeds.part_node), series=Series.NODE),
        Act(fault=_leaders_node("leader-node-lost", "docker kill", deeds.lose_leader_node), series=Series.NODE),
        Act(fault=_leaders_node("leader-node-parted", "iptables drop all", deeds.part_leader_node), series=Series.NODE),
        # ---- releases of Helm
        Act(
            fault=Fault(
                name="cluster-chart",
                what="helm install of a cluster, helm test: a message is taken",
                strike=made.install_cluster,
                undo=made.uninstall_cluster,
                failover=False,
                allowed=240.0,
            ),
            series=Series.RELEASE,
            silent=True,
        ),
        Act(
            fault=Fault(
                name="images-changed",
                what="client.images: every Coreapp and Webapp",
                moves=frozenset({"roll-out"}),
                strike=made.change_images,
                failover=False,
                allowed=240.0,
            ),
            series=Series.RELEASE,
            silent=True,
        ),
        Act(
            fault=Fault(
                name="operator-upgrade",
                what="helm upgrade: image",
                strike=made.upgrade_operator,
                failover=False,
                watch=WATCH_S,
                allowed=180.0,
            ),
            series=Series.RELEASE,
            silent=True,
        ),
        Act(
            fault=Fault(
                name="chart-upgrade", what="helm upgrade: values", strike=made.upgrade_chart, failover=False, watch=WATCH_S, allowed=180.0
            ),
            series=Series.RELEASE,
            silent=True,
        ),
        Act(
            fault=Fault(
                name="uninstall",
                what="helm uninstall: pods serve on, CRDs stay",
                strike=made.uninstall,
                undo=made.install,
                failover=False,
                allowed=180.0,
            ),
            series=Series.RELEASE,
            silent=True,
        ),
    )


def _node(name: str, what: str, strike: changes.Deed) -> Fault[KindStage]:
    return Fault(name=name, what=what, prepare=deeds.spread, strike=strike, undo=deeds.bring_back, evidence=CUT_OFF, goal=NODE_S)


def _leaders_node(name: str, what: str, strike: changes.Deed) -> Fault[KindStage]:
    what = f"{what}: leader, holder and node at once"
    return Fault(
        name=name, what=what, prepare=deeds.beside_leader, strike=strike, undo=deeds.bring_back, evidence=CUT_OFF, goal=SUCCESSION_S
    )


def chosen(table: tuple[Act, ...], names: list[str]) -> tuple[Act, ...]:
    """The acts of these names, all if there are none, in the table's order. ValueError with a sentence when one is not in it."""
    unknown = sorted(set(names) - {act.name for act in table})
    if unknown:
        msg = f"there is no act {', '.join(unknown)}; there are {', '.join(act.name for act in table)}"
        raise ValueError(msg)
    return tuple(act for act in table if not names or act.name in names)


def rounds(table: tuple[Act, ...]) -> tuple[tuple[Act, ...], ...]:
    """The acts in groups: those that are played in turn with each other together."""
    groups: list[tuple[Act, ...]] = []
    for act in table:
        if act.after and groups and groups[-1][-1].name == act.after:
            groups[-1] = (*groups[-1], act)
        else:
            groups.append((act,))
    return tuple(groups)
