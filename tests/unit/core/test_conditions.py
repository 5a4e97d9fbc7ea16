"""Conditions in their variants: what each one says, of what."""

from __future__ import annotations

import pytest

from whatsapp_operator.core import conditions
from whatsapp_operator.core.actions import SetShards
from whatsapp_operator.core.desired import Account
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.snapshot import Answer, Report

from .situations import NOW, Situation, pod, seconds, situation
from .witnesses import WITNESSES, growing, restarting

SETTLED = situation().settled()
AWAY = "Set Shards 2 -> 4: 0 of 5 Coreapps are back, deadline 2027-01-04T12:02:59Z."
TAKEN = "shard 0: acme-coreapp-0 (PodDeleted)"
UNKNOWN = SETTLED.client(shards=None, asked_at=None)
SPARE_AWAY = situation().settled(shards=4).noted(4, Answer.ACCEPTED, origin=2).with_pod(4, report=Report(shards=2)).seeing(settled_shards=2)
"""Set Shards 2 -> 4 was accepted and every shard is served again; only the spare is not back yet."""
RESIZE = "Set Shards 2 -> 4: all Coreapps will restart."

BEHIND = (
    "Not served: shard 0: acme-coreapp-0, which does not run with the client's number of shards; another Coreapp takes over after 180 s."
)

READY: dict[str, tuple[Situation, str, str, str]] = {
    "one spare": (SETTLED, "True", "Serving", "All 2 shards are served; 1 failure can be tolerated."),
    "one shard": (situation().settled(shards=1), "True", "Serving", "The one shard is served; 1 failure can be tolerated."),
    "two spares": (situation().settled(spares=2), "True", "Serving", "All 2 shards are served; 2 failures can be tolerated."),
    "no spare wanted": (situation().settled(spares=0), "True", "Serving", "All 2 shards are served."),
    "no spare left": (SETTLED.without_pod(2), "True", "Serving", "All 2 shards are served, but no spare is left."),
    "first number": (growing().seeing(settled_shards=None), "False", "SettingShards", RESIZE),
    "first restart, number unknown": (restarting().seeing(settled_shards=None).reporting(None), "False", "Restarting", AWAY),
    "a short silence": (
        SETTLED.client(unresponsive_since=NOW - seconds(9.9), problem="connection reset"),
        "True",
        "Serving",
        "All 2 shards are served; 1 failure can be tolerated.",
    ),
    "a long silence": (
        SETTLED.client(unresponsive_since=NOW - seconds(10), problem="connection reset"),
        "Unknown",
        "WebappNotResponding",
        "The Webapp does not answer: connection reset",
    ),
    "the client does not answer": (UNKNOWN, "True", "Serving", "All 2 shards are served; 1 failure can be tolerated."),
    "the client does not answer, a shard is not served": (UNKNOWN.holder_deleted(0), "False", "FailingOver", f"Being taken over: {TAKEN}."),
    "all is served again, only the spare is not back": (SPARE_AWAY, "True", "Serving", "All 4 shards are served, but no spare is left."),
    "a restart, from a number that was not known": (
        restarting().noted(4, Answer.ACCEPTED, origin=None),
        "False",
        "Restarting",
        AWAY.replace("2 -> 4", "? -> 4"),
    ),
    "a holder is gone": (SETTLED.holder_deleted(0), "False", "FailingOver", f"Being taken over: {TAKEN}."),
    "a holder has another number of shards": (
        SETTLED.with_holder(0, report=Report(shards=4)),
        "False",
        "FailingOver",
        BEHIND,
    ),
    "the same, and only users move shards": (
        SETTLED.wanting(manual=True).with_holder(0, report=Report(shards=4)),
        "False",
        "FailingOver",
        BEHIND.replace("another Coreapp takes over after 180 s", "failover.mode is Manual, so only a switchover moves it"),
    ),
    "a holder with the client's number of shards gets its role again": (
        SETTLED.with_holder(0, report=Report(shards=2)),
        "False",
        "FailingOver",
        "Being taken over: shard 0: acme-coreapp-0.",
    ),
    "a holder has another number than a new Coreapp, and that of the client is not known": (
        UNKNOWN.with_holder(0, report=Report(shards=4)).with_pod(2, report=Report()),
        "False",
        "FailingOver",
        "Being taken over: shard 0: acme-coreapp-0.",
    ),
    "a holder with another number of shards fails": (
        SETTLED.with_holder(0, report=Report(shards=4), broken_at=NOW),
        "False",
        "FailingOver",
        "Being taken over: shard 0: acme-coreapp-0 (ConnectionLost).",
    ),
    "a holder is gone and another has no number": (
        situation().settled(spares=2).holder_deleted(1).with_holder(0, report=Report()),
        "False",
        "FailingOver",
        f"Being taken over: shard 1: acme-coreapp-1 (PodDeleted). {BEHIND}",
    ),
    "a Service is gone": (SETTLED.without_route(1), "False", "FailingOver", "Being taken over: shards that have no Service yet."),
    "nothing settled, and no rule is at work": (
        SETTLED.seeing(settled_shards=None).client(asked_at=NOW - seconds(60)),
        "False",
        "Bootstrapping",
        "The client is being set up for the first time.",
    ),
}


@pytest.mark.parametrize(("one", "status", "reason", "message"), READY.values(), ids=READY)
def test_Ready_says_what_is_so(one: Situation, status: str, reason: str, message: str) -> None:  # noqa: N802
    found = one.condition("Ready")

    assert (found["status"], found["reason"], found["message"]) == (status, reason, message)


@pytest.mark.parametrize("one", [situation(), growing().seeing(settled_shards=None)], ids=["nothing exists", "a first number is set"])
def test_while_a_cluster_is_set_up_Redundant_says_the_same_as_Ready(one: Situation) -> None:  # noqa: N802
    """Two sentences under one reason would be two Events."""
    ready, redundant, plan = one.condition("Ready"), one.condition("Redundant"), one.plan()

    assert (ready["reason"], ready["message"]) == (plan.decision.rule, plan.decision.why)
    assert (redundant["reason"], redundant["message"], redundant["status"]) == (ready["reason"], ready["message"], "False")


@pytest.mark.parametrize("manual", [False, True])
def test_a_holder_that_lives_and_was_not_assigned_yet_is_on_its_way(manual: bool) -> None:
    """Its role is assigned in any mode."""
    one = SETTLED.with_holder(0, report=Report(shards=2)).without_pod(2).wanting(manual=manual)

    assert conditions.shard_state(one.facts(), one.route(0)) == "Moving"


def said(one: Situation, kind: str) -> tuple[str, str, str]:
    found = one.condition(kind)
    return found["status"], found["reason"], found["message"]


def test_a_restart_explains_a_missing_spare_only_while_a_shard_is_not_served() -> None:
    assert said(SPARE_AWAY, "Redundant") == (
        "False",
        "NoSpareLeft",
        "0 of 1 wanted spares are ready; the next failure leaves a shard unserved.",
    )
    assert said(restarting(), "Redundant")[:2] == ("False", "Restarting")


@pytest.mark.parametrize(
    ("conflicts", "why"),
    [
        ((), "PodDeleted"),
        ((Ref("Service", "acme-webapp"),), "PodDeleted"),
        ((Ref("StatefulSet", "acme-coreapp"),), "StatefulSet acme-coreapp is not owned by this cluster"),
        ((Ref("Pod", "acme-coreapp-0"),), "Pod acme-coreapp-0 is not owned by this cluster"),
    ],
)
def test_a_holder_that_is_another_owners_is_not_called_deleted(conflicts: tuple[Ref, ...], why: str) -> None:
    one = situation().settled(spares=0).holder_deleted(0).seeing(name_conflicts=conflicts)

    assert said(one, "Ready") == ("False", "Unserved", f"No Coreapp can take shard 0: acme-coreapp-0 ({why}).")


def test_a_pod_with_the_labels_of_a_holder_is_named_and_holds_up_no_Set_Shards() -> None:  # noqa: N802
    """Even if it is Pending and gets no message: it would get some as soon as it starts."""
    one = situation().settled(spares=0).with_route(0, copied_by="debug").seeing(since={"LabelConflict/0/10-first": NOW - seconds(30)})

    cause = "LabelConflict with pod debug: remove its label multiconnect.dev/epoch"
    assert said(one, "Ready") == ("False", "Unserved", f"No Coreapp can take shard 0: acme-coreapp-0 ({cause}).")
    assert any(isinstance(action, SetShards) for action in one.wanting(shards=1).plan().actions)


def test_a_holder_that_says_that_it_serves_is_not_said_to_run_with_another_number() -> None:
    """It moves for another cause."""
    one = SETTLED.with_holder(0, report=Report(shard=0, epoch="10-first", shards=4)).with_route(0, copied_by="debug")

    cause = "LabelConflict with pod debug: remove its label multiconnect.dev/epoch"
    assert said(one, "Ready") == ("False", "FailingOver", f"Being taken over: shard 0: acme-coreapp-0 ({cause}).")


def test_of_a_holder_that_is_there_its_own_failure_is_said() -> None:
    one = situation().settled(spares=0).with_holder(0, phase="Failed", ready=False).seeing(name_conflicts=(Ref("Pod", "acme-coreapp-0"),))

    assert said(one, "Ready")[2] == "No Coreapp can take shard 0: acme-coreapp-0 (PodFailed)."


def test_before_any_shard_has_a_Service_each_desired_one_needs_a_Coreapp() -> None:  # noqa: N802
    assert conditions.failures_tolerated(SETTLED.seeing(routes=()).all_pods(labels=pod(0).labels).facts()) == 1


# --- what a person must act upon


@pytest.mark.parametrize(
    ("name", "reconciling", "stalled"),
    [
        ("UpToDate", ("False", "UpToDate"), ("False", "UpToDate")),
        ("WindowClosed", ("True", "WindowClosed"), ("False", "UpToDate")),
        ("ChangedByAdmission", ("False", "UpToDate"), ("False", "ChangedByAdmission")),
        ("PodsRejected", ("False", "UpToDate"), ("True", "PodsRejected")),
        ("CertificateExpired", ("False", "CertificateExpired"), ("True", "CertificateExpired")),
    ],
    ids=["all is well", "work that waits", "admission", "nothing is left to do but for a person", "a resize waits for a person"],
)
def test_what_goes_on_and_what_waits_for_a_person_are_two_matters(
    name: str, reconciling: tuple[str, str], stalled: tuple[str, str]
) -> None:
    one = WITNESSES[name]

    assert (said(one, "Reconciling")[:2], said(one, "Stalled")[:2]) == (reconciling, stalled)


def test_nothing_to_do_and_nothing_for_a_person_are_said_in_these_words() -> None:
    assert (said(SETTLED, "Reconciling")[2], said(SETTLED, "Stalled")[2]) == ("Nothing to do.", "Nothing waits for a person.")


# --- the account's certificate

ACCOUNT = growing().with_account()
NO_SECRET = Account(country_code="1", phone_number="6315550000", registered_at=NOW)
CERTIFICATES: dict[str, tuple[Situation, str, str, str]] = {
    "the simulator": (SETTLED, "True", "Simulated", "The simulator's made-up account needs no certificate."),
    "the simulator was banned": (
        SETTLED.seeing(banned_at=NOW),
        "True",
        "Simulated",
        "The simulator's made-up account needs no certificate.",
    ),
    "good": (ACCOUNT, "True", "Valid", "Set Shards could be sent; the certificate expires at 2027-10-31T12:00:00Z."),
    "not needed yet": (
        growing().wanting(account=NO_SECRET),
        "True",
        "Valid",
        "Set Shards could be sent without a certificate until 7 days after registration.",
    ),
    "not read yet": (ACCOUNT.seeing(account=None), "Unknown", "ReadFailed", "The Secret of the account could not be read: not yet"),
    "could not be read": (
        ACCOUNT.seeing(account=None, unread={"Secret": "HTTP 403"}),
        "Unknown",
        "ReadFailed",
        "The Secret of the account could not be read: HTTP 403",
    ),
    "banned, and not read": (
        ACCOUNT.seeing(account=None, banned_at=NOW),
        "False",
        "Banned",
        "The client says that the account is banned; the operator sends nothing more. Ask Meta's support, then create a new cluster.",
    ),
}


@pytest.mark.parametrize(("one", "status", "reason", "message"), CERTIFICATES.values(), ids=CERTIFICATES)
def test_CertificateValid_says_what_could_be_sent(one: Situation, status: str, reason: str, message: str) -> None:  # noqa: N802
    assert said(one, "CertificateValid") == (status, reason, message)


def test_the_Secret_that_is_still_awaited_is_not_yet_called_wrong() -> None:  # noqa: N802
    assert [said(WITNESSES[name], "CertificateValid")[:2] for name in ("AwaitingSecret", "SecretMissing")] == [
        ("Unknown", "AwaitingSecret"),
        ("False", "SecretMissing"),
    ]


def test_a_cluster_that_is_being_deleted_is_not_said_to_fail_over_once_its_pods_go() -> None:
    """Nothing takes over, and nobody needs to be called: a finalizer may keep the resource for long."""
    one = situation().settled().wanting(deleting=True)
    gone = one.seeing(coreapps=(), routes=())

    assert one.condition("Ready")["reason"] == "Serving"
    assert one.holder_deleted(0).condition("Ready")["reason"] == "FailingOver", "a standby still takes over"
    for ended in (gone, gone.seeing(routes=one.snapshot.routes)):
        assert (ended.condition("Ready")["status"], ended.condition("Ready")["reason"]) == ("False", "Deleting")
    said = {gone.condition(kind)["message"] for kind in ("Ready", "Reconciling")}
    assert len(said) == 1, "two sentences under one reason would be two Events"


@pytest.mark.parametrize("unready", [(0,), (0, 1, 2)], ids=["one holder", "every Coreapp"])
def test_a_shard_is_served_while_only_another_container_of_its_pod_is_not_ready(unready: tuple[int, ...]) -> None:
    """Messages reach a holder ready or not, and it answers and reports its shard: nothing takes it over, and nothing needs to."""
    one = situation().settled().with_nodes()
    for ordinal in unready:
        one = one.with_pod(ordinal, ready=False, lost_readiness=True, pending_because="containers with unready status: [proxy]")

    assert (one.condition("Ready")["status"], one.condition("Ready")["reason"]) == ("True", "Serving")
    assert "containers with unready status: [proxy]" in one.condition("Reconciling")["message"]
    silent = one.with_holder(0, report=None)
    assert silent.condition("Ready")["status"] == "False", "its kubelet's word counts where its own is missing"
