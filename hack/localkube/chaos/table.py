"""THE table of faults: what is done, to whom, and what must come of it."""

from __future__ import annotations

from localkube.chaos import control, deeds, partial_sight
from localkube.chaos.partition import REFUSED, TAKEN
from localkube.chaos.scene import Fault
from localkube.chaos.stage import ChaosStage

DELETED = frozenset({"PodDeleted", "PodDraining"})
DIED = frozenset({"ContainerTerminated", "ConnectionLost", "PodFailed"})
SILENT = frozenset({"ProbeTimeout", "NotReady"})
NODE = SILENT | {"NodeGone"}
SHUT = SILENT | {"ConnectionLost"}
ENDED, KILLED, HELD, RESET = ("pods ended",), ("containers ended",), ("requests held",), ("connections reset",)
"""What must have been counted of a fault, see `Fault.effects`."""
QUICK_S, HUNG_S, NODE_S, SUCCESSION_S = 0.2, 4.0, 6.0, 8.0
ALLOWED_S = 30.0
"""Seconds within which a handover must have come, from when it can be made."""
CLOSED = "1 s into it the holder's ports closed, its process lives"

FAULTS = (
    # ---- a pod ends
    Fault(name="pod-deleted", effects=ENDED, what="holder's pod deleted", strike=deeds.delete, evidence=DELETED | DIED, goal=QUICK_S),
    Fault(
        name="pod-force-deleted", effects=ENDED, what="... with --force", strike=deeds.force_delete, evidence=DELETED | DIED, goal=QUICK_S
    ),
    Fault(name="pod-evicted", effects=ENDED, what="... by the Eviction API", strike=deeds.evict, evidence=DELETED | DIED, goal=QUICK_S),
    Fault(
        name="container-killed",
        effects=KILLED,
        what="holder's container killed (SIGKILL)",
        strike=deeds.kill,
        evidence=DIED,
        goal=QUICK_S,
        resumes=True,
    ),
    Fault(name="pod-failed", effects=KILLED, what="holder's pod ended by its kubelet", strike=deeds.fail, evidence=DIED | DELETED),
    Fault(
        name="long-grace",
        effects=ENDED,
        what="deleted, and serves on for 28 of 30 s of grace",
        strike=deeds.leave_slowly,
        evidence=DELETED,
        goal=QUICK_S,
    ),
    Fault(
        name="two-holders",
        effects=ENDED,
        what="both holders of a cluster with one spare, with --force",
        strike=deeds.both_holders,
        evidence=DELETED | DIED,
    ),
    # ---- a pod does not end
    Fault(
        name="hang",
        effects=HELD,
        what="holder's process stopped (SIGSTOP)",
        strike=deeds.hang,
        undo=deeds.resume,
        evidence=SILENT,
        goal=HUNG_S,
    ),
    Fault(
        name="port-closed",
        effects=RESET,
        what="holder's ports closed, its process lives",
        strike=deeds.close_ports,
        undo=deeds.restart,
        evidence=SHUT,
        goal=HUNG_S,
    ),
    Fault(
        name="port-half-open",
        effects=HELD,
        what="connections silent, no new ones",
        strike=deeds.half_open_ports,
        undo=deeds.restart,
        evidence=SILENT,
        goal=HUNG_S,
    ),
    Fault(
        name="slow-answers",
        effects=("probes late",),
        what="every probe answered 0.8 s late",
        strike=deeds.answer_slowly,
        undo=deeds.be_well,
        failover=False,
        watch=12.0,
    ),
    Fault(
        name="lost-probes",
        effects=("probes lost",),
        what="30 % of the probes lost",
        strike=deeds.lose_probes,
        undo=deeds.be_well,
        failover=False,
        watch=12.0,
    ),
    # ---- nodes
    Fault(
        name="node-lost",
        effects=HELD,
        what="holder's node cut off",
        strike=deeds.lose_node,
        undo=deeds.reboot,
        everybody=True,
        evidence=NODE,
        goal=NODE_S,
    ),
    Fault(
        name="node-back",
        effects=HELD,
        what="... and back with its old holder",
        strike=deeds.lose_node,
        undo=deeds.bring_back,
        everybody=True,
        evidence=NODE,
        goal=NODE_S,
        watch=5.0,
    ),
    Fault(
        name="holder-partitioned",
        what="holder's node cut off, the holder serves on",
        strike=deeds.part_node,
        undo=deeds.heal_node,
        everybody=True,
        evidence=NODE,
        goal=NODE_S,
        watch=3.0,
        effects=(*HELD, TAKEN, REFUSED, "old holders replaced"),
    ),
    Fault(
        name="node-flapping",
        effects=HELD,
        what="away 1.2 s, back 1.5 s, four times",
        strike=deeds.flap_node,
        undo=deeds.bring_back,
        everybody=True,
        failover=False,
        watch=5.0,
    ),
    Fault(
        name="zone-lost",
        effects=HELD,
        what="all nodes of a zone cut off",
        strike=deeds.lose_zone,
        undo=deeds.reboot,
        everybody=True,
        evidence=NODE,
        goal=NODE_S,
    ),
    Fault(
        name="last-spare",
        effects=ENDED,
        what="no pod left, and for 3 s no node for new ones",
        strike=deeds.last_spare,
        undo=deeds.uncordon,
        everybody=True,
        evidence=DELETED | DIED,
        allowed=deeds.UNSERVED_S + ALLOWED_S,
    ),
    # ---- the API server and the way to it
    Fault(
        name="api-down-10s",
        effects=("API calls unanswered", *RESET),
        what=f"API server stopped for 10 s, {CLOSED}",
        strike=control.api_down_10,
        undo=control.restart_struck,
        everybody=True,
        evidence=SHUT,
        allowed=9.0 + ALLOWED_S,
    ),
    Fault(
        name="api-down-60s",
        effects=("API calls unanswered", *RESET),
        what=f"API server stopped for 60 s, {CLOSED}",
        strike=control.api_down_60,
        undo=control.restart_struck,
        everybody=True,
        evidence=SHUT,
        allowed=59.0 + ALLOWED_S,
    ),
    Fault(
        name="watch-dead",
        effects=("watches cut", "pieces swallowed", *ENDED),
        what="watches die silently, holder deleted",
        strike=control.watches_die,
        undo=control.count_swallowed,
        everybody=True,
        evidence=DELETED | DIED,
    ),
    Fault(
        name="storm-429",
        effects=("calls answered 429", *RESET),
        what=f"the operators answered 429 for 10 s, {CLOSED}",
        strike=control.storm,
        undo=control.restart_struck,
        everybody=True,
        evidence=SHUT,
        allowed=9.0 + ALLOWED_S,
    ),
    # ---- operators
    Fault(
        name="leader-killed",
        effects=("operators ended",),
        what="kill -9: messages go on, nothing is moved",
        strike=control.kill_leader,
        undo=control.replace_leader,
        everybody=True,
        failover=False,
        watch=8.0,
    ),
    Fault(
        name="leader-and-holder",
        effects=("operators ended", *ENDED),
        what="kill -9, and a holder deleted at once",
        strike=control.kill_leader_and_holders,
        undo=control.replace_leader,
        everybody=True,
        evidence=DELETED | DIED,
        goal=SUCCESSION_S,
    ),
    Fault(
        name="leader-paused",
        effects=("operators stopped", *ENDED),
        what="SIGSTOP for 60 s, and a holder deleted at once",
        strike=control.pause_leader,
        undo=control.wake_leader,
        everybody=True,
        evidence=DELETED | DIED,
        goal=SUCCESSION_S,
        watch=5.0,
    ),
    Fault(
        name="leader-cut-off",
        effects=("pieces held", *ENDED),
        what="leader parted from the API server for 20 s, a holder deleted",
        strike=control.cut_leader_off,
        undo=control.heal_leader,
        everybody=True,
        evidence=DELETED | DIED,
        goal=SUCCESSION_S,
        watch=5.0,
    ),
    # ---- what the operators can see
    Fault(
        name="leader-blind",
        effects=("operators ended", "connections denied", *ENDED),
        what="the next leader reaches no Coreapp for 15 s, then another may lead, then a holder deleted",
        strike=partial_sight.blind_leader,
        undo=partial_sight.see_again,
        everybody=True,
        pods_stay=True,
        evidence=DELETED | DIED,
        goal=QUICK_S,
    ),
    Fault(
        name="secret-unreadable",
        effects=("reads answered 500", *ENDED),
        what="one cluster's Secret answered 500, a holder deleted",
        strike=partial_sight.secret_unreadable,
        undo=partial_sight.go_home,
        everybody=True,
        pods_stay=True,
        evidence=DELETED | DIED,
        goal=QUICK_S,
    ),
    Fault(
        name="rights-taken",
        effects=("calls answered 403", *ENDED),
        what="the role loses PodDisruptionBudgets, a holder deleted",
        strike=partial_sight.rights_taken,
        undo=partial_sight.go_home,
        everybody=True,
        pods_stay=True,
        evidence=DELETED | DIED,
        goal=QUICK_S,
    ),
    Fault(
        name="half-429",
        effects=("calls answered 429", *ENDED),
        what="half of all calls answered 429, a holder deleted",
        strike=partial_sight.half_answered,
        undo=partial_sight.go_home,
        everybody=True,
        pods_stay=True,
        evidence=DELETED | DIED,
    ),
    Fault(
        name="watches-401",
        effects=("watches answered 401", *ENDED),
        what="watches cut and answered 401 for 1 s; 5 s later a holder deleted",
        strike=partial_sight.watches_refused,
        undo=partial_sight.go_home,
        everybody=True,
        pods_stay=True,
        evidence=DELETED | DIED,
        goal=QUICK_S,
    ),
    Fault(
        name="admission",
        effects=("writes seen by admission", *ENDED),
        moves=frozenset({"roll-out", "resize"}),
        what="a webhook changes one cluster's StatefulSet while it grows, holders of the others deleted",
        strike=partial_sight.admission_changes,
        undo=partial_sight.go_home,
        everybody=True,
        pods_stay=True,
        evidence=DELETED | DIED | {"RolledOut"},
        goal=QUICK_S,
    ),
    Fault(
        name="hostile-neighbour",
        effects=("hostile annotations", *ENDED),
        what="two clusters annotated with nonsense (10 KB, 4,301 digits), a holder deleted",
        strike=partial_sight.hostile_neighbour,
        undo=partial_sight.go_home,
        everybody=True,
        pods_stay=True,
        evidence=DELETED | DIED,
        goal=QUICK_S,
    ),
    Fault(
        name="older-service",
        effects=("older Services put back", *ENDED),
        what="one cluster's Service replaced by an earlier copy, holders of the others deleted",
        prepare=partial_sight.copy_service,
        strike=partial_sight.put_older_back,
        undo=partial_sight.go_home,
        everybody=True,
        pods_stay=True,
        # RolledOut: what a webhook left in the template is rolled out when there is something else to write.
        evidence=DELETED | DIED | {"HolderDisagrees"} | {"RolledOut"},
        goal=QUICK_S,
    ),
    # ---- in the middle of a change
    Fault(
        name="during-grow",
        effects=ENDED,
        moves=frozenset({"resize"}),
        what="holder deleted while pods are added, 2 -> 4",
        strike=deeds.delete_while_growing,
        undo=deeds.at_two_shards,
        evidence=DELETED | DIED,
    ),
    Fault(
        name="during-set-shards",
        effects=ENDED,
        moves=frozenset({"resize"}),
        what="holder deleted during the call, 2 -> 4",
        strike=deeds.delete_while_setting_shards,
        undo=deeds.at_two_shards,
        evidence=DELETED | DIED | {"RestartOverdue"},
    ),
    Fault(
        name="during-shrink",
        effects=ENDED,
        moves=frozenset({"resize"}),
        what="holder deleted while pods are removed, 4 -> 2",
        prepare=deeds.at_four_shards,
        strike=deeds.delete_while_shrinking,
        undo=deeds.at_two_shards,
        evidence=DELETED | DIED | {"RestartOverdue"},
    ),
)
SHORT = (
    "pod-deleted",
    "container-killed",
    "hang",
    "port-closed",
    "slow-answers",
    "holder-partitioned",
    "leader-and-holder",
    "secret-unreadable",
    "rights-taken",
)
"""The round that CI runs."""


def named(names: list[str]) -> tuple[Fault[ChaosStage], ...]:
    """The faults of these names, in the table's order. ValueError with a sentence when one is not in it."""
    unknown = sorted(set(names) - {fault.name for fault in FAULTS})
    if unknown:
        msg = f"there is no fault {', '.join(unknown)}; there are {', '.join(fault.name for fault in FAULTS)}"
        raise ValueError(msg)
    return tuple(fault for fault in FAULTS if fault.name in names)
