"""What each rule says in its variants: a sentence names what is waited for, and nothing that is not so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from whatsapp_operator.core.actions import Create
from whatsapp_operator.core.desired import Switchover
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.snapshot import Answer, Call, Login, Report, Workload

from .plans import of
from .situations import NOW, UNSCHEDULABLE, Situation, seconds, situation
from .witnesses import WITNESSES, growing, restarting

SETTLED = situation().settled()
FOUR = situation().settled(shards=4, spares=2)
LATER = NOW - seconds(600)


def cordoned(one: Situation, *ordinals: int) -> Situation:
    one = one.with_nodes()
    for ordinal in ordinals:
        one = one.with_node(ordinal, leaving="cordoned")
    return one


def scaled_by(one: Situation, who: str, replicas: int) -> Situation:
    return one.seeing(statefulset=Workload(uid="sts", resource_version="9", replicas=replicas, ready=3, revision="rev-1", scaled_by=who))


def drifted() -> Situation:
    """Another party set one shard; the spec asks for two, and for repair."""
    return SETTLED.reporting(1).wanting(repairs_drift=True).restarted(1)


DELETED = "The cluster is being deleted. Its shards are handed over until the pods go; nothing else is done"
FAILED_1 = "Shard 1: acme-coreapp-1 failed (PodDeleted), acme-coreapp-4 is taking over"
FAILED_3 = "Shard 3: acme-coreapp-3 failed (ContainerTerminated), acme-coreapp-5 is taking over"
ONCE = "The Webapp accepts key password of Secret acme-admin neither as it is nor as the new password that the first login must set"
NEITHER = "The Webapp accepts neither key password nor key initialPassword of Secret acme-admin"
STRONG = "A new one has 8 to 64 characters, with a digit, an upper-case and a lower-case letter and a special character."
DRIFT = (
    "Something other than the operator changed the shards from 2 to 1. Set spec.shards to 1 to keep that, "
    "or set spec.reshard.drift to Repair to have the operator undo it."
)
MOVING = "Moving shards as annotation multiconnect.dev/switchover says:"
PENDING = "acme-simulator-0 (0/3 nodes are available: 3 node(s) were unschedulable)"
FOREIGN = (
    "are not owned by this cluster and are left alone. Delete or rename them, or give the cluster another name. "
    "If one of them only lost its owner reference, put that back instead."
)
UNCLEAR = "got no clear answer; only GET is sent until its outcome is known, at the latest at"
FOLLOWS = "the number follows from spec.shards and spec.spares"

FENCED = (
    "The servers reject the epochs of shard 0 (acme-coreapp-0): they have accepted higher ones, usually because etcd was restored from a "
    "backup. Reset their fence: POST /control/reset-fence to port 8080 of pod acme-simulator-0."
)
SENTENCES: dict[str, tuple[Situation, str, str]] = {
    "deletion": (SETTLED.wanting(deleting=True), "Deleting", f"{DELETED}."),
    "deletion with finalizers": (
        SETTLED.wanting(deleting=True, finalizers=("a.example/x", "b.example/y")),
        "Deleting",
        f"{DELETED}. Kubernetes waits for a.example/x, b.example/y.",
    ),
    "two failovers": (
        FOUR.holder_deleted(1).with_holder(3, terminated=True, ready=False),
        "FailingOver",
        f"{FAILED_1}; {FAILED_3}.",
    ),
    "two requests": (
        FOUR.wanting(switchovers=(Switchover(shard=0), Switchover(shard=2)), switchover_text="0,2"),
        "SwitchoverRequested",
        "Moving shards as annotation multiconnect.dev/switchover says: 0, 2.",
    ),
    "a request of any standby when one has just started": (
        FOUR.with_pod(4, report=Report(shards=None)).wanting(switchovers=(Switchover(shard=0),), switchover_text="0"),
        "SwitchoverRequested",
        f"{MOVING} 0.",
    ),
    "a request of another standby than that": (
        FOUR.with_pod(4, report=Report(shards=None)).wanting(
            switchovers=(Switchover(shard=0, to="acme-coreapp-5"),), switchover_text="0=acme-coreapp-5"
        ),
        "SwitchoverRequested",
        f"{MOVING} 0.",
    ),
    "two drained nodes": (
        cordoned(FOUR, 0, 1),
        "Draining",
        "Shard 0: acme-coreapp-0 -> acme-coreapp-4; Shard 1: acme-coreapp-1 -> acme-coreapp-5, before the node is drained.",
    ),
    "a login with an answer": (
        WITNESSES["LoginRejected"].client(login_message="401: Unauthorized"),
        "LoginRejected",
        f"{NEITHER} (401: Unauthorized). Put the right password there.",
    ),
    "a new password that is rejected": (
        WITNESSES["LoginRejected"].client(is_new_password_rejected=True),
        "LoginRejected",
        f"{ONCE}. {STRONG} Put the right password there.",
    ),
    "a first start": (situation(), "Bootstrapping", "Creating the first pods; the client has not reported its shards yet."),
    "a first start with a problem": (
        situation().client(problem="connection refused"),
        "Bootstrapping",
        "Creating the first pods; the client has not reported its shards yet: connection refused.",
    ),
    "a first start without room": (
        situation().client(problem="connection refused").seeing(pending_pod=PENDING),
        "Bootstrapping",
        f"Creating the first pods; the client has not reported its shards yet: connection refused; waiting for {PENDING}.",
    ),
    "logging in without room": (
        WITNESSES["LoggingIn"].seeing(pending_pod=PENDING),
        "LoggingIn",
        f"Asking the Webapp for the number of shards; waiting for {PENDING}.",
    ),
    "a Webapp without room": (
        SETTLED.seeing(webapp=Workload(uid="", resource_version="", replicas=2, ready=1), pending_pod=PENDING),
        "ReplacingPods",
        f"1 of 2 Webapps are ready; waiting for {PENDING}.",
    ),
    "deleted objects": (
        SETTLED.without_object("Service", "acme-webapp").without_object("NetworkPolicy", "acme-webapp"),
        "Bootstrapping",
        "Recreating deleted objects: NetworkPolicy acme-webapp, Service acme-webapp.",
    ),
    "replicas too low": (scaled_by(SETTLED, "kubectl", 2), "ScalingUp", f"Coreapps 2 -> 3 (kubectl wrote 2; {FOLLOWS})."),
    "two conflicts": (
        SETTLED.seeing(name_conflicts=(Ref("Service", "acme-webapp"), Ref("Service", "acme-shard-1"))).with_route(1, foreign=True),
        "NameConflict",
        f"Service acme-webapp, Service acme-shard-1 {FOREIGN}",
    ),
    "shards with and without Services": (
        WITNESSES["AssigningShards"].with_route(3),
        "AssigningShards",
        "Assigning holders to shards 2, 3.",
    ),
    "two high holders": (
        situation().settled(spares=0).with_pods([2, 3]).held_by(0, 2).held_by(1, 3),
        "ConsolidatingShards",
        "Moving shards 0, 1 to low ordinals before Coreapps 4 -> 2.",
    ),
    "logging in with a problem": (
        WITNESSES["LoggingIn"].client(problem="connection refused"),
        "LoggingIn",
        "Asking the Webapp for the number of shards: connection refused.",
    ),
    "accepted, and a third number": (
        growing().noted(4, Answer.ACCEPTED).reporting(1),
        "Verifying",
        (
            "Set Shards 2 -> 4 was accepted; the client nevertheless reports 1: something other than the operator changed it, "
            "or the client lost its database. "
            "If that does not change, the operator continues from 1 at 2027-01-04T12:13:59Z."
        ),
    ),
    "accepted, and not yet seen": (
        growing().noted(4, Answer.ACCEPTED),
        "Verifying",
        "Set Shards 2 -> 4 was accepted; the client still reports 2.",
    ),
    "not verified": (
        growing().noted(4, Answer.ACCEPTED).reporting(None),
        "LoggingIn",
        "Asking the Webapp for the number of shards.",
    ),
    "no clear answer": (
        growing().noted(4, Answer.UNKNOWN),
        "AnswerUnknown",
        f"Set Shards 2 -> 4 {UNCLEAR} 2027-01-04T12:13:59Z.",
    ),
    "shrinking below a high holder": (
        SETTLED.with_pods([3, 4]).held_by(0, 3).with_pod(0, **UNSCHEDULABLE).with_pod(2, **UNSCHEDULABLE),
        "ScalingDown",
        "Coreapps 5 -> 3, once every shard is served.",
    ),
    "shrinking": (SETTLED.with_pods([3]), "ScalingDown", "Coreapps 4 -> 3."),
    "shrinking while one is away that stays, and one that goes": (
        SETTLED.with_pods([3, 4]).with_pod(3, report=None).with_pod(2, report=None),
        "ScalingDown",
        "Coreapps 5 -> 3, once acme-coreapp-2 is back.",
    ),
    "shrinking while two are away": (
        SETTLED.with_pods([3, 4]).with_pod(1, report=None).with_pod(2, report=None),
        "ScalingDown",
        "Coreapps 5 -> 3, once acme-coreapp-1, acme-coreapp-2 are back.",
    ),
    "another party's number": (
        scaled_by(SETTLED.with_pods([3]), "kubectl", 4),
        "ScalingDown",
        f"Coreapps 4 -> 3 (kubectl wrote 4; {FOLLOWS}).",
    ),
    "drift": (
        SETTLED.reporting(1),
        "ShardsDrifted",
        DRIFT,
    ),
    "epochs that the servers reject": (
        WITNESSES["EpochRejected"],
        "EpochRejected",
        f"{FENCED} Within a minute after that a new epoch is tried.",
    ),
    "epochs that the servers reject, and no standby": (
        WITNESSES["EpochRejected"].wanting(spares=0).without_pod(2).replicas(2),
        "EpochRejected",
        f"{FENCED} Then delete acme-coreapp-0: no standby can try a new epoch.",
    ),
    "a resize": (growing(), "SettingShards", "Set Shards 2 -> 4: all Coreapps will restart."),
    "a call under way": (growing().calling(4), "SettingShards", "Set Shards 2 -> 4: all Coreapps will restart."),
    "a call of another number": (growing().calling(4).wanting(shards=2), "SettingShards", "Set Shards 2 -> 4: all Coreapps will restart."),
    "repaired drift": (
        drifted(),
        "SettingShards",
        "Set Shards 1 -> 2: all Coreapps will restart, because something other than the operator changed the shards.",
    ),
    "logging on": (
        SETTLED.seeing(logged_off_at=LATER),
        "SettingShards",
        "Set Shards 2 -> 2: all Coreapps will restart, which logs the client on again.",
    ),
    "without spares": (
        growing().with_pod(4, ready=False).seeing(since={"LacksCoreapps": LATER}),
        "SettingShards",
        "Set Shards 2 -> 4: all Coreapps will restart, with enough Coreapps for the shards but without the spares.",
    ),
    "two overdue": (
        WITNESSES["RestartOverdue"].with_pod(3, report=None).with_holder(3, report=None).wanting(manual=True),
        "RestartOverdue",
        "The restart after Set Shards 4 -> 4 is overdue; not back: acme-coreapp-3, acme-coreapp-4.",
    ),
    "overdue, though all answer": (
        restarting().restarted(4, range(5)).with_pod(2, ready=False).with_pod(3, ready=False).later(1000),
        "RestartOverdue",
        "The restart after Set Shards 2 -> 4 is overdue; waiting for acme-coreapp-2, acme-coreapp-3.",
    ),
    "Webapps": (
        SETTLED.seeing(webapp=Workload(uid="w", resource_version="1", replicas=2, ready=1)),
        "ReplacingPods",
        "1 of 2 Webapps are ready.",
    ),
    "Webapps being replaced": (
        SETTLED.seeing(webapps_change=True),
        "ReplacingPods",
        "2 of 2 Webapps are ready while they are replaced.",
    ),
    "one is away while another one goes": (
        SETTLED.with_pod(2, ready=False).with_pod(3, ready=False, deleting=True),
        "ReplacingPods",
        "2 of 3 Coreapps are ready: waiting for acme-coreapp-2.",
    ),
    "Coreapps before Webapps": (
        SETTLED.with_pod(2, ready=False).seeing(webapps_change=True),
        "ReplacingPods",
        "2 of 3 Coreapps are ready: waiting for acme-coreapp-2.",
    ),
}


@pytest.mark.parametrize(("one", "rule", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_a_rule_says_what_is_so(one: Situation, rule: str, sentence: str) -> None:
    decision = one.plan().decision

    assert (decision.rule, decision.why) == (rule, sentence)


WAITS: dict[str, tuple[Situation, str]] = {
    "a request of a standby that has just started": (
        FOUR.with_pod(4, report=Report(shards=None)).wanting(
            switchovers=(Switchover(shard=0, to="acme-coreapp-4"),), switchover_text="0=acme-coreapp-4"
        ),
        f"{MOVING} 0; waiting for acme-coreapp-4 to learn the number of shards.",
    ),
    "a request of any standby when all have just started": (
        FOUR.with_pod(4, report=Report(shards=None))
        .with_pod(5, report=Report(shards=None))
        .wanting(switchovers=(Switchover(shard=0),), switchover_text="0"),
        f"{MOVING} 0; waiting for acme-coreapp-4, acme-coreapp-5 to learn the number of shards.",
    ),
    "a request of one of two that have just started": (
        FOUR.with_pod(4, report=Report(shards=None))
        .with_pod(5, report=Report(shards=None))
        .wanting(switchovers=(Switchover(shard=0, to="acme-coreapp-5"),), switchover_text="0=acme-coreapp-5"),
        f"{MOVING} 0; waiting for acme-coreapp-5 to learn the number of shards.",
    ),
}


@pytest.mark.parametrize(("one", "sentence"), WAITS.values(), ids=WAITS)
def test_a_requested_move_that_waits_is_reported_and_holds_nothing_else_up(one: Situation, sentence: str) -> None:
    """What it waits for may be just what another rule brings about."""
    plan = one.plan()
    assert plan.moving is not None
    assert (plan.decision.rule, plan.moving.rule, plan.moving.why) == ("UpToDate", "SwitchoverRequested", sentence)
    other = one.without_object("StatefulSet", "acme-simulator").plan()
    assert other.moving is not None
    assert (other.decision.rule, other.moving.rule) == ("Bootstrapping", "SwitchoverRequested")
    assert [action.obj["metadata"]["name"] for action in of(other, Create)] == ["acme-simulator"]


def test_Coreapps_are_not_ended_before_a_requested_move_is_made() -> None:  # noqa: N802
    """It may be to one of them."""
    waits = WITNESSES["ScalingDown"].wanting(switchovers=(Switchover(shard=0, to="acme-coreapp-3"),), switchover_text="0=acme-coreapp-3")

    assert (row(WITNESSES["ScalingDown"]), row(waits)) == ("ScalingDown", "UpToDate")


# --- what goes on although something waits for a person

STUCK = {"image_problem": "acme-webapp-x: ImagePullBackOff"}


@pytest.mark.parametrize(
    ("name", "goes_on"),
    [
        ("FailingOver", True),
        ("SwitchoverRequested", True),
        ("Draining", True),
        ("ScalingDown", False),
        ("RollingOut", False),
        ("SettingShards", False),
        ("Verifying", False),
        ("ReplacingPods", False),
        ("ServerBusy", False),
        ("AwaitingCoreapps", False),
    ],
)
def test_only_handovers_count_as_moving_while_a_person_must_act(name: str, goes_on: bool) -> None:
    """They end within seconds. Other work may wait for that person forever, and tools with it."""
    plan = WITNESSES[name].seeing(**STUCK).plan()

    assert plan.stuck is not None
    assert (plan.stuck.rule, plan.decision.rule) == ("ImageUnavailable", name)
    assert (plan.moving is not None and plan.moving.rule == name, plan.is_held_up) == (goes_on, not goes_on)
    alone = WITNESSES[name].plan()
    assert (alone.moving is not None and alone.moving.rule == name, alone.is_held_up) == (True, False)


def test_nothing_is_held_up_where_nothing_is_left_to_do() -> None:
    plan = SETTLED.seeing(**STUCK).plan()

    assert (plan.decision.rule, plan.moving, plan.is_held_up) == ("ImageUnavailable", None, False)


def test_of_a_cluster_that_is_being_deleted_nothing_else_is_said() -> None:
    """No person is to mend what goes away."""
    one = WITNESSES["NameConflict"].wanting(deleting=True).seeing(**STUCK)

    plan = one.plan()
    assert (plan.decision.rule, plan.stuck, plan.ready, plan.is_held_up) == ("Deleting", None, None, False)


# --- rules next to each other


def row(one: Situation) -> str:
    return one.plan().decision.rule


def test_a_switchover_waits_until_the_number_of_shards_is_known() -> None:
    """Without it nobody knows whether the shard exists: the request would be dropped."""
    requested = SETTLED.wanting(switchovers=(Switchover(shard=0),), switchover_text="0")

    assert row(requested.client(shards=None, asked_at=None)) != "SwitchoverRequested"
    assert row(requested) == "SwitchoverRequested"


def test_nothing_is_drained_in_mode_manual() -> None:
    assert row(WITNESSES["Draining"].wanting(manual=True)) == "UpToDate"


def test_a_StatefulSet_of_another_owner_is_not_scaled() -> None:  # noqa: N802
    one = SETTLED.seeing(statefulset=None, name_conflicts=(Ref("StatefulSet", "acme-coreapp"),), coreapps=())

    assert row(one.wanting(manual=True)) == "NameConflict"


def test_too_many_Coreapps_do_not_hold_up_a_resize() -> None:  # noqa: N802
    assert row(growing().with_pods([5])) == "SettingShards"


@pytest.mark.parametrize("name", ["WindowInvalid", "WindowClosed"])
def test_a_call_that_is_under_way_waits_for_no_window(name: str) -> None:
    one = WITNESSES[name]

    assert row(one) == name
    assert row(one.calling(4)) == "SettingShards"
    assert row(one.client(call=Call(id="4-x"))) == "SettingShards", "its note was wiped"


def test_a_closed_window_is_not_named_while_nothing_waits_for_it() -> None:
    assert row(WITNESSES["WindowClosed"].wanting(shards=2).replicas(3)) != "WindowClosed"


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (growing().seeing(not_kept=("fingerprint",)), True),
        (growing().calling(4).seeing(not_kept=("fingerprint",)), True),
        (SETTLED.seeing(not_kept=("fingerprint",)), False),
        (growing(), False),
    ],
)
def test_an_old_CRD_matters_for_a_call_only(one: Situation, says: bool) -> None:  # noqa: N802
    assert (row(one) == "CrdOutdated") is says


def test_a_rejected_change_is_over_when_nothing_is_left_to_change() -> None:
    assert row(WITNESSES["ChangeRejected"]) == "ChangeRejected"
    assert row(SETTLED.rejecting("Service", "acme-webapp")) == "UpToDate"
    assert row(WITNESSES["ChangeRejected"].seeing(rejected={})) != "ChangeRejected"


def test_a_step_that_is_rejected_is_said_no_matter_what_is_done() -> None:
    denied = SETTLED.seeing(denied="patch scale StatefulSet default/acme-coreapp: 403 Forbidden")
    said = denied.condition("Stalled")

    assert (said["status"], said["reason"]) == ("True", "ChangeRejected")
    assert said["message"] == (
        "The API server rejects a write of the operator, which retries it. Give the operator its rights back, or correct what is named: "
        "patch scale StatefulSet default/acme-coreapp: 403 Forbidden"
    )
    assert "what is named: Service is invalid" in WITNESSES["ChangeRejected"].condition("Stalled")["message"]
    both = WITNESSES["ChangeRejected"].seeing(denied="403")
    assert both.condition("Stalled")["message"].endswith("what is named: 403")


def test_a_login_is_not_called_rejected_before_it_is() -> None:
    assert row(WITNESSES["LoginRejected"].client(login=Login.DONE)) != "LoginRejected"


def test_Webapps_are_waited_for_until_all_are_ready() -> None:  # noqa: N802
    webapp = SETTLED.snapshot.webapp
    assert webapp is not None
    assert row(SETTLED.seeing(webapp=replace(webapp, ready=1))) == "ReplacingPods"
    assert row(SETTLED.seeing(webapp=replace(webapp, ready=2))) == "UpToDate"


def test_no_shard_is_consolidated_while_it_is_unknown_how_many_there_will_be() -> None:
    one = SETTLED.with_pods([3]).held_by(0, 3)

    assert row(one) == "ConsolidatingShards"
    assert row(one.noted(1, Answer.UNKNOWN)) == "AnswerUnknown"


def test_a_roll_out_waits_for_a_restart_that_is_overdue() -> None:
    one = WITNESSES["RestartOverdue"].all_pods(revision="rev-0").with_pods([5])

    assert row(one) == "RestartOverdue"
    assert row(one.seeing(operation=None)) == "RollingOut"


def unwritten(one: Situation) -> Situation:
    """The Webapps' Service differs from what is wanted, and is not written yet."""
    ref = Ref("Service", "acme-webapp")
    live = {**one.snapshot.objects[ref], "spec": {}}
    return one.seeing(objects={**one.snapshot.objects, ref: live})


@pytest.mark.parametrize(
    ("one", "reportable"),
    [
        (SETTLED, True),
        (unwritten(SETTLED), False),
        (unwritten(SETTLED.with_pod(2, ready=False)), True),
        (SETTLED.seeing(statefulset=Workload(uid="sts", resource_version="9", replicas=3, ready=3, revision=None)), False),
        (
            SETTLED.seeing(statefulset=Workload(uid="sts", resource_version="9", replicas=3, ready=2, revision=None)).with_pod(
                2, ready=False
            ),
            True,
        ),
    ],
    ids=["nothing to do", "a change not written", "the same next to work", "a template not observed", "the same next to work"],
)
def test_nothing_to_do_is_not_said_of_a_change_that_is_only_being_written(one: Situation, reportable: bool) -> None:
    assert one.plan().is_reportable is reportable


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_a_workload_that_may_have_own_pods_is_to_be_deleted_without_them(kind: str) -> None:
    """One whose owner reference was removed: deleted in the usual way it would take all Coreapps along."""
    said = SETTLED.seeing(name_conflicts=(Ref("Service", "acme-webapp"), Ref(kind, "acme-x"))).plan().decision.why
    assert said == f"Service acme-webapp, {kind} acme-x {FOREIGN} A workload that is deleted with --cascade=orphan leaves its pods running."
