"""The table of all faults on hollow nodes: what is done, to what, and what the result must be."""

from __future__ import annotations

from functools import partial
from typing import Any

from localkube.hollow.control import HollowControl
from localkube.scenarios.environment import SHARDS, SPARES
from localkube.scenarios.faults import actions, control, partial_sight
from localkube.scenarios.faults.actions import close_ports, delete, delete_during, disturb, leave_slowly, lose, pod
from localkube.scenarios.faults.partition import REJECTED, TAKEN
from localkube.scenarios.hollow.environment import HollowEnvironment
from localkube.scenarios.runner.case import Fault, chosen

Row = dict[str, Any]
"""Expectations that several rows share, see `Fault`."""

DELETED = frozenset({"PodDeleted", "PodDraining"})
DIED = frozenset({"ContainerTerminated", "ConnectionLost", "PodFailed"})
SILENT = frozenset({"ProbeTimeout", "NotReady"})
NODE = SILENT | {"NodeGone"}
SHUT = SILENT | {"ConnectionLost"}
ENDED, KILLED, HELD, RESET = ("pods ended",), ("containers ended",), ("requests held",), ("connections reset",)
QUICK_S, HUNG_S, NODE_S, SUCCESSION_S = 0.2, 4.0, 6.0, 8.0
ALLOWED_S = 30.0  # seconds within which a handover must have come, from when it can be made
CLOSED = "1 s into it the holder's ports closed, its process lives"

ALL: Row = {"everybody": True}
ENDS: Row = {"effects": ENDED, "evidence": DELETED | DIED}
HANGS: Row = {"effects": HELD, "evidence": SILENT, "goal": HUNG_S}
CUT_OFF: Row = {"effects": HELD, "evidence": NODE, "goal": NODE_S, **ALL}
STAYS: Row = {"failover": False, "watch": 12.0}
LATE: Row = {**ALL, "evidence": SHUT}
"""No handover can be made for a while: what is allowed is counted from the fault, so it is so much more."""
LEADER: Row = {**ALL, "evidence": DELETED | DIED, "goal": SUCCESSION_S}
SIGHT: Row = {**ALL, "evidence": DELETED | DIED, "goal": QUICK_S, "pods_stay": True}
GROW = partial(delete_during, shards=4, reached=lambda at, cluster: len(at.coreapps(cluster)) > SHARDS + SPARES, what="more pods")
CALL = partial(delete_during, shards=4, reached=lambda at, cluster: "operation" in at.status(cluster), what="the noted call")
SHRINK = partial(delete_during, shards=2, reached=lambda at, cluster: at.status(cluster).get("shards") == SHARDS, what="2 shards")
RESIZE: Row = {"effects": ENDED, "moves": frozenset({"resize"})}

FAULTS: tuple[Fault[HollowEnvironment], ...] = (
    # ---- a pod ends
    Fault("pod-deleted", "holder's pod deleted", delete, **ENDS, goal=QUICK_S),
    Fault("pod-force-deleted", "... with --force", partial(delete, grace=0), **ENDS, goal=QUICK_S),
    Fault("pod-evicted", "... by the Eviction API", actions.evict, **ENDS, goal=QUICK_S),
    Fault(
        "container-killed", "holder's container killed (SIGKILL)", partial(pod, verb=HollowControl.kill), effects=KILLED, evidence=DIED,
        goal=QUICK_S, resumes=True,
    ),
    Fault(
        "pod-failed", "holder's pod ended by its kubelet", partial(pod, verb=HollowControl.fail), effects=KILLED, evidence=DIED | DELETED
    ),
    Fault("long-grace", "deleted, and serves on for 28 of 30 s of grace", leave_slowly, effects=ENDED, evidence=DELETED, goal=QUICK_S),
    Fault("two-holders", "both holders of a cluster with one spare, with --force", partial(delete, grace=0, shards=(0, 1)), **ENDS),
    # ---- a pod does not end
    Fault("hang", "holder's process stopped (SIGSTOP)", partial(pod, verb=HollowControl.hang, undo=HollowControl.resume), **HANGS),
    Fault("port-closed", "holder's ports closed, its process lives", close_ports, effects=RESET, evidence=SHUT, goal=HUNG_S),
    Fault(
        "port-half-open", "connections silent, no new ones",
        partial(pod, verb=HollowControl.disturb, undo=HollowControl.kill, ports="half-open"), **HANGS,
    ),
    Fault(
        "slow-answers", "every probe answered 0.8 s late", partial(disturb, late=0.8, until={"late": 0.0}), **STAYS,
        effects=("probes late",),
    ),
    Fault(
        "lost-probes", "30 % of the probes lost", partial(disturb, swallow=0.3, until={"swallow": 0.0}), **STAYS,
        effects=("probes lost",),
    ),
    # ---- nodes
    Fault("node-lost", "holder's node cut off", partial(lose, rebooted=True), **CUT_OFF),
    Fault("node-back", "... and back with its old holder", lose, **CUT_OFF, watch=5.0),
    Fault(
        "holder-partitioned", "holder's node cut off, the holder serves on", actions.part_node, undo=actions.heal_node, watch=3.0,
        **{**CUT_OFF, "effects": (*HELD, TAKEN, REJECTED, "old holders replaced")},
    ),
    Fault("node-flapping", "away 1.2 s, back 1.5 s, four times", actions.flap_node, **ALL, effects=HELD, failover=False, watch=5.0),
    Fault("zone-lost", "all nodes of a zone cut off", partial(lose, group="zone", rebooted=True), **CUT_OFF),
    Fault(
        "last-spare", "no pod left, and for 3 s no node for new ones", actions.last_spare, **ALL, **ENDS,
        allowed=actions.UNSERVED_S + ALLOWED_S,
    ),
    # ---- the API server and the way to it
    *(
        Fault(
            f"api-down-{seconds}s", f"API server stopped for {seconds} s, {CLOSED}", partial(control.api_down, seconds=seconds), **LATE,
            effects=("API calls unanswered", *RESET), allowed=seconds - 1 + ALLOWED_S,
        )
        for seconds in (10, 60)
    ),
    Fault(
        "api-hangs", "one of two API servers stopped (SIGSTOP) for 30 s, a holder deleted", control.one_hangs, **ALL,
        evidence=DELETED | DIED, goal=HUNG_S, effects=("connections to an API server that hangs", *ENDED),
    ),
    Fault(
        "watch-dead", "watches die silently, holder deleted", control.watches_die, **ALL, evidence=DELETED | DIED,
        effects=("watches cut", "pieces swallowed", *ENDED),
    ),
    Fault(
        "api-429", f"the operators answered 429 for 10 s, {CLOSED}", control.throttled, **LATE,
        effects=("calls answered 429", *RESET), allowed=control.THROTTLED_S - 1 + ALLOWED_S,
    ),
    # ---- operators
    Fault(
        "leader-killed", "kill -9: messages go on, nothing is moved", control.kill_leader, **ALL,
        effects=("operators ended",), failover=False, watch=8.0,
    ),
    Fault(
        "leader-and-holder", "kill -9, and a holder deleted at once", partial(control.kill_leader, holders_too=True), **LEADER,
        effects=("operators ended", *ENDED),
    ),
    Fault(
        "leader-paused", "SIGSTOP for 60 s, and a holder deleted at once", control.pause_leader, **LEADER,
        effects=("operators stopped", *ENDED), watch=5.0,
    ),
    Fault(
        "leader-cut-off", "leader parted from the API server for 20 s, a holder deleted", control.cut_leader_off, **LEADER,
        effects=("pieces held", *ENDED), watch=5.0,
    ),
    # ---- what the operators can see
    Fault(
        "leader-blind", "the next leader reaches no Coreapp for 15 s, then another may lead, then a holder deleted",
        partial_sight.blind_leader, **SIGHT, effects=("operators ended", "connections denied", *ENDED),
    ),
    Fault(
        "secret-unreadable", "one cluster's Secret answered 500, a holder deleted", partial_sight.secret_unreadable, **SIGHT,
        effects=("reads answered 500", *ENDED),
    ),
    Fault(
        "rights-taken", "the role loses PodDisruptionBudgets, a holder deleted", partial_sight.rights_taken, **SIGHT,
        effects=("calls answered 403", *ENDED),
    ),
    Fault(
        "half-429", "half of all calls answered 429, a holder deleted", partial_sight.half_answered, **{**SIGHT, "goal": None},
        effects=("calls answered 429", *ENDED),
    ),
    Fault(
        "watches-401", "watches cut and answered 401 for 1 s; 5 s later a holder deleted", partial_sight.watches_rejected, **SIGHT,
        effects=("watches answered 401", *ENDED),
    ),
    Fault(
        "admission", "a webhook changes one cluster's StatefulSet while it grows, holders of the others deleted",
        partial_sight.admission_changes, **{**SIGHT, "evidence": DELETED | DIED | {"RolledOut"}},
        effects=("writes seen by admission", *ENDED), moves=frozenset({"roll-out", "resize"}),
    ),
    Fault(
        "hostile-neighbour", "two clusters annotated with nonsense (10 KB, 4,301 digits), a holder deleted",
        partial_sight.hostile_neighbour, **SIGHT, effects=("hostile annotations", *ENDED),
    ),
    Fault(
        "older-service", "one cluster's Service replaced by an earlier copy, holders of the others deleted",
        partial_sight.put_older_back, prepare=partial_sight.copy_service, effects=("older Services put back", *ENDED),
        # RolledOut: what a webhook left in the template is rolled out when there is something else to write.
        **{**SIGHT, "evidence": DELETED | DIED | {"HolderDisagrees", "RolledOut"}},
    ),
    # ---- in the middle of a change
    Fault("during-grow", "holder deleted while pods are added, 2 -> 4", GROW, **RESIZE, evidence=DELETED | DIED),
    Fault("during-set-shards", "holder deleted during the call, 2 -> 4", CALL, **RESIZE, evidence=DELETED | DIED | {"RestartOverdue"}),
    Fault(
        "during-shrink", "holder deleted while pods are removed, 4 -> 2", SHRINK, **RESIZE, prepare=partial(actions.at, shards=4),
        evidence=DELETED | DIED | {"RestartOverdue"},
    ),
)  # fmt: skip
SHORT = (
    *("pod-deleted", "container-killed", "hang", "port-closed", "slow-answers", "holder-partitioned"),
    *("leader-and-holder", "secret-unreadable", "rights-taken"),
)
"""The round that CI runs."""


named = partial(chosen, FAULTS)
"""The faults of these names, by comma."""


def soak(seconds: float) -> Fault[HollowEnvironment]:
    """No fault except that 1 % of the probes are lost, for the requested time; no shard may be moved."""
    what = f"1 % of all probes lost for {seconds:g} s"
    return Fault("soak", what, partial(actions.lose_probes, share=0.01), **ALL, effects=("probes lost",), failover=False, watch=seconds)
