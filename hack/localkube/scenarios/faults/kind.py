"""The table of all faults and changes on kind: what is done on real nodes, to what, and what the result must be."""

from __future__ import annotations

from functools import partial

from localkube.scenarios.faults import kind_actions as actions
from localkube.scenarios.faults.actions import at, delete, switch_over
from localkube.scenarios.faults.hollow import DELETED, DIED, ENDED, NODE, SILENT, Row
from localkube.scenarios.faults.kind_actions import resize
from localkube.scenarios.kind.environment import KindEnvironment
from localkube.scenarios.kind.install import Installation
from localkube.scenarios.kind.nodes import KindNodes
from localkube.scenarios.runner.case import Fault, Series, chosen

KILLED_S, FORCED_S, FROZEN_S, NODE_S, SUCCESSION_S, LEADER_S = 0.5, 1.5, 4.5, 6.0, 8.0, 5.0

CHANGE: Row = {"failover": False, "silent": True}
RESIZE: Row = {"moves": frozenset({"resize"}), "failover": False, "gap": True, "allowed": 60.0, "restarts": True}
ENDS: Row = {"evidence": DELETED | DIED, "effects": ENDED, "at_once": True}
CUT_OFF: Row = {"evidence": SILENT | DIED | NODE, "series": Series.NODE}
"""A node that goes takes connections with it, with or without a word."""
LOST: Row = {**CUT_OFF, "prepare": actions.spread, "goal": NODE_S}
WITH_LEADER: Row = {**CUT_OFF, "prepare": actions.hold_next_to_leader, "goal": SUCCESSION_S}
RELEASE: Row = {**CHANGE, "series": Series.RELEASE, "allowed": 180.0}
ALL = "leader, holder and node at once"

FAULTS: tuple[Fault[KindEnvironment], ...] = (
    Fault(
        "create", "kubectl apply -> Ready", partial(actions.second, make=Installation.create, remove=Installation.delete), **CHANGE,
        allowed=240.0,
    ),
    Fault("grow", "2 -> 4 shards", partial(resize, shards=4), prepare=partial(at, shards=2), **RESIZE),
    Fault("shrink", "4 -> 2 shards", partial(resize, shards=2), prepare=partial(at, shards=4), **RESIZE, after="grow"),
    # ---- one pod
    Fault(
        "switchover", "the annotation, as a user writes it", switch_over, moves=frozenset({"switchover"}),
        evidence=frozenset({"Requested"}), silent=True, at_once=True,
    ),
    Fault("holder-deleted", "kubectl delete pod", delete, **ENDS, silent=True),
    Fault("holder-force-deleted", "kubectl delete pod --force", partial(delete, grace=0), **ENDS, goal=FORCED_S),
    Fault("container-killed", "kill -9 from its node", partial(actions.signal, name="KILL"), evidence=DIED, goal=KILLED_S, at_once=True),
    Fault("holder-frozen", "SIGSTOP", partial(actions.signal, name="STOP", back="CONT"), evidence=SILENT, goal=FROZEN_S),
    # ---- operators
    Fault(
        "leader-killed", "kill -9, until a new leader did what a user asked", actions.kill_leader, **CHANGE, goal=LEADER_S,
        moves=frozenset({"switchover"}),
    ),
    Fault("drain", "kubectl drain", actions.drain, prepare=actions.spread, **{**ENDS, "evidence": DELETED}, silent=True),
    # ---- nodes
    Fault("node-stopped", "docker stop", partial(actions.lose, verb=KindNodes.stop), **LOST),
    Fault("node-killed", "docker kill", partial(actions.lose, verb=KindNodes.kill), **LOST),
    Fault("node-paused", "docker pause", partial(actions.lose, verb=KindNodes.pause), **LOST),
    Fault("node-parted", "iptables drop all", partial(actions.lose, verb=KindNodes.part), **LOST),
    Fault("leader-node-lost", f"docker kill: {ALL}", partial(actions.lose, verb=KindNodes.kill, leaders=True), **WITH_LEADER),
    Fault("leader-node-parted", f"iptables drop all: {ALL}", partial(actions.lose, verb=KindNodes.part, leaders=True), **WITH_LEADER),
    # ---- releases of Helm
    Fault(
        "cluster-chart", "helm install of a cluster, helm test: a message is taken",
        partial(actions.second, make=Installation.install_cluster, remove=Installation.uninstall_cluster), **{**RELEASE, "allowed": 240.0},
    ),
    Fault(
        "images-changed", "client.images: every Coreapp and Webapp", actions.change_images, **{**RELEASE, "allowed": 240.0},
        moves=frozenset({"roll-out"}),
    ),
    Fault("operator-upgrade", "helm upgrade: image", actions.upgrade_operator, **RELEASE, watch=5.0),
    Fault("chart-upgrade", "helm upgrade: values", actions.upgrade_chart, **RELEASE, watch=5.0),
    Fault("uninstall", "helm uninstall: pods serve on, CRDs stay", actions.uninstall, **RELEASE),
)  # fmt: skip
named = partial(chosen, FAULTS)
"""The faults of these names, by comma."""
